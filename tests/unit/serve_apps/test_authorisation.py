"""The one table: no route outside it, no tenant across it."""

import re
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Mount

from cluster.settings import Settings
from serve_apps.app import create_app
from serve_apps.auth import Authenticator, Identity, Role, TokenKind, issue_token
from serve_apps.authorisation import (
    ROUTES,
    Access,
    Requirement,
    may_publish,
    may_read_history,
    may_subscribe,
    server_channels,
)
from serve_apps.deps import GatewayDeps
from tests.fakes_gateway import LocalHub

SECRET = b"s" * 32
HOST = "http://floor:8000"


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


def app() -> FastAPI:
    deps = SimpleNamespace(
        settings=Settings(http_port=8000),
        hub=LocalHub(),
        engine=None,
        auth=Authenticator(SECRET, http_port=8000, consume=_first_use),
    )
    return create_app(cast(GatewayDeps, deps))


def walk(routes: list[BaseRoute]) -> list[tuple[str, str, Dependant | None]]:
    found: list[tuple[str, str, Dependant | None]] = []
    for route in routes:
        if isinstance(route, APIWebSocketRoute):
            found.append(("WEBSOCKET", _template(route.path), None))
        elif isinstance(route, APIRoute):
            found += [(method, _template(route.path), route.dependant) for method in sorted(route.methods)]
        elif isinstance(route, Mount):
            found.append(("GET", f"{route.path}/{{}}", None))
        else:
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            assert inner, f"unknown kind of route: {route!r}"
            found += walk(list(inner))
    return found


def _template(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path)


def _required(dependant: Dependant) -> set[Role]:
    roles = {dependant.call.role} if isinstance(dependant.call, Requirement) else set()
    return roles.union(*(_required(inner) for inner in dependant.dependencies))


def test_every_route_is_in_the_table_and_asks_for_its_role() -> None:
    """A route that nobody thought about is a hole."""
    routes = walk(app().routes)
    assert len(routes) >= 8
    for method, path, dependant in routes:
        assert (method, path) in ROUTES, f"{method} {path} is in no table"
        expected = ROUTES[method, path]
        if isinstance(expected, Role):
            assert dependant is not None
            assert _required(dependant) == {expected}, f"{method} {path}"
        elif dependant is not None:
            assert _required(dependant) == set(), f"{method} {path}"


def test_table_names_no_route_that_is_gone() -> None:
    """A stale line would say something untrue about the floor."""
    assert {(method, path) for method, path, _ in walk(app().routes)} == set(ROUTES)


def identity(tenant: str | None, *roles: Role, **more: Any) -> Identity:
    return Identity(user_id="ann", tenant=tenant, roles=frozenset(roles), expires_at=0, **more)


@pytest.mark.parametrize(
    ("who", "channels"),
    [
        pytest.param(identity(None, Role.VIEWER), ("user:ann",), id="viewer"),
        pytest.param(identity(None, Role.OPERATOR), ("user:ann", "noc:all"), id="operator"),
        pytest.param(identity("t1", Role.ADMIN), ("user:ann", "tenant:t1"), id="tenant-admin-gets-no-noc"),
        pytest.param(
            identity("t1", Role.OPERATOR, groups=("g", "g"), clients=("7",)),
            ("user:ann", "tenant:t1", "group:g", "noc:client-7"),
            id="groups-and-clients",
        ),
    ],
)
def test_server_side_channels_follow_from_the_identity(who: Identity, channels: tuple[str, ...]) -> None:
    """User, tenant, groups, and the NOC for floor-wide operators."""
    assert server_channels(who) == channels


LEVEL = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)


@given(own=LEVEL, other=LEVEL, device=LEVEL, role=st.sampled_from(list(Role)))
def test_no_tenant_reaches_another(own: str, other: str, device: str, role: Role) -> None:
    """Neither by subscribing nor by publishing, whatever the role."""
    who = identity(own, role)
    assert may_subscribe(who, f"device:{own}/{device}")
    if own != other:
        for channel in (f"device:{other}/{device}", f"tenant:{other}", "noc:all", f"user:{other}-x", f"group:{other}"):
            assert not may_subscribe(who, channel)
            assert not may_publish(who, channel)


def test_what_cannot_name_a_channel_gives_none() -> None:
    """An identity provider's ids and groups are its own; and a group's name opens no limited channel."""
    who = Identity(
        user_id="auth0|7", tenant="t1", roles=frozenset({Role.VIEWER}), groups=("NOC team", "ops#bob"), expires_at=0
    )
    assert server_channels(who) == ("tenant:t1",)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("tenant", [None, "t1"])
def test_a_limited_channel_is_for_the_named_users_alone(role: Role, tenant: str | None) -> None:
    """Not for an admin, not for whoever is in the group, not over the history."""
    channel = "group:ops#bob,carl"
    stranger = identity(tenant, role, groups=("ops", "ops#bob,carl"))
    named = Identity(user_id="bob", tenant=tenant, roles=frozenset({role}), expires_at=0)
    assert not may_subscribe(stranger, channel)
    assert not may_read_history(stranger, channel)
    assert channel not in server_channels(stranger)
    assert may_subscribe(named, channel)
    assert may_read_history(named, channel)


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        pytest.param(identity("t1", Role.VIEWER), {"mine"}, id="tenant-viewer"),
        pytest.param(identity("t1", Role.ADMIN), {"mine"}, id="tenant-admin"),
        pytest.param(identity("t1"), set(), id="no-role"),
        pytest.param(identity(None, Role.OPERATOR), {"mine", "others", "floors", "unknown"}, id="floor-wide"),
        pytest.param(identity(None, Role.VIEWER), set(), id="viewer-of-no-tenant"),
    ],
)
def test_a_run_is_its_tenants(who: Identity, seen: set[str]) -> None:
    """As over the HTTP API; a run that nobody has looked up is no tenant's."""
    runs = {"mine": "t1", "others": "t2", "floors": None}
    assert {run for run in (*runs, "unknown") if may_subscribe(who, f"run:{run}", runs)} == seen
    assert {run for run in (*runs, "unknown") if may_read_history(who, f"run:{run}", runs)} == seen


@pytest.mark.parametrize(
    ("who", "channel", "allowed"),
    [
        pytest.param(identity(None, Role.ENGINEER), "noc:all", True, id="floor-wide-engineer"),
        pytest.param(identity(None, Role.OPERATOR), "noc:all", False, id="operators-do-not-publish"),
        pytest.param(identity("t1", Role.ADMIN), "noc:all", False, id="tenant-admin"),
        pytest.param(identity("t1", Role.ENGINEER), "tenant:t1", True, id="own-tenant"),
        pytest.param(identity("t1", Role.ENGINEER), "device:t1/d", True, id="own-device"),
        pytest.param(identity("t1", Role.ENGINEER), "user:bob", False, id="a-user-of-unknown-tenant"),
    ],
)
def test_who_may_publish(who: Identity, channel: str, allowed: bool) -> None:
    """Engineers; those of a tenant to that tenant only."""
    assert may_publish(who, channel) is allowed


async def call(
    method: str, path: str, headers: dict[str, str], cookies: dict[str, str] | None = None
) -> httpx.Response:
    transport = httpx.ASGITransport(app=app())
    async with httpx.AsyncClient(transport=transport, base_url=HOST, cookies=cookies) as client:
        return await client.request(method, path, headers=headers, json={"channel": "noc:all", "data": 1})


def token(role: str, kind: TokenKind = TokenKind.ACCESS) -> str:
    return issue_token(SECRET, sub="ann", tenant=None, roles=[role], ttl_s=3600, kind=kind)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="nobody"),
        pytest.param({"Authorization": "Bearer forged"}, 401, id="forged"),
        pytest.param({"Authorization": f"Bearer {token('operator')}"}, 403, id="role-too-low"),
        pytest.param({"Authorization": f"Bearer {token('engineer')}"}, 200, id="bearer"),
        pytest.param({"X-API-Key": token("admin")}, 200, id="api-key"),
        pytest.param({"Authorization": f"apikey {token('engineer')}"}, 200, id="apikey-scheme"),
        pytest.param({"X-API-Key": token("admin", TokenKind.SESSION)}, 401, id="cookie-as-key"),
    ],
)
async def test_http_identity(headers: dict[str, str], status: int) -> None:
    """401 for no proof, 403 for too little right."""
    response = await call("POST", "/api/publish", headers)

    assert response.status_code == status
    if status != 200:
        assert set(response.json()["error"]) == {"code", "message"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": HOST}, 200, id="own-page"),
        pytest.param({}, 200, id="no-browser"),
        pytest.param({"Origin": "http://evil.example"}, 403, id="foreign-page"),
        pytest.param({"Origin": "null"}, 403, id="sandboxed-page"),
        pytest.param({"Origin": "http://floor:8001"}, 403, id="other-port"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="cross-site-without-origin"),
    ],
)
async def test_cookie_changes_things_only_from_our_own_page(headers: dict[str, str], status: int) -> None:
    """A foreign page cannot use the browser's session."""
    cookies = {"watchfloor_session_8000": token("admin", TokenKind.SESSION)}

    assert (await call("POST", "/api/publish", headers, cookies)).status_code == status


async def test_cookie_of_another_floor_is_not_ours() -> None:
    """Two floors on one host have two cookies."""
    cookies = {"watchfloor_session_8001": token("admin", TokenKind.SESSION)}

    assert (await call("POST", "/api/publish", {"Origin": HOST}, cookies)).status_code == 401


async def test_pages_carry_security_headers_and_large_bodies_are_refused() -> None:
    """On every answer, errors included."""
    for path in ("/", "/static/app.css", "/healthz", "/nowhere"):
        response = await call("GET", path, {})
        assert "default-src 'none'" in response.headers["Content-Security-Policy"], path
        assert response.headers["X-Frame-Options"] == "DENY"
    transport = httpx.ASGITransport(app=app())
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        key = {"X-API-Key": token("admin")}
        response = await client.post("/api/publish", headers=key, content=b"x" * (2 << 20))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


def test_public_routes_are_few() -> None:
    """Changed knowingly: what answers to anybody."""
    public = {path for (_, path), access in ROUTES.items() if access is Access.PUBLIC}
    assert public == {"/", "/static/{}", "/signin", "/healthz", "/metrics"}
