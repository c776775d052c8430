"""Connections on a hub in this process: frames in, frames out, limits, drain, and no trace afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from realtime.publication import Priority
from serve_apps.auth import Authenticator, Role, issue_token
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import FakeTransport, LocalHub, draft

SECRET = b"s" * 32


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


def make(hub: LocalHub, **limits: Any) -> Connections:
    auth = Authenticator(SECRET, http_port=1, consume=_first_use)
    return Connections(hub, auth, GatewaySettings(**limits))  # type: ignore[arg-type]


@pytest.fixture
async def hub() -> LocalHub:
    return LocalHub()


@pytest.fixture
async def register(hub: LocalHub) -> AsyncIterator[Connections]:
    made = make(hub)
    yield made
    await made.stop()


def token(user: str = "ann", tenant: str | None = None) -> str:
    return issue_token(SECRET, sub=user, tenant=tenant, roles=[Role.OPERATOR], ttl_s=600)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.001)


async def connected(
    register: Connections, user: str = "ann", tenant: str | None = None
) -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = register.open(transport)
    await connection.on_text(json.dumps({"id": 1, "connect": {"token": token(user, tenant)}}))
    await transport.until(lambda made: bool(made.frames) or made.close_code is not None)
    return connection, transport


async def test_a_frame_of_commands_is_answered_in_order(register: Connections) -> None:
    """Connect and subscribes come in one frame; each answer stands in its place."""
    transport = FakeTransport()
    connection = register.open(transport)
    commands = [
        {"id": 1, "connect": {"token": token()}},
        {"id": 2, "subscribe": {"channel": "run:a"}},
        {"id": 3, "subscribe": {"channel": "user:bob"}},
        {"id": 4, "history": {"channel": "run:a", "limit": 10}},
    ]

    await connection.on_text("\n".join(json.dumps(command) for command in commands))

    await transport.until(lambda made: len(made.lines) == 4)
    assert [(line["id"], next(key for key in line if key != "id")) for line in transport.lines] == [
        (1, "connect"), (2, "subscribe"), (3, "error"), (4, "history"),
    ]  # fmt: skip


async def test_refused_connect_leaves_the_rest_of_the_frame_unanswered(register: Connections) -> None:
    """The SDK counts on it."""
    transport = FakeTransport()
    connection = register.open(transport)
    expired = issue_token(SECRET, sub="ann", tenant=None, roles=[], ttl_s=1, now_s=1.0)

    await connection.on_text(
        json.dumps({"id": 1, "connect": {"token": expired}}) + '\n{"id":2,"subscribe":{"channel":"run:a"}}'
    )

    await transport.until(lambda made: bool(made.frames))
    assert [line["id"] for line in transport.lines] == [1]
    assert transport.lines[0]["error"]["code"] == 109


async def test_publications_reach_their_audience_only(register: Connections, hub: LocalHub) -> None:
    """All connections of a user, and nobody else's."""
    (_, first), (_, second), (_, other) = [await connected(register, user) for user in ("ann", "ann", "bob")]

    await hub.publish([draft("user:ann", number) for number in range(200)] + [draft("noc:all", "last")])

    for transport in (first, second, other):
        await transport.until(lambda made: bool(made.publications("noc:all")))
    for transport in (first, second):
        await transport.until(lambda made: len(made.publications("user:ann")) == 200)
        assert [item["data"] for item in transport.publications("user:ann")] == list(range(200))
    assert other.publications("user:ann") == []


async def test_a_replica_is_sent_what_its_clients_follow(register: Connections, hub: LocalHub) -> None:
    """And nothing else; who comes, goes and comes again misses nothing."""
    sent: list[str] = []
    read = hub.core.since

    def since(*arguments: Any) -> Any:
        reply = read(*arguments)
        sent.extend(publication.channel for publication in reply.publications)
        return reply

    hub.core.since = since  # type: ignore[method-assign]
    _, ann = await connected(register, "ann")
    await until(lambda: len(hub.interests) == 1)
    bob, _ = await connected(register, "bob")
    await hub.publish([draft("user:eve", 1), draft("user:bob", 1), draft("noc:all", 1)])
    await ann.until(lambda made: len(made.publications("noc:all")) == 1)
    assert {"user:bob", "noc:all"} <= set(sent)
    assert "user:eve" not in sent

    register.close(bob)
    await hub.publish([draft("noc:all", 2)])  # the poll after it tells that bob's channel is left
    await ann.until(lambda made: len(made.publications("noc:all")) == 2)
    await asyncio.sleep(0.05)
    del sent[:]
    await hub.publish([draft("user:bob", 2), draft("noc:all", 3)])
    await ann.until(lambda made: len(made.publications("noc:all")) == 3)
    assert "user:bob" not in sent

    _, again = await connected(register, "bob")
    await hub.publish([draft("user:bob", 3)])
    await again.until(lambda made: len(made.publications("user:bob")) == 1)


async def test_a_channel_with_more_followers_than_a_slice_reaches_all(
    register: Connections, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the first slice at once, the others in the turns that follow, each in order."""
    monkeypatch.setattr("serve_apps.hub_feed.FLUSH_SLICE", 2)
    transports = [(await connected(register))[1] for _ in range(5)]

    for number in range(3):
        await hub.publish([draft("noc:all", number)])

    for transport in transports:
        await transport.until(lambda made: len(made.publications("noc:all")) == 3)
        assert [item["data"] for item in transport.publications("noc:all")] == [0, 1, 2]


async def test_critical_overtakes_a_backlog(register: Connections, hub: LocalHub) -> None:
    """While a client takes nothing, the urgent channel moves to the front."""
    connection, transport = await connected(register)
    await connection.on_text('{"id":2,"subscribe":{"channel":"run:a"}}')
    await transport.until(lambda made: len(made.lines) == 2)
    transport.gate.clear()
    await hub.publish([draft("run:a", number, Priority.PROGRESS) for number in range(400)])
    await asyncio.sleep(0.05)
    await hub.publish([draft("noc:all", "fire", Priority.CRITICAL)])
    await asyncio.sleep(0.05)

    transport.gate.set()
    await transport.until(lambda made: len(made.publications("run:a")) == 400)

    pushed = [line["push"]["channel"] for line in transport.lines if "push" in line]
    assert pushed.index("noc:all") <= GatewaySettings().frame_lines  # the frame that was under way


async def test_news_that_gather_during_a_rest_share_frames(hub: LocalHub) -> None:
    """After a flush the feed rests in proportion to its cost; none is lost or turned round by it."""
    register = make(hub, flush_rest=1e9, flush_rest_max_s=0.5)
    _, transport = await connected(register)
    await hub.publish([draft("noc:all", 0)])
    await transport.until(lambda made: len(made.publications("noc:all")) == 1)
    frames = len(transport.frames)

    for number in range(1, 11):
        await hub.publish([draft("noc:all", number)])
        await asyncio.sleep(0.001)
    await transport.until(lambda made: len(made.publications("noc:all")) == 11)

    assert [item["data"] for item in transport.publications("noc:all")] == list(range(11))
    assert len(transport.frames) - frames <= 3
    await register.stop()


async def test_client_that_takes_nothing_is_closed_once(hub: LocalHub) -> None:
    """Also where the socket itself blocks the writer; and its handler's patience is set once only."""
    register = make(hub, credit_timeout_s=0.6, pong_timeout_s=0.6, ring_age_s=1.0, credit_ping_bytes=1000)
    connection, transport = await connected(register)
    closes: list[str] = []
    connection.on_closed = lambda: closes.append("closed")
    transport.gate.clear()
    await hub.publish([draft("noc:all", "x" * 500) for _ in range(20)])

    await transport.until(lambda made: made.close_code is not None)
    await asyncio.sleep(1.2)

    assert transport.close_code is CloseCode.SLOW
    assert closes == ["closed"]
    register.close(connection)
    await register.stop()


async def test_too_large_a_frame_ends_with_1009(register: Connections) -> None:
    """By its bytes, not its characters."""
    for frame in ("x" * 65_537, "é" * 40_000):
        transport = FakeTransport()
        await register.open(transport).on_text(frame)
        await transport.until(lambda made: made.close_code is not None)
        assert transport.close_code is CloseCode.MESSAGE_TOO_BIG


async def test_ended_connections_leave_nothing_behind(register: Connections, hub: LocalHub) -> None:
    """No follower, no channel, no count of the user."""
    connection, _ = await connected(register)
    await connection.on_text('{"id":2,"subscribe":{"channel":"run:a"}}')
    assert (len(register), register.num_users, register.feed.num_channels) == (1, 1, 3)

    register.close(connection)
    register.close(connection)

    assert (len(register), register.num_users, register.feed.num_channels) == (0, 0, 0)
    await hub.publish([draft("run:a", 1)])


async def test_connection_cancelled_while_the_hub_is_asked_holds_no_channel(
    register: Connections, hub: LocalHub
) -> None:
    """HAProxy mode ends a handler by cancellation at any await."""
    await connected(register, "bob")
    held = register.feed.num_channels
    never = asyncio.Event()

    async def wait(_operation: str) -> None:
        await never.wait()

    hub.before_answer = wait
    transport = FakeTransport()
    connection = register.open(transport)
    handler = asyncio.create_task(connection.on_text(json.dumps({"id": 1, "connect": {"token": token("carl")}})))
    await asyncio.sleep(0.01)
    handler.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handler
    register.close(connection)

    assert register.feed.num_channels == held


async def test_hub_away_answers_with_a_temporary_error() -> None:
    """Within the SDK's five seconds."""
    hub = LocalHub()
    hub.is_away = True
    register = make(hub, hub_timeout_s=0.2)

    _, transport = await connected(register)

    assert transport.lines[0]["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    await register.stop()


async def test_users_and_replicas_have_their_limits() -> None:
    """3504 is final for a user with too many sockets; 3013 sends others to come back."""
    register = make(LocalHub(), max_connections=2, max_connections_per_user=1)
    await connected(register, "ann")
    _, again = await connected(register, "ann")
    await again.until(lambda made: made.close_code is CloseCode.CONNECTION_LIMIT)
    _, third = await connected(register, "carl")
    await third.until(lambda made: made.close_code is CloseCode.TOO_MANY_REQUESTS)
    await register.stop()


async def test_a_tenant_has_its_limits_and_costs_no_other_a_thing() -> None:
    """One connection more is sent away to come back; one command more is answered with 111."""
    register = make(
        LocalHub(), max_connections_per_tenant=2, tenant_commands_per_s=1, tenant_command_burst=4, command_burst=100
    )
    first, _ = await connected(register, "ann", "t1")
    second, heard = await connected(register, "bob", "t1")
    _, third = await connected(register, "carl", "t1")
    await third.until(lambda made: made.close_code is CloseCode.TOO_MANY_REQUESTS)
    other, told = await connected(register, "dora", "t2")
    _, floor = await connected(register, "eve")
    assert floor.close_code is None

    for connection in (first, second, first, second, second, other):
        await connection.on_text('{"id":7,"history":{"channel":"tenant:t1"}}')

    await heard.until(lambda made: any("error" in line for line in made.lines))
    assert [line["error"]["code"] for line in heard.lines if "error" in line] == [111]
    await told.until(lambda made: len(made.lines) == 2)
    assert told.lines[1]["error"]["code"] == 103  # it had a command left, and no right
    register.close(first)
    _, again = await connected(register, "carl", "t1")
    assert again.close_code is None
    await register.stop()


async def test_drain_closes_all_with_3001_at_a_pace(register: Connections) -> None:
    """Spread over the given time, and newcomers are sent away at once."""
    transports = [(await connected(register, f"u{number}"))[1] for number in range(10)]
    begun = asyncio.get_running_loop().time()

    assert await register.drain(over_s=0.2) == 10

    assert asyncio.get_running_loop().time() - begun >= 0.19
    for transport in transports:
        await transport.until(lambda made: made.close_code is CloseCode.SHUTDOWN)
    late = FakeTransport()
    register.open(late)
    await late.until(lambda made: made.close_code is CloseCode.SHUTDOWN)


async def test_newcomer_gets_no_backlog_of_a_lagging_replica(hub: LocalHub) -> None:
    """From now on means from where the hub is, however far behind it the replica's feed may be."""
    register = make(hub)
    await connected(register, "first")
    held = asyncio.Event()

    async def wait(operation: str) -> None:
        if operation == "poll":
            await held.wait()

    hub.before_answer = wait
    await hub.publish([draft("noc:all", number) for number in range(1000)])
    await asyncio.sleep(0.01)
    _, late = await connected(register, "late")
    held.set()
    await hub.publish([draft("noc:all", "new")])

    await late.until(lambda made: bool(made.publications("noc:all")))
    await asyncio.sleep(0.05)
    assert [item["data"] for item in late.publications("noc:all")] == ["new"]
    await register.stop()


async def test_hub_that_lost_everything_sends_clients_to_start_anew(register: Connections, hub: LocalHub) -> None:
    """A server-side subscription ends the connection with 3010."""
    _, transport = await connected(register)
    await hub.publish([draft("noc:all", 1)])
    await transport.until(lambda made: bool(made.publications("noc:all")))

    hub.restart()

    await transport.until(lambda made: made.close_code is CloseCode.INSUFFICIENT_STATE)
