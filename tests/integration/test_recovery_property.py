"""Recovery under any interleaving: each publication once, in order, or the client is told that it lost some."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.settings import HubSettings
from serve_apps.auth import Authenticator, issue_token
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import FakeTransport, LocalHub, draft

SECRET = b"s" * 32
OWN = "run:r"
CHANNELS = ("noc:all", "user:ann", OWN)

STEP = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(CHANNELS), st.integers(1, 40)),
    st.tuples(st.just("connect"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("cut"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("stall"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("resume"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("turn"), st.integers(1, 30), st.just(0)),
    st.tuples(st.sampled_from(["restart", "away", "back"]), st.just(0), st.just(0)),
)


@dataclass
class Heard:
    """One channel as a client knows it; ``number`` is the payload, the place in the truth."""

    epoch: str = ""
    offset: int = 0
    last: int | None = None
    """Number of the last publication of the unbroken part; None: nothing since it began."""
    parts: int = 0


@dataclass
class Client:
    """What an SDK does, in a few lines: positions, recovery, and a check of every publication."""

    register: Connections
    token: str
    channels: dict[str, Heard] = field(default_factory=dict)
    connection: Connection | None = None
    transport: FakeTransport = field(default_factory=FakeTransport)
    read: int = 0
    subscribed: bool = False

    async def connect(self) -> None:
        if self.connection is not None:
            return
        self.transport, self.read, self.subscribed = FakeTransport(), 0, False
        self.connection = self.register.open(self.transport)
        subs = {name: self._position(heard) for name, heard in self.channels.items() if name != OWN}
        lines = [{"id": 1, "connect": {"token": self.token, "subs": subs}}]
        wanted: dict[str, Any] = {"channel": OWN}
        if OWN in self.channels:
            wanted |= self._position(self.channels[OWN])
        lines.append({"id": 2, "subscribe": wanted})
        await self.connection.on_text("\n".join(json.dumps(line) for line in lines))

    def cut(self) -> None:
        if self.connection is not None:
            self.take()
            self.register.close(self.connection)
            self.connection = None

    def take(self) -> None:
        """Handle what has arrived."""
        frames, self.read = self.transport.frames[self.read :], len(self.transport.frames)
        for line in (json.loads(text) for frame in frames for text in frame.split("\n")):
            self._on_line(line)

    def check_end(self) -> None:
        """Notice a close, an error or a lost subscription, as an SDK would, and start again."""
        self.take()
        if self.connection is not None and (self.transport.close_code is not None or self.connection.session.is_closed):
            assert self.transport.close_code in {None, CloseCode.INSUFFICIENT_STATE, CloseCode.SLOW}
            self.cut()

    def _on_line(self, line: dict[str, Any]) -> None:
        match line:
            case {"connect": result}:
                for channel, subscription in result["subs"].items():
                    self._on_subscribed(channel, subscription)
            case {"subscribe": result}:
                self.subscribed = True
                self._on_subscribed(OWN, result)
            case {"push": {"channel": channel, "pub": publication}}:
                assert channel != OWN or self.subscribed, "a publication came before its subscribe reply"
                self._on_publication(channel, publication)
            case {"push": {"unsubscribe": ended}}:
                assert ended["code"] == 2500
                self._reconnect()
            case {"error": error}:
                assert error["code"] == 100
                self._reconnect()
            case {}:
                pass

    def _reconnect(self) -> None:
        if self.connection is not None:
            self.register.close(self.connection)
            self.connection = None

    def _on_subscribed(self, channel: str, result: dict[str, Any]) -> None:
        heard = self.channels.setdefault(channel, Heard())
        if not result.get("recovered"):
            heard.last, heard.parts = None, heard.parts + 1
        heard.epoch, heard.offset = result["epoch"], result["offset"]
        for publication in result.get("publications", []):
            self._on_publication(channel, publication)

    def _on_publication(self, channel: str, publication: dict[str, Any]) -> None:
        heard = self.channels[channel]
        assert publication["offset"] > heard.offset, "an offset came twice or out of order"
        assert heard.last is None or publication["data"] == heard.last + 1, "a publication is missing"
        heard.offset, heard.last = publication["offset"], publication["data"]

    @staticmethod
    def _position(heard: Heard) -> dict[str, Any]:
        return {"recover": True, "epoch": heard.epoch, "offset": heard.offset}


async def run(steps: list[tuple[str, Any, int]], seed: int, flush_rest: float = 2.0) -> list[Client]:
    rng = random.Random(seed)
    # A log and histories so short that gaps and lost positions are common.
    hub = LocalHub(HubSettings(log_size=24, history_size=16, reply_max_publications=5))

    async def late(_operation: str) -> None:
        for _ in range(rng.choice((0, 0, 1, 3, 8, 20))):
            await asyncio.sleep(0)

    hub.before_answer = late
    limits = GatewaySettings(hub_timeout_s=0.5, frame_lines=3, ring_items=40, flush_rest=flush_rest)

    async def consume(_id: str, _ttl_s: float) -> bool:
        return True

    register = Connections(hub, Authenticator(SECRET, http_port=1, consume=consume), limits)  # type: ignore[arg-type]
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["operator"], ttl_s=600)
    clients = [Client(register, token) for _ in range(3)]
    numbers = dict.fromkeys(CHANNELS, 0)
    connecting: set[asyncio.Task[None]] = set()

    async def publish(channel: str, count: int) -> None:
        first, numbers[channel] = numbers[channel], numbers[channel] + count
        hub.is_away, was_away = False, hub.is_away
        await hub.publish([draft(channel, number) for number in range(first, first + count)])
        hub.is_away = was_away

    async def turn(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)
        for client in clients:
            client.check_end()

    for action, which, count in steps:
        match action:
            case "publish":
                await publish(which, count)
            case "connect":
                connecting.add(asyncio.create_task(clients[which].connect()))
            case "cut":
                clients[which].cut()
            case "stall":
                clients[which].transport.gate.clear()
            case "resume":
                clients[which].transport.gate.set()
            case "turn":
                await turn(which)
            case "restart":
                hub.restart()
            case "away":
                hub.is_away = True
            case "back":
                hub.is_away = False
    # In the end everything works again: everybody comes back and hears one more of each.
    hub.is_away = False
    if connecting:
        await asyncio.wait(connecting)
    async with asyncio.timeout(10):
        settled = False
        while not settled:
            for client in clients:
                client.transport.gate.set()
                client.check_end()
                if client.connection is None:
                    await client.connect()
            for _ in range(20):
                await asyncio.sleep(0)
            for client in clients:
                client.check_end()
            settled = all(client.connection is not None and client.subscribed for client in clients)
            await asyncio.sleep(0.001)
        for channel in CHANNELS:
            await publish(channel, 1)
        while not all(
            client.connection is not None
            and client.subscribed
            and all(client.channels[name].last == numbers[name] - 1 for name in CHANNELS)
            for client in clients
        ):
            await asyncio.sleep(0.001)
            for client in clients:
                client.check_end()
                if client.connection is None:
                    await client.connect()
                    # Who starts anew after the last publication has no later one to hear.
                    for name in CHANNELS:
                        await publish(name, 1)
    for client in clients:
        client.cut()
    assert register.feed.num_channels == 0, "a channel is held for nobody"
    await register.stop()
    return clients


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=5, max_size=60), seed=st.integers(0, 2**16))
def test_each_publication_once_or_the_client_knows(steps: list[tuple[str, Any, int]], seed: int) -> None:
    """Three clients, late answers, cut cables, stalled readers, gaps in the feed, lost hubs."""
    asyncio.run(run(steps, seed))


def test_cut_cables_alone_lose_nothing() -> None:
    """Within the history every reconnection recovers: the stream is one unbroken part."""
    steps: list[tuple[str, Any, int]] = [("connect", 0, 0), ("connect", 1, 0), ("turn", 30, 0)]
    for number in range(30):
        steps += [("publish", CHANNELS[number % 3], 3), ("turn", number % 7, 0), ("cut", number % 2, 0)]
        steps += [("publish", CHANNELS[(number + 1) % 3], 2), ("connect", number % 2, 0), ("turn", 25, 0)]

    # Steps count turns of the loop, not time: a feed that rests would fall out of so short a history.
    clients = asyncio.run(run(steps, seed=3, flush_rest=0))

    for client in clients[:2]:
        assert {name: heard.parts for name, heard in client.channels.items()} == dict.fromkeys(client.channels, 1)
