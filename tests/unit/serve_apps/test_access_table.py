"""The table and the floor agree: each route, rpc method, channel kind and command, asked by each role."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from realtime.channels import ChannelKind
from serve_apps import cli, rpc
from serve_apps.auth import Identity, Role, issue_token
from serve_apps.authorisation import (
    CLI,
    ROUTES,
    RPC,
    Access,
    may_publish,
    may_read_history,
    may_subscribe,
    may_subscribe_by_token,
)
from tests.fakes_api import SECRET, ApiFloor
from tests.fakes_gateway import FakeTransport

GUARDED = {route: role for route, role in ROUTES.items() if isinstance(role, Role)}
ROLES = (None, *Role)
ASKS_FOR_A_TENANT = {403, 401}
TENANT = "t1"


@pytest.mark.parametrize("route", sorted(GUARDED), ids=lambda route: " ".join(route))
async def test_each_route_answers_each_role_as_the_table_says(api: ApiFloor, route: tuple[str, str]) -> None:
    """401 without proof, 403 below the role, and neither from there on."""
    method, path = route
    needed = GUARDED[route]
    for role in ROLES:
        async with api.caller(*([role.value] if role else []), tenant=TENANT) as caller:
            body = {"json": {}} if method in {"POST", "PUT", "PATCH"} else {}
            answer = await caller.request(method, path.replace("{}", "x"), **body)
        if role is None:
            assert answer.status_code == 401, answer.text
        elif role.rank < needed.rank:
            assert answer.status_code == 403, f"{role}: {answer.text}"
        else:
            assert answer.status_code not in ASKS_FOR_A_TENANT, f"{role}: {answer.text}"


# What /metrics answers comes from an actor; that nobody guards it is tested with the table.
OPEN = set(ROUTES) - set(GUARDED) - {("GET", "/metrics")}


@pytest.mark.parametrize("route", sorted(OPEN), ids=lambda route: " ".join(route))
async def test_open_routes_are_open_and_the_protocol_asks_by_itself(api: ApiFloor, route: tuple[str, str]) -> None:
    """Nobody is asked for a role; a stream without a token ends with 401."""
    method, path = route
    if method == "WEBSOCKET":
        transport = FakeTransport()
        connection = api.app.state.connections.open(transport)
        await connection.on_text('{"id":1,"connect":{}}')
        await transport.until(lambda made: made.close_code is not None)
        assert int(transport.close_code or 0) == 3501
        api.app.state.connections.close(connection)
        await api.app.state.connections.stop()
        return
    async with api.caller() as caller:
        answer = await caller.request(method, path.replace("{}", "app.css"))
    if ROUTES[route] is Access.IN_PROTOCOL:
        assert answer.status_code == 401
        await api.app.state.connections.stop()
    elif path == "/signin":
        assert answer.status_code == 401  # no key: its own page says so
        assert "incomplete" in answer.text
    else:
        assert answer.status_code == 200


async def test_each_method_of_rpc_answers_each_role_as_the_table_says(api: ApiFloor) -> None:
    """103 below the role, 104 for what is in no table."""
    assert set(rpc.methods(api.app)) == set(RPC)
    for role in ROLES:
        transport = FakeTransport()
        connection = api.app.state.connections.open(transport)
        token = issue_token(SECRET, sub="ann", tenant=TENANT, roles=[role] if role else [], ttl_s=60)
        calls = [{"id": number, "rpc": {"method": name}} for number, name in enumerate([*RPC, "no_such"], start=2)]
        lines = [{"id": 1, "connect": {"token": token}}, *calls]
        await connection.on_text("\n".join(json.dumps(line) for line in lines))
        await transport.until(lambda made: len(made.lines) == 2 + len(RPC))
        codes = [line.get("error", {}).get("code") for line in transport.lines[1:]]
        allowed = [role is not None and role.rank >= needed.rank for needed in RPC.values()]
        assert codes == [*(None if one else 103 for one in allowed), 104]
        api.app.state.connections.close(connection)
    await api.app.state.connections.stop()


RUNS = {"own": TENANT, "other": "t2", "floor": None}


def who(tenant: str | None, role: Role | None) -> Identity:
    return Identity(
        user_id="ann",
        tenant=tenant,
        roles=frozenset({role} if role else ()),
        groups=("g",),
        clients=("7",),
        expires_at=0,
    )


VIEWER, OPERATOR, ENGINEER = Role.VIEWER, Role.OPERATOR, Role.ENGINEER
NEVER = None
# Channel -> (role with which a tenant's user, a floor-wide user may listen; read the history over
# HTTP; publish over HTTP); True: whatever the role, None: never.
CHANNELS: dict[str, tuple[tuple[Any, Any], tuple[Any, Any], tuple[Any, Any]]] = {
    "noc:all": ((NEVER, OPERATOR), (NEVER, OPERATOR), (NEVER, ENGINEER)),
    "noc:client-7": ((OPERATOR, OPERATOR), (OPERATOR, OPERATOR), (NEVER, ENGINEER)),
    "noc:client-8": ((NEVER, NEVER), (NEVER, ENGINEER), (NEVER, ENGINEER)),
    "user:ann": ((True, True), (True, True), (NEVER, ENGINEER)),
    "user:bob": ((NEVER, NEVER), (NEVER, ENGINEER), (NEVER, ENGINEER)),
    "tenant:t1": ((True, NEVER), (True, ENGINEER), (ENGINEER, ENGINEER)),
    "tenant:t2": ((NEVER, NEVER), (NEVER, ENGINEER), (NEVER, ENGINEER)),
    "group:g": ((True, True), (True, True), (NEVER, ENGINEER)),
    "group:h": ((NEVER, NEVER), (NEVER, ENGINEER), (NEVER, ENGINEER)),
    "group:h#ann": ((VIEWER, VIEWER), (VIEWER, VIEWER), (NEVER, ENGINEER)),
    "group:g#bob": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, ENGINEER)),
    "run:own": ((VIEWER, OPERATOR), (VIEWER, OPERATOR), (NEVER, ENGINEER)),
    "run:other": ((NEVER, OPERATOR), (NEVER, OPERATOR), (NEVER, ENGINEER)),
    "run:floor": ((NEVER, OPERATOR), (NEVER, OPERATOR), (NEVER, ENGINEER)),
    "run:unknown": ((NEVER, OPERATOR), (NEVER, OPERATOR), (NEVER, ENGINEER)),
    "device:t1/d": ((VIEWER, OPERATOR), (VIEWER, OPERATOR), (ENGINEER, ENGINEER)),
    "device:t2/d": ((NEVER, OPERATOR), (NEVER, OPERATOR), (NEVER, ENGINEER)),
    "gateway:all": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, NEVER)),
}


def test_no_kind_of_channel_was_forgotten() -> None:
    """A new kind is decided on here."""
    assert {channel.partition(":")[0] for channel in CHANNELS} == {kind.value for kind in ChannelKind}


ASKED: tuple[Callable[[Identity, str], bool], ...] = (
    lambda identity, channel: may_subscribe(identity, channel, RUNS),
    lambda identity, channel: may_read_history(identity, channel, RUNS),
    may_publish,
)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("tenant", [TENANT, None])
@pytest.mark.parametrize("role", ROLES)
def test_each_channel_answers_each_role(channel: str, tenant: str | None, role: Role | None) -> None:
    """Listening, reading and publishing."""
    for may, needed in zip(ASKED, CHANNELS[channel], strict=True):
        least = needed[0 if tenant is not None else 1]
        expected = least is True or (least is not None and role is not None and role.rank >= least.rank)
        assert may(who(tenant, role), channel) is expected


def test_no_token_opens_the_gateways_own_channel() -> None:
    """It would tell what the replicas tell each other."""
    for tenant in (TENANT, None):
        assert not may_subscribe_by_token(who(tenant, Role.ADMIN), "gateway:all")


def test_every_command_is_in_the_table() -> None:
    """What a command asks over HTTP is the route of its name, with the same role."""
    callbacks = [command.callback for command in cli.app.registered_commands]
    names = {callback.__name__ for callback in callbacks if callback is not None}
    for group in cli.app.registered_groups:
        assert group.typer_instance is not None
        instance = group.typer_instance
        if instance.registered_callback is not None and instance.registered_callback.invoke_without_command is True:
            names.add(f"{group.name}")
        names |= {f"{group.name} {command.name}" for command in instance.registered_commands}
    assert names == set(CLI)
    for name, role in CLI.items():
        if isinstance(role, Role):
            group_name, _, rest = name.partition(" ")
            ways = {name, f"{name}s", name.replace(" ", "/"), name.replace(" ", "/{}/")}
            ways |= {group_name} if rest == "list" else {f"{group_name}/{{}}"} if rest == "show" else set()
            asked = {ROUTES.get((method, f"/api/v1/{way}")) for method in ("GET", "POST") for way in ways}
            assert asked == {None, role}


def test_the_walk_is_not_empty() -> None:
    """A table that lost its lines would pass everything above."""
    assert len(GUARDED) >= 20
