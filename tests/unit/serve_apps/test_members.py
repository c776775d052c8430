"""Presence, joins and leaves, and what services do to connections, over replicas that share a hub in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from realtime import notices
from realtime.channels import GATEWAY_ALL
from realtime.publication import Draft
from serve_apps.auth import Authenticator, Role, issue_token
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import FakeTransport, LocalHub, draft

SECRET = b"s" * 32
CREW = "group:crew"


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


class Replicas:
    """Two gateway replicas on one hub."""

    def __init__(self, hub: LocalHub, **limits: Any) -> None:
        self.hub = hub
        auth = Authenticator(SECRET, http_port=1, consume=_first_use)
        settings = GatewaySettings(**({"presence_renew_s": 0.2} | limits))
        self.both = [Connections(hub, auth, settings) for _ in range(2)]  # type: ignore[arg-type]

    async def connect(
        self, place: int, user: str, *, tenant: str | None = None, **options: Any
    ) -> tuple[Connection, FakeTransport]:
        transport = FakeTransport()
        connection = self.both[place].open(transport, **options)
        token = issue_token(SECRET, sub=user, tenant=tenant, roles=[Role.OPERATOR], groups=["crew"], ttl_s=600)
        await connection.on_text(json.dumps({"id": 1, "connect": {"token": token}}))
        await transport.until(lambda made: bool(made.frames))
        return connection, transport

    async def tell(self, notice: notices.Command) -> None:
        await self.hub.publish([Draft(GATEWAY_ALL, notices.write(notice))])


@pytest.fixture
async def hub() -> LocalHub:
    return LocalHub()


@pytest.fixture
async def replicas(hub: LocalHub) -> AsyncIterator[Replicas]:
    made = Replicas(hub)
    yield made
    for register in made.both:
        await register.stop()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.005)


def pushed(transport: FakeTransport, event: str) -> list[tuple[str, str]]:
    """(channel, user) of the joins or leaves that a client was told."""
    pushes = [line["push"] for line in transport.lines if "push" in line]
    return [(push["channel"], push[event]["info"]["user"]) for push in pushes if event in push]


async def ask(connection: Connection, transport: FakeTransport, command: dict[str, Any]) -> dict[str, Any]:
    await connection.on_text(json.dumps(command))
    await transport.until(lambda made: any(line.get("id") == command["id"] for line in made.lines))
    (answer,) = [line for line in transport.lines if line.get("id") == command["id"]]
    return dict(answer)


async def test_members_of_all_replicas_are_seen(replicas: Replicas, hub: LocalHub) -> None:
    """By their connection and user; who leaves is gone, on whichever replica."""
    ann, transport = await replicas.connect(0, "ann")
    bob, _ = await replicas.connect(1, "bob")
    await eventually(lambda: hub.members.members(CREW, 10).num_clients == 2)

    found = (await ask(ann, transport, {"id": 7, "presence": {"channel": CREW}}))["presence"]["presence"]
    assert found == {
        connection.session.client_id: {"user": user, "client": connection.session.client_id}
        for connection, user in ((ann, "ann"), (bob, "bob"))
    }

    replicas.both[1].close(bob)
    await eventually(lambda: hub.members.members(CREW, 10).num_clients == 1)
    stats = await ask(ann, transport, {"id": 8, "presence_stats": {"channel": CREW}})
    assert stats["presence_stats"] == {"num_clients": 1, "num_users": 1}


async def test_joins_and_leaves_reach_the_other_replica(replicas: Replicas) -> None:
    """Once each, also the own join; and nothing of a channel that does not tell."""
    _, first = await replicas.connect(0, "ann")
    second, _ = await replicas.connect(1, "bob")
    await first.until(lambda made: (CREW, "bob") in pushed(made, "join"))
    replicas.both[1].close(second)
    await first.until(lambda made: (CREW, "bob") in pushed(made, "leave"))

    assert pushed(first, "join").count((CREW, "bob")) == 1
    assert {channel for channel, _ in pushed(first, "join") + pushed(first, "leave")} == {CREW}


async def test_a_client_side_subscription_hears_members_when_it_asks(replicas: Replicas) -> None:
    """Else it is spared them."""
    for asked in (True, False):
        connection, transport = await replicas.connect(0, f"listener-{asked}")
        await ask(connection, transport, {"id": 2, "subscribe": {"channel": "run:a", "join_leave": asked}})
        other, _ = await replicas.connect(0, "other")
        await other.on_text('{"id":2,"subscribe":{"channel":"run:a"}}')
        last, _ = await replicas.connect(0, f"last-{asked}")
        await transport.until(lambda made, last=f"last-{asked}": (CREW, last) in pushed(made, "join"))  # type: ignore[misc]
        assert (("run:a", "other") in pushed(transport, "join")) is asked
        for one in (connection, other, last):
            replicas.both[0].close(one)


async def test_a_hub_that_forgot_is_told_everything_again(replicas: Replicas, hub: LocalHub) -> None:
    """Within one renewal, and without a join that is none."""
    connection, _ = await replicas.connect(0, "ann")
    await eventually(lambda: hub.members.members("user:ann", 10).num_clients == 1)

    hub.members = type(hub.members)(hub._settings)

    await eventually(lambda: hub.members.members("user:ann", 10).num_clients == 1)
    assert len(connection.session.channels) == len(hub.members.channels("", 100))


async def test_a_hub_that_is_away_hears_everything_later(replicas: Replicas, hub: LocalHub) -> None:
    """What happened meanwhile is not lost."""
    await replicas.connect(0, "ann")
    await eventually(lambda: hub.members.num_members == 3)
    bob, _ = await replicas.connect(0, "bob")
    hub.is_away = True
    replicas.both[0].close(bob)
    await asyncio.sleep(0.3)
    hub.is_away = False

    await eventually(lambda: set(hub.members.channels("", 100)) == {"user:ann", CREW, "noc:all"})
    assert hub.members.members(CREW, 10).num_clients == 1


async def test_more_members_than_one_report_holds(hub: LocalHub) -> None:
    """Told in parts."""
    replicas = Replicas(hub, max_connections_per_user=1000)
    for number in range(120):
        await replicas.connect(0, f"u{number}")
    await eventually(lambda: hub.members.num_members == 360)
    hub.members = type(hub.members)(hub._settings)
    await eventually(lambda: hub.members.num_members == 360)
    for register in replicas.both:
        await register.stop()


async def test_a_full_queue_leaves_joins_out(hub: LocalHub) -> None:
    """A client that reads nothing is not closed for them."""
    replicas = Replicas(hub, control_bytes=2000)
    _, sleeper = await replicas.connect(0, "sleeper")
    sleeper.gate.clear()
    for number in range(40):
        await replicas.connect(1, f"u{number}")
    _, awake = await replicas.connect(0, "awake")
    await replicas.connect(1, "last")
    await awake.until(lambda made: (CREW, "last") in pushed(made, "join"))

    assert sleeper.close_code is None
    assert len(replicas.both[0]) == 2
    for register in replicas.both:
        await register.stop()


class TestServices:
    """Disconnect, subscribe and unsubscribe, wherever the connections are."""

    async def test_disconnect_by_user_and_by_connection(self, replicas: Replicas) -> None:
        """On both replicas, and nobody else's."""
        (kept, first), (_, second), (_, other) = [
            await replicas.connect(place, user) for place, user in ((0, "ann"), (1, "ann"), (1, "bob"))
        ]
        spared = (kept.session.client_id,)
        await replicas.tell(notices.Disconnect(audience=notices.Audience(user="ann"), code=3503, spared=spared))
        await second.until(lambda made: made.close_code is CloseCode.FORCE_DISCONNECT)
        assert first.close_code is None

        audience = notices.Audience(user="", client=kept.session.client_id)
        await replicas.tell(notices.Disconnect(audience=audience, code=int(CloseCode.FORCE_RECONNECT)))
        await first.until(lambda made: made.close_code is CloseCode.FORCE_RECONNECT)
        assert other.close_code is None

    async def test_a_tenants_caller_reaches_its_own(self, replicas: Replicas) -> None:
        """Users of two tenants may have the same name."""
        (_, own), (_, foreign) = [await replicas.connect(0, "ann", tenant=tenant) for tenant in ("t1", "t2")]
        audience = notices.Audience(user="ann", tenant="t1")
        await replicas.tell(notices.Disconnect(audience=audience, code=3503))
        await own.until(lambda made: made.close_code is CloseCode.FORCE_DISCONNECT)
        assert foreign.close_code is None

    async def test_subscribe_and_unsubscribe(self, replicas: Replicas, hub: LocalHub) -> None:
        """What the user may hear flows, and stops."""
        _, transport = await replicas.connect(1, "ann")
        audience = notices.Audience(user="ann")
        for channel in ("run:r1", "user:bob"):
            await replicas.tell(notices.Subscribe(audience=audience, channel=channel))
        await transport.until(lambda made: any("subscribe" in line.get("push", {}) for line in made.lines))
        await hub.publish([draft("run:r1", 1), draft("user:bob", 1)])
        await transport.until(lambda made: len(made.publications("run:r1")) == 1)

        await replicas.tell(notices.Unsubscribe(audience=audience, channel="run:r1"))
        await transport.until(lambda made: any("unsubscribe" in line.get("push", {}) for line in made.lines))
        await hub.publish([draft("run:r1", 2), draft("user:ann", "last")])
        await transport.until(lambda made: len(made.publications("user:ann")) == 1)

        assert len(transport.publications("run:r1")) == 1
        assert transport.publications("user:bob") == []

    async def test_a_replica_that_missed_notices_recovers_them(self, replicas: Replicas, hub: LocalHub) -> None:
        """As any client does: they are publications with a history."""
        _, transport = await replicas.connect(0, "ann")
        await eventually(lambda: replicas.both[0]._control._ring is not None)
        hub.is_away = True
        hub._wake()
        await asyncio.sleep(0.02)
        notice = notices.Disconnect(audience=notices.Audience(user="ann"), code=3503)
        hub.core.publish([Draft(GATEWAY_ALL, notices.write(notice))])
        for channel in ("run:x", "run:y"):  # the log forgets; the channel's own history does not
            hub.core.publish([Draft(channel, b"1")] * hub._settings.log_size)
        hub.is_away = False

        await transport.until(lambda made: made.close_code is CloseCode.FORCE_DISCONNECT)


async def test_what_a_client_publishes_carries_its_name(replicas: Replicas) -> None:
    """Live, in the history and when it is recovered; its sender gets it too."""
    ann, first = await replicas.connect(0, "ann")
    bob, second = await replicas.connect(1, "bob")
    assert await ask(ann, first, {"id": 5, "publish": {"channel": CREW, "data": {"text": "hi"}}}) == {
        "id": 5, "publish": {},
    }  # fmt: skip
    info = {"user": "ann", "client": ann.session.client_id}
    for transport in (first, second):
        await transport.until(lambda made: len(made.publications(CREW)) == 1)
        (publication,) = transport.publications(CREW)
        assert (publication["data"], publication["info"]) == ({"text": "hi"}, info)

    history = await ask(bob, second, {"id": 6, "history": {"channel": CREW, "limit": 5}})
    assert history["history"]["publications"] == [publication]
    late = FakeTransport()
    connection = replicas.both[1].open(late)
    token = issue_token(SECRET, sub="eve", tenant=None, roles=[Role.VIEWER], groups=["crew"], ttl_s=600)
    position = {"recover": True, "epoch": history["history"]["epoch"], "offset": 0}
    await connection.on_text(json.dumps({"id": 1, "connect": {"token": token, "subs": {CREW: position}}}))
    await late.until(lambda made: bool(made.frames))
    assert late.lines[0]["connect"]["subs"][CREW]["publications"] == [publication]


async def test_a_hub_that_is_away_is_a_temporary_error(replicas: Replicas, hub: LocalHub) -> None:
    """For each command that needs it."""
    ann, transport = await replicas.connect(0, "ann")
    hub.is_away = True
    for number, command in enumerate(
        ({"publish": {"channel": CREW, "data": 1}}, {"presence": {"channel": CREW}}, {"history": {"channel": CREW}}),
        start=5,
    ):
        answer = await ask(ann, transport, {"id": number, **command})
        assert answer["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    hub.is_away = False
