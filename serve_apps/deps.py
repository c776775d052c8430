"""What the gateway's routes need, handed to them in one frozen object.

Builds nothing and looks nothing up: the deployment fills it, tests fill it with what they
have. Routes reach it through ``deps_of(request)``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.requests import HTTPConnection

from cluster.settings import Settings
from serve_apps.auth import Authenticator

if TYPE_CHECKING:  # what a route does not use need not be imported to serve the others
    import redis.asyncio
    from sqlalchemy import Engine

    from cluster.metrics_client import MetricsClient
    from cluster.run_queue_client import RunQueueClient
    from ingest.alerts.external_store import ExternalAlertSettings
    from ingest.alerts.relay import Relay
    from ingest.alerts.settings import AlertSettings
    from ingest.command_desk import CommandDesk
    from realtime.hub_client import HubClient
    from serve_apps.disabled_users import DisabledUsers
    from training.labelling.label_client import LabelQueueClient


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayDeps:
    """The floor's parts as one gateway replica sees them."""

    settings: Settings
    engine: "Engine"
    """SQL store; call it from a thread, never on the event loop."""
    redis: "redis.asyncio.Redis"
    hub: "HubClient"
    run_queue: "RunQueueClient"
    metrics: "MetricsClient"
    auth: Authenticator
    relay: "Relay"
    alerts: "AlertSettings"
    desk: "CommandDesk"
    """Where commands to devices are handed in."""
    disabled: "DisabledUsers"
    """Users whom ``auth`` refuses."""
    external_alerts: "ExternalAlertSettings"
    labels: "LabelQueueClient"


def deps_of(connection: HTTPConnection) -> GatewayDeps:
    """Return the parts of the floor that serve this request or socket."""
    return cast(GatewayDeps, connection.app.state.deps)
