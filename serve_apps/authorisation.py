"""Who may do what: the one table of routes, rpc methods, channels and CLI calls.

Proves no identity (``auth.py``). Invariant: what is not in a table is refused, and a test
walks every route of the app and fails on one that is missing here or asks for another role.
"""

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.requests import HTTPConnection

from cluster import names
from realtime.channels import ChannelKind
from serve_apps.auth import Identity, Role
from serve_apps.deps import deps_of
from serve_apps.errors import AuthenticationError, KeysUnavailableError
from serve_apps.namespaces import namespace_of


class Access(StrEnum):
    """Routes that no role guards."""

    PUBLIC = "public"
    """Anyone; says nothing about the floor's data."""
    IN_PROTOCOL = "in-protocol"
    """The connect command proves the identity, after the socket was accepted."""


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
    ("GET", "/api/v1/devices"): Role.VIEWER,
    ("GET", "/api/v1/devices/{}/{}/telemetry"): Role.VIEWER,
    ("POST", "/api/v1/commands"): Role.OPERATOR,
    ("GET", "/api/v1/runs"): Role.VIEWER,
    ("GET", "/api/v1/runs/{}"): Role.VIEWER,
    ("POST", "/api/v1/runs"): Role.ENGINEER,
    ("POST", "/api/v1/runs/{}/cancel"): Role.ENGINEER,
    ("GET", "/api/v1/lanes"): Role.VIEWER,
    ("GET", "/api/v1/models"): Role.VIEWER,
    ("GET", "/api/v1/dead-letters"): Role.OPERATOR,
}
"""(method, path with ``{}`` for each parameter) -> least role."""

RPC: Mapping[str, Role] = {"channels": Role.VIEWER, "config": Role.VIEWER, "status": Role.VIEWER}
"""Methods of the protocol's ``rpc`` command (see ``rpc.py``)."""

CLI: Mapping[str, Role] = {"status": Role.VIEWER, "lanes": Role.VIEWER}
"""Commands that ask a running floor over HTTP. The others work on the data folder, so the file
system decides: whoever can read the secret there is the floor's administrator."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def server_channels(identity: Identity) -> tuple[str, ...]:
    """Return the channels a connection of ``identity`` is subscribed to without asking."""
    channels = [f"user:{identity.user_id}"]
    if identity.tenant is not None:
        channels.append(f"tenant:{identity.tenant}")
    channels += [f"group:{group}" for group in identity.groups]
    # noc:all carries the alerts of every tenant, so a tenant's own operators do not get it.
    if identity.is_floor_wide:
        channels.append(names.CHANNEL_NOC)
    if identity.has(Role.OPERATOR):
        channels += [f"noc:client-{client}" for client in identity.clients]
    return tuple(dict.fromkeys(channels))


def may_subscribe(identity: Identity, channel: str) -> bool:
    """Tell whether ``identity`` may ask for ``channel``; a valid name is assumed."""
    kind, _, rest = channel.partition(":")
    if kind == "run":
        return identity.has(Role.VIEWER)
    if kind == "device":
        tenant = rest.partition("/")[0]
        return identity.has(Role.VIEWER) and (identity.is_floor_wide or identity.tenant == tenant)
    return channel in server_channels(identity)


def may_read_history(identity: Identity, channel: str) -> bool:
    """Tell whether ``identity`` may read what was published on ``channel`` over the HTTP API, and who is there."""
    if namespace_of(channel).is_internal:
        return False
    return may_subscribe(identity, channel) or (identity.is_floor_wide and identity.has(Role.ENGINEER))


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


class Requirement:
    """FastAPI dependency: the caller's identity, refused below a role."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Identity:
        identity = identify(request)
        if identity is None:
            raise HTTPException(401, "sign in, or send a token", headers={"WWW-Authenticate": "Bearer"})
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
        # A browser adds the cookie to requests that a foreign page makes; only its own page may change things.
        if request.method not in SAFE_METHODS and not is_own_origin(request):
            raise HTTPException(403, "the request comes from another origin")
        return auth.from_cookie(cookie)
    except KeysUnavailableError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "2"}) from error
    except AuthenticationError as error:
        raise HTTPException(401, str(error), headers={"WWW-Authenticate": "Bearer"}) from error


def is_own_origin(connection: HTTPConnection) -> bool:
    """Tell whether the browser says that our own page made this request.

    A caller that sends neither Origin nor Sec-Fetch-Site is no browser, so nobody can have
    lent it a cookie against its user's will.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        return connection.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
    return bool(origin) and urlsplit(origin).netloc == connection.headers.get("host")


def _token(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "apikey"} and value:
        return value.strip()
    return headers.get("x-api-key")
