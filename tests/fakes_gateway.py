"""Hand-written stand-ins around the gateway: a hub in this process, a transport that remembers.

``LocalHub`` has ``HubClient``'s reading and publishing calls over the real ``Hub`` core, so
that what is tested against it is the gateway and not a second idea of a hub.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cluster.clock import Clock, SystemClock
from realtime import notices
from realtime.channels import GATEWAY_ALL
from realtime.errors import HubUnavailableError
from realtime.hub import Hub
from realtime.interest import Asker, Interests, Wish
from realtime.presence import GatewayFigures, Presence, PresenceReply, Report
from realtime.publication import Draft, Priority, StreamPosition
from realtime.replies import Cursor, HistoryReply, PollReply
from realtime.settings import HubSettings
from serve_apps.codes import CloseCode
from serve_apps.outgoing import Frame


class LocalHub:
    """A hub without Ray: lives on the test's event loop, answers when told to, may fail or be lost."""

    def __init__(self, settings: HubSettings | None = None, clock: Clock | None = None) -> None:
        self._settings = settings or HubSettings()
        self._clock = clock or SystemClock()
        self._news = asyncio.Event()
        self.core = Hub(self._settings, self._clock)
        self.members = Presence(self._settings)
        self.interests = Interests(60.0, 10, 1_000)
        self.is_away = False
        self.before_answer: Callable[[str], Any] | None = None
        """Awaited between reading and answering, with the operation's name: makes replies late."""

    def restart(self) -> None:
        """Lose everything, as a hub without a journal does."""
        self.core = Hub(self._settings, self._clock)
        self.members = Presence(self._settings)
        self.interests = Interests(60.0, 10, 1_000)
        self._wake()

    async def publish(self, drafts: Sequence[Draft], timeout_s: float = 5.0) -> list[StreamPosition]:
        self._check("publish", timeout_s)
        positions = self.core.publish(drafts)
        self._wake()
        return positions

    async def poll(
        self,
        cursor: Cursor | None,
        timeout_s: float = 25.0,
        hear: Callable[[PollReply], None] | None = None,
        wish: Wish | None = None,
    ) -> PollReply:
        reply = await self._poll(cursor, timeout_s, wish)
        if hear is not None:
            hear(reply)
        return reply

    async def _poll(self, cursor: Cursor | None, timeout_s: float, wish: Wish | None) -> PollReply:
        self._check("poll", timeout_s)
        if wish is not None:
            self.interests.hear(wish, self._clock.monotonic_s())
        reply = self._since(cursor, wish)
        while cursor is not None and not (reply.publications or reply.gap or reply.wants_all):
            try:
                await asyncio.wait_for(self._news.wait(), timeout_s)
            except TimeoutError:
                return reply
            self._check("poll", timeout_s)
            reply = self._since(cursor, wish)
        return await self._answer("poll", reply)

    def _since(self, cursor: Cursor | None, wish: Wish | None) -> PollReply:
        if wish is None:
            return self.core.since(cursor, self.core.top)
        reply = self.core.since(cursor, self.core.top, self.interests.wanted(wish.gateway))
        return replace(reply, wants_all=self.interests.wants_all(wish.gateway))

    async def history(
        self, channel: str, since: StreamPosition | None, limit: int = 300, asker: Asker | None = None
    ) -> HistoryReply:
        self._check("history", 5.0)
        self._will_follow(asker, [channel])
        return await self._answer("history", self.core.history(channel, since, limit))

    def _will_follow(self, asker: Asker | None, channels: Sequence[str]) -> None:
        if asker is not None:
            self.interests.follow(asker, channels, self._clock.monotonic_s())

    async def positions(self, channels: Sequence[str], asker: Asker | None = None) -> dict[str, StreamPosition]:
        self._check("positions", 5.0)
        self._will_follow(asker, channels)
        positions: dict[str, StreamPosition] = await self._answer("positions", self.core.positions(channels))
        return positions

    async def remove_history(self, channel: str) -> StreamPosition:
        self._check("remove_history", 5.0)
        return self.core.remove_history(channel)

    async def report(self, report: Report) -> bool:
        self._check("report", 5.0)
        changes = self.members.report(report, self._clock.monotonic_s())
        if changes is not None:
            self.core.publish([Draft(GATEWAY_ALL, notices.write(part)) for part in notices.changes_in_parts(changes)])
            self._wake()
        return changes is not None

    async def presence(self, channel: str, limit: int) -> PresenceReply:
        self._check("presence", 5.0)
        return self.members.members(channel, limit)

    async def present_channels(self, pattern: str, limit: int) -> dict[str, int]:
        self._check("present_channels", 5.0)
        return self.members.channels(pattern, limit)

    async def gateways(self) -> tuple[GatewayFigures, ...]:
        self._check("gateways", 5.0)
        return self.members.gateways()

    def _check(self, operation: str, timeout_s: float) -> None:
        if self.is_away:
            raise HubUnavailableError(operation, timeout_s, "test")

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _answer(self, operation: str, reply: Any) -> Any:
        if self.before_answer is not None:
            await self.before_answer(operation)
        return reply


def draft(channel: str, value: Any, priority: Priority = Priority.NORMAL) -> Draft:
    """A draft whose payload is ``value`` as JSON."""
    return Draft(channel, json.dumps(value).encode(), priority)


class FakeTransport:
    """Remembers the lines it was given; can be told to take none."""

    name = "websocket"

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.close_code: CloseCode | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._news = asyncio.Event()

    def send_now(self, frame: Frame) -> bool:
        if not self.gate.is_set():
            return False
        self.frames.append(frame.text)
        self._news.set()
        return True

    async def send(self, frame: Frame) -> None:
        await self.gate.wait()
        self.send_now(frame)

    async def close(self, code: CloseCode) -> None:
        self.close_code = code
        self._news.set()

    @property
    def lines(self) -> list[Any]:
        """Every line sent so far, decoded."""
        return [json.loads(line) for frame in self.frames for line in frame.split("\n")]

    def publications(self, channel: str) -> list[Any]:
        """Publications pushed on one channel, without those inside replies."""
        pushes = (line["push"] for line in self.lines if "push" in line)
        return [push["pub"] for push in pushes if push["channel"] == channel and "pub" in push]

    async def until(self, condition: Callable[["FakeTransport"], bool], timeout_s: float = 5.0) -> None:
        """Wait until ``condition(self)`` holds."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._news.clear()
                await self._news.wait()
