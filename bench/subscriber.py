"""A client that comes back: it follows channels, recovers after each cut, and keeps what it got.

As an SDK does it, in fewer lines and with its books open: reconnects with full jitter, asks
for recovery from its last positions, answers pings. Invariant: of each channel it knows
every (epoch, offset) that it was given, in the order in which they came.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 2.0
OPEN_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Follow:
    """What one client has of one channel."""

    epoch: str = ""
    offset: int = 0
    got: list[tuple[str, int, Any]] = field(default_factory=list)
    """(epoch, offset, data) in the order of arrival."""
    arrived: list[float] = field(default_factory=list)
    """Monotonic moment of each."""


class Subscriber:
    """One client with server-side subscriptions and those that it asks for."""

    def __init__(self, url: str, token: str, channels: Sequence[str] = ()) -> None:
        self._url = url
        self._token = token
        self._channels = channels
        self.follows: defaultdict[str, Follow] = defaultdict(Follow)
        self.is_open = asyncio.Event()
        self.cuts: list[float] = []
        """Monotonic moments at which a connection was lost."""
        self.recoveries: list[tuple[float, str, bool]] = []
        """(moment, channel, recovered) of each subscription that asked for recovery."""
        self.attempts = 0

    async def run(self) -> None:
        """Stay connected until cancelled."""
        failures = 0
        while True:
            self.attempts += 1
            try:
                async with connect(self._url, open_timeout=OPEN_TIMEOUT_S, max_queue=256, compression=None) as socket:
                    await self._begin(socket)
                    failures = 0
                    await self._listen(socket)
            except (OSError, TimeoutError, WebSocketException):
                pass
            if self.is_open.is_set():
                self.is_open.clear()
                self.cuts.append(time.monotonic())
            failures += 1
            # Full jitter, as the SDKs have it.
            await asyncio.sleep(random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**failures)))

    async def _begin(self, socket: ClientConnection) -> None:
        known = {name: follow for name, follow in self.follows.items() if follow.epoch}
        positions = {name: {"recover": True, "epoch": one.epoch, "offset": one.offset} for name, one in known.items()}
        server_side = {name: position for name, position in positions.items() if name not in self._channels}
        lines = [{"id": 1, "connect": {"token": self._token, "subs": server_side}}]
        lines += [
            {"id": number, "subscribe": {"channel": channel} | positions.get(channel, {})}
            for number, channel in enumerate(self._channels, start=2)
        ]
        await socket.send(b"\n".join(map(orjson.dumps, lines)).decode())

    async def _listen(self, socket: ClientConnection) -> None:
        answered = 0
        async for frame in socket:
            for line in frame.split("\n" if isinstance(frame, str) else b"\n"):
                message = orjson.loads(line)
                if not message:
                    await socket.send("{}")
                elif "push" in message:
                    self._on_push(message["push"])
                elif "error" in message:
                    raise OSError(message["error"])
                else:
                    self._on_reply(message)
                    answered += 1
                    if answered == 1 + len(self._channels):
                        self.is_open.set()

    def _on_push(self, push: dict[str, Any]) -> None:
        if "pub" in push:
            self._take(push["channel"], self.follows[push["channel"]].epoch, push["pub"])

    def _on_reply(self, reply: dict[str, Any]) -> None:
        if "connect" in reply:
            for channel, result in reply["connect"].get("subs", {}).items():
                self._on_subscribed(channel, result)
        elif "subscribe" in reply:
            self._on_subscribed(self._channels[reply["id"] - 2], reply["subscribe"])

    def _on_subscribed(self, channel: str, result: dict[str, Any]) -> None:
        follow = self.follows[channel]
        if result.get("was_recovering"):
            self.recoveries.append((time.monotonic(), channel, bool(result.get("recovered"))))
        follow.epoch, follow.offset = result["epoch"], result["offset"]
        for publication in result.get("publications", ()):
            self._take(channel, follow.epoch, publication)

    def _take(self, channel: str, epoch: str, publication: dict[str, Any]) -> None:
        follow = self.follows[channel]
        follow.offset = publication["offset"]
        follow.got.append((epoch, publication["offset"], publication["data"]))
        follow.arrived.append(time.monotonic())
