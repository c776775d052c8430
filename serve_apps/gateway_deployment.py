"""The gateway as a Ray Serve deployment: fills the app's parts, and ends it gently.

Holds no route and no protocol. Works behind HAProxy and behind Serve's Python proxy alike.
Invariant: nothing of FastAPI crosses a process; the app is built inside the replica.
"""

import asyncio
import logging
from typing import Any

import redis.asyncio
from fastapi import FastAPI
from ray import serve

from cluster.actors import configure_process, prepare_to_serve
from cluster.guarded_redis import GuardedAsyncRedis
from cluster.metrics_client import MetricsClient
from cluster.run_queue_client import RunQueueClient
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from ingest.alerts.external_store import ExternalAlertSettings
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.command_desk import CommandDesk
from ingest.command_store import CommandSettings
from realtime.hub_client import HubClient
from serve_apps.app import create_app
from serve_apps.auth import Authenticator
from serve_apps.connections import Connections
from serve_apps.deps import GatewayDeps
from serve_apps.disabled_users import DisabledUsers
from serve_apps.door import DeniedUpgrades
from serve_apps.errors import FeedDeadError
from serve_apps.floor_keys import parse_keys
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.identity_provider import IdentityProviderSettings
from serve_apps.provider_keys_http import ProviderKeys
from serve_apps.replica_socket import listen_beside_tcp
from serve_apps.replica_state import is_shutting_down
from serve_apps.signin_redis import UsedLinks
from training.labelling.label_client import LabelQueueClient

logger = logging.getLogger(__name__)

MAX_ONGOING_REQUESTS = 20_000
"""Every open socket holds one for its life; who may connect is decided in the app."""
HEALTH_CHECK_PERIOD_S = 1.0
"""Serve learns of a dead replica by its next check only: with its own 10 s every socket would wait that long."""
SHUTDOWN_POLL_S = 0.2
SHUTDOWN_MARGIN_S = 5.0
REDIS_TIMEOUT_S = 5.0


class Gateway:
    """One replica: the app, its parts, and the end of both."""

    def __init__(self, settings: Settings, gateway_settings: GatewaySettings) -> None:
        self._settings = settings
        self._gateway_settings = gateway_settings
        self._deps: GatewayDeps | None = None
        self._connections: Connections | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the app in the replica; Serve calls this after the constructor."""
        configure_process("gateway")
        logging.getLogger("uvicorn.error").addFilter(DeniedUpgrades())
        listen_beside_tcp()  # Serve starts the server once it has the app
        self._deps = await asyncio.to_thread(build_deps, self._settings)
        app = create_app(self._deps, self._gateway_settings)
        self._connections = connections = app.state.connections
        loop = asyncio.get_running_loop()

        def shut_out(user_id: str, tenant: str | None) -> None:
            loop.call_soon_threadsafe(connections.shut_out, user_id, tenant)

        self._deps.disabled.follow(shut_out)
        self._watcher = asyncio.create_task(self._drain_at_shutdown(), name="gateway-shutdown-watcher")
        prepare_to_serve()
        return app

    async def check_health(self) -> None:
        """Fail when only a new replica can help; a hub that restarts is no reason to cut every socket.

        Raises:
            FeedDeadError: the poll loop has ended.
        """
        if self._connections is not None and self._connections.feed.is_dead:
            raise FeedDeadError

    async def drain(self, over_s: float | None = None) -> int:
        """Close every socket of this replica with 3001 at a pace; called before a redeploy."""
        return 0 if self._connections is None else await self._connections.drain(over_s)

    async def _drain_at_shutdown(self) -> None:
        # The fallback for a redeploy that nobody announced by `drain`: Serve tells user code nothing.
        while not is_shutting_down():  # noqa: ASYNC110 -- a flag of Ray's, which signals nothing
            await asyncio.sleep(SHUTDOWN_POLL_S)
        await self.drain()


def build_deps(settings: Settings) -> GatewayDeps:
    """Return the floor's parts as a replica sees them. Blocks; call it from a thread."""
    client: redis.asyncio.Redis = GuardedAsyncRedis.from_url(
        settings.redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
    )
    hub = HubClient.connect()
    engine = open_engine(settings.database_url)
    relay = Relay(engine, hub)
    relay.start()
    desk = CommandDesk(engine, hub, settings.topic_root, load_section(CommandSettings))
    desk.start()
    disabled = DisabledUsers(engine)
    disabled.start()
    return GatewayDeps(
        settings=settings,
        engine=engine,
        redis=client,
        hub=hub,
        # These three find their actors at the first call: the gateway is up before the last part of the floor is.
        run_queue=RunQueueClient(),
        labels=LabelQueueClient(),
        metrics=MetricsClient(),
        auth=Authenticator(
            *parse_keys(settings.secret_path.read_bytes()),
            http_port=settings.http_port,
            consume=UsedLinks(client).consume,
            provider=_provider_keys(),
            shut_out=disabled,
        ),
        relay=relay,
        alerts=load_section(AlertSettings),
        desk=desk,
        disabled=disabled,
        external_alerts=load_section(ExternalAlertSettings),
    )


def _provider_keys() -> ProviderKeys | None:
    settings = load_section(IdentityProviderSettings)
    if not settings.jwks_url:
        return None
    keys = ProviderKeys(settings)
    keys.start()
    return keys


def build_gateway(settings: Settings) -> serve.Application:
    """Return the gateway's Serve application for a floor with resolved ``settings``."""
    gateway_settings = load_section(GatewaySettings)
    deployment: Any = serve.deployment(
        name="Gateway",
        num_replicas=gateway_settings.num_replicas,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=gateway_settings.drain_s + SHUTDOWN_MARGIN_S,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        ray_actor_options={
            "num_cpus": 0,
            # User code on the replica's own loop: a frame then costs no hop between threads.
            "runtime_env": {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}},
        },
    )
    application: serve.Application = deployment(serve.ingress()(Gateway)).bind(settings, gateway_settings)
    return application
