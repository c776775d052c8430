"""Who may do what: the one table of routes, rpc methods, channels and CLI calls.

Proves no identity (``auth.py``). Invariant: what is not in a table is refused, and a test
walks every route of the app and fails on one that is missing here or asks for another role.
"""

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, cast

from fastapi import HTTPException, Request
from starlette.requests import HTTPConnection

from cluster import names
from realtime.channels import ChannelKind, is_channel, kind_of, limited_to
from serve_apps.auth import Identity, Role
from serve_apps.deps import deps_of
from serve_apps.errors import AuthenticationError, KeysUnavailableError
from serve_apps.limits import Limits
from serve_apps.namespaces import namespace_of
from serve_apps.origins import Origins

if TYPE_CHECKING:  # it asks this module for its rules
    from serve_apps.connections import Connections


class Access(StrEnum):
    """Routes and commands that no role guards."""

    PUBLIC = "public"
    """Anyone; says nothing about the floor's data."""
    IN_PROTOCOL = "in-protocol"
    """The connect command proves the identity, after the socket was accepted."""
    DATA_FOLDER = "data-folder"
    """A command on the floor's own files: the file system decides, as whoever can read the key
    there can sign any token."""


ROUTES: Mapping[tuple[str, str], Role | Access] = {
    ("GET", "/"): Access.PUBLIC,
    ("GET", "/static/{}"): Access.PUBLIC,
    ("GET", "/signin"): Access.PUBLIC,
    ("GET", "/healthz"): Access.PUBLIC,
    # Sums only, no tenant and no device: what a Prometheus on the same host scrapes.
    ("GET", "/metrics"): Access.PUBLIC,
    ("WEBSOCKET", "/connection/websocket"): Access.IN_PROTOCOL,
    ("WEBSOCKET", "/connection/uni_websocket"): Access.IN_PROTOCOL,
    ("GET", "/connection/uni_sse"): Access.IN_PROTOCOL,
    ("GET", "/connection/uni_http_stream"): Access.IN_PROTOCOL,
    ("POST", "/connection/uni_http_stream"): Access.IN_PROTOCOL,
    ("GET", "/api/openapi.json"): Role.VIEWER,
    ("POST", "/api/publish"): Role.ENGINEER,
    ("POST", "/api/broadcast"): Role.ENGINEER,
    ("POST", "/api/history"): Role.VIEWER,
    ("POST", "/api/history_remove"): Role.ADMIN,
    ("POST", "/api/presence"): Role.VIEWER,
    ("POST", "/api/presence_stats"): Role.VIEWER,
    ("POST", "/api/channels"): Role.VIEWER,
    ("POST", "/api/info"): Role.OPERATOR,
    ("POST", "/api/disconnect"): Role.ADMIN,
    ("POST", "/api/subscribe"): Role.ADMIN,
    ("POST", "/api/unsubscribe"): Role.ADMIN,
    # Each of its commands is asked for by itself.
    ("POST", "/api/batch"): Role.VIEWER,
    ("GET", "/api/v1/config"): Role.VIEWER,
    ("GET", "/api/v1/status"): Role.VIEWER,
    ("GET", "/api/v1/alerts"): Role.VIEWER,
    ("GET", "/api/v1/alerts/sparks"): Role.VIEWER,
    ("GET", "/api/v1/alerts/{}"): Role.VIEWER,
    ("POST", "/api/v1/alerts/actions"): Role.OPERATOR,
    ("GET", "/api/v1/silences"): Role.VIEWER,
    ("GET", "/api/v1/silences/{}"): Role.VIEWER,
    ("POST", "/api/v1/silences"): Role.OPERATOR,
    ("PATCH", "/api/v1/silences/{}"): Role.OPERATOR,
    ("POST", "/api/v1/silences/{}/expire"): Role.OPERATOR,
    ("GET", "/api/v1/heartbeats"): Role.VIEWER,
    ("PUT", "/api/v1/heartbeats/{}/{}"): Role.OPERATOR,
    ("POST", "/api/v1/heartbeats/{}/{}/beat"): Role.OPERATOR,
    ("DELETE", "/api/v1/heartbeats/{}/{}"): Role.OPERATOR,
    ("GET", "/api/v1/devices"): Role.VIEWER,
    ("GET", "/api/v1/devices/{}/{}/telemetry"): Role.VIEWER,
    ("POST", "/api/v1/commands"): Role.OPERATOR,
    # What a command carries may be a secret of the device's: not for those who may only look.
    ("GET", "/api/v1/commands"): Role.OPERATOR,
    ("GET", "/api/v1/commands/{}"): Role.OPERATOR,
    ("GET", "/api/v1/directory/{}"): Role.VIEWER,
    ("GET", "/api/v1/directory/{}/{}"): Role.VIEWER,
    ("PUT", "/api/v1/directory/{}/{}"): Role.ADMIN,
    ("PATCH", "/api/v1/directory/{}/{}"): Role.ADMIN,
    ("DELETE", "/api/v1/directory/{}/{}"): Role.ADMIN,
    ("GET", "/api/v1/directory/{}/{}/{}"): Role.VIEWER,
    ("PUT", "/api/v1/directory/{}/{}/{}"): Role.ADMIN,
    ("PATCH", "/api/v1/directory/{}/{}/{}"): Role.ADMIN,
    ("DELETE", "/api/v1/directory/{}/{}/{}"): Role.ADMIN,
    ("GET", "/api/v1/runs"): Role.VIEWER,
    ("GET", "/api/v1/runs/{}"): Role.VIEWER,
    ("POST", "/api/v1/runs"): Role.ENGINEER,
    ("POST", "/api/v1/runs/{}/cancel"): Role.ENGINEER,
    ("GET", "/api/v1/lanes"): Role.VIEWER,
    ("GET", "/api/v1/circuits"): Role.VIEWER,
    ("POST", "/api/v1/circuits/{}/force"): Role.ADMIN,
    ("POST", "/api/v1/circuits/{}/reset"): Role.ADMIN,
    ("POST", "/api/v1/drain"): Role.ADMIN,
    ("GET", "/api/v1/labels"): Role.VIEWER,
    ("POST", "/api/v1/labels/lease"): Role.OPERATOR,
    ("POST", "/api/v1/labels/renew"): Role.OPERATOR,
    ("POST", "/api/v1/labels/release"): Role.OPERATOR,
    ("POST", "/api/v1/labels/answer"): Role.OPERATOR,
    ("POST", "/api/v1/labels/skip"): Role.OPERATOR,
    ("GET", "/api/v1/models"): Role.VIEWER,
    ("GET", "/api/v1/models/journal"): Role.VIEWER,
    ("GET", "/api/v1/models/{}/{}"): Role.VIEWER,
    ("GET", "/api/v1/models/of-alert/{}"): Role.VIEWER,
    ("GET", "/api/v1/models/{}/versions/{}/report"): Role.VIEWER,
    ("POST", "/api/v1/models/{}/versions/{}/report"): Role.ENGINEER,
    ("POST", "/api/v1/models/promote"): Role.ENGINEER,
    ("POST", "/api/v1/models/rollback"): Role.ENGINEER,
    ("GET", "/api/v1/datasets"): Role.VIEWER,
    ("GET", "/api/v1/datasets/{}"): Role.VIEWER,
    ("GET", "/api/v1/dead-letters"): Role.OPERATOR,
    ("GET", "/api/v1/notifications/dead"): Role.OPERATOR,
    ("POST", "/api/v1/notifications/replay"): Role.ADMIN,
    # What a Prometheus calls that takes us for an Alertmanager.
    ("POST", "/api/v2/alerts"): Role.OPERATOR,
    ("GET", "/api/v1/dead-letters/{}"): Role.OPERATOR,
    ("POST", "/api/v1/dead-letters/replay"): Role.OPERATOR,
}
"""(method, path with ``{}`` for each parameter) -> least role."""

RPC: Mapping[str, Role] = {
    "channels": Role.VIEWER,
    "config": Role.VIEWER,
    "hold_labels": Role.OPERATOR,
    "status": Role.VIEWER,
}
"""Methods of the protocol's ``rpc`` command (see ``rpc.py``)."""

CLI: Mapping[str, Role | Access] = {
    "up": Access.DATA_FOLDER,
    "down": Access.DATA_FOLDER,
    "doctor": Access.DATA_FOLDER,
    "simulate": Access.DATA_FOLDER,
    "token": Access.DATA_FOLDER,
    "env": Access.DATA_FOLDER,
    "acl": Access.DATA_FOLDER,
    "export": Access.DATA_FOLDER,
    "rules check": Access.DATA_FOLDER,
    "rules try": Access.DATA_FOLDER,
    "directory import": Access.DATA_FOLDER,
    "directory export": Access.DATA_FOLDER,
    "directory list": Access.DATA_FOLDER,
    "directory show": Access.DATA_FOLDER,
    # Over HTTP, by the route of the same name.
    "status": Role.VIEWER,
    "lanes": Role.VIEWER,
    "circuits": Role.VIEWER,
    "circuits force": Role.ADMIN,
    "circuits reset": Role.ADMIN,
    "drain": Role.ADMIN,
    "command": Role.OPERATOR,
    "notifications dead": Role.OPERATOR,
    "notifications replay": Role.ADMIN,
    "dead-letters list": Role.OPERATOR,
    "dead-letters show": Role.OPERATOR,
    "dead-letters replay": Role.OPERATOR,
}
"""Commands of ``watchfloor``."""


NO_RUNS: Mapping[str, str | None] = {}
"""Run id -> tenant, where nobody has looked: no tenant's user sees a run."""


def server_channels(identity: Identity) -> tuple[str, ...]:
    """Return the channels a connection of ``identity`` is subscribed to without asking.

    What an identity provider names need not be able to name a channel (``auth0|7``): such a
    user or group has none.
    """
    channels = [f"user:{identity.user_id}"]
    if identity.tenant is not None:
        channels.append(f"tenant:{identity.tenant}")
    channels += [f"group:{group}" for group in identity.groups]
    # noc:all carries the alerts of every tenant, so a tenant's own operators do not get it.
    if identity.is_floor_wide:
        channels.append(names.CHANNEL_NOC)
    if identity.has(Role.OPERATOR):
        channels += [f"noc:client-{client}" for client in identity.clients]
    return tuple(channel for channel in dict.fromkeys(channels) if is_channel(channel) and _is_among(identity, channel))


def may_subscribe(identity: Identity, channel: str, runs: Mapping[str, str | None] = NO_RUNS) -> bool:
    """Tell whether ``identity`` may ask for ``channel``; a valid name is assumed.

    Args:
        identity: who asks.
        channel: what for.
        runs: tenants of runs, by id; a run that is missing here belongs to no tenant's user.
    """
    limit = limited_to(channel)
    if limit is not None:
        return identity.user_id in limit and identity.has(Role.VIEWER)
    if kind_of(channel) in {ChannelKind.RUN, ChannelKind.DEVICE}:
        return identity.has(Role.VIEWER) and (identity.is_floor_wide or _is_of_tenant(identity, channel, runs))
    return channel in server_channels(identity)


def may_subscribe_by_token(identity: Identity, channel: str, runs: Mapping[str, str | None] = NO_RUNS) -> bool:
    """Tell whether a channel token can let ``identity`` listen to ``channel``.

    A token stands for a role or a membership that is missing. It never leads out of the
    user's tenant, nor past the users that a channel's name is limited to.
    """
    if namespace_of(channel).is_internal:
        return False
    limit = limited_to(channel)
    if limit is not None:
        return identity.user_id in limit
    if identity.tenant is None or channel == f"user:{identity.user_id}":
        return True
    kind = kind_of(channel)
    if kind in {ChannelKind.RUN, ChannelKind.DEVICE, ChannelKind.TENANT}:
        return _is_of_tenant(identity, channel, runs)
    # Of a group or a customer the issuer knows who belongs to it; noc:all is all tenants', and
    # whose user another user is nobody here can tell.
    return kind is ChannelKind.GROUP or (kind is ChannelKind.NOC and channel != names.CHANNEL_NOC)


def may_read_history(identity: Identity, channel: str, runs: Mapping[str, str | None] = NO_RUNS) -> bool:
    """Tell whether ``identity`` may read what was published on ``channel`` over the HTTP API, and who is there."""
    if namespace_of(channel).is_internal:
        return False
    if may_subscribe(identity, channel, runs):
        return True
    return identity.is_floor_wide and identity.has(Role.ENGINEER) and limited_to(channel) is None


def may_meet(identity: Identity, channel: str) -> bool:
    """Tell whether ``identity`` may see who else listens to ``channel``, and write to them from its connection.

    A group's and a customer's channel may have listeners of several tenants: there a tenant's
    user hears what is published and no more.
    """
    return identity.tenant is None or kind_of(channel) not in {ChannelKind.GROUP, ChannelKind.NOC}


def may_publish(identity: Identity, channel: str) -> bool:
    """Tell whether ``identity`` may publish to ``channel`` over the HTTP API; any text may be asked about."""
    if not identity.has(Role.ENGINEER):
        return False
    kind, _, rest = channel.partition(":")
    if kind == ChannelKind.GATEWAY:
        return False
    if identity.is_floor_wide:
        return True
    return (kind == "tenant" and rest == identity.tenant) or (
        kind == "device" and rest.partition("/")[0] == identity.tenant
    )


def _is_of_tenant(identity: Identity, channel: str, runs: Mapping[str, str | None]) -> bool:
    kind, _, rest = channel.partition(":")
    owner = runs.get(rest) if kind == "run" else rest.partition("/")[0]
    return identity.tenant is not None and identity.tenant == owner


def _is_among(identity: Identity, channel: str) -> bool:
    limit = limited_to(channel)
    return limit is None or identity.user_id in limit


class Requirement:
    """FastAPI dependency: the caller's identity, refused below a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Identity:
        identity = identify(request)
        if identity is None:
            raise HTTPException(401, "sign in, or send a token", headers={"WWW-Authenticate": "Bearer"})
        wait_s = _limits_of(request).take_call(identity, time.monotonic())
        if wait_s:
            raise HTTPException(429, "too many calls of this user", headers={"Retry-After": str(wait_s)})
        if not identity.has(self.role):
            raise HTTPException(403, f"needs the role {self.role} or above")
        return identity


def require(role: Role) -> Requirement:
    """Return the dependency that lets ``role`` and above pass and gives the route its Identity."""
    return Requirement(role)


def identify(request: Request) -> Identity | None:
    """Return who sent an HTTP request; None when it carries no proof at all.

    Raises:
        HTTPException: 401 for a proof that is not valid, 403 for a cookie from a foreign page.
    """
    auth = deps_of(request).auth
    token = _token(request.headers)
    cookie = request.cookies.get(auth.cookie_name)
    try:
        if token is not None:
            return auth.from_token(token)
        if cookie is None:
            return None
        # A browser adds the cookie to requests that a foreign page makes.
        if not is_trusted_origin(request):
            raise HTTPException(403, "the request comes from another origin")
        return auth.from_cookie(cookie)
    except KeysUnavailableError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "2"}) from error
    except AuthenticationError as error:
        raise HTTPException(401, str(error), headers={"WWW-Authenticate": "Bearer"}) from error


def is_trusted_origin(connection: HTTPConnection) -> bool:
    """Tell whether no page made this request, or our own, or one of a listed origin."""
    return cast(Origins, connection.app.state.origins).trusts(connection.headers)


def _limits_of(request: Request) -> Limits:
    return cast("Connections", request.app.state.connections).limits


def _token(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "apikey"} and value:
        return value.strip()
    return headers.get("x-api-key")
