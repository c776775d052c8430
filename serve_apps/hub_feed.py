"""The hub's publications on one replica: one poll loop, and a ring per followed channel.

Owns no socket. Started lazily by the first attachment, on the loop that serves the
connections. Invariant: a follower that attached at a position is marked for everything
its channel got after it, or told that it lost some -- never silently left behind.

Why nothing falls between a history and the live feed: the ring is made *before* the hub
is asked, and the question itself makes the hub send what the channel gets from then on. So
what it publishes after its answer is in the ring, and what is in both has the same offset.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from realtime.channels import GATEWAY_ALL, ChannelKind, kind_of
from realtime.errors import RealtimeError
from realtime.hub_client import HubClient
from realtime.interest import Asker, Wish
from realtime.publication import Publication, StreamPosition
from realtime.replies import Cursor, PollReply
from serve_apps.effects import Attachment
from serve_apps.errors import FeedUnavailableError
from serve_apps.frames import History
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.ledger import Ledger
from serve_apps.ring import RANKS, Append, ChannelRing

logger = logging.getLogger(__name__)

FLUSH_SLICE = 500
"""Connections woken between two looks at the loop, so that pings and commands are not starved."""
RESYNC_AT_ONCE = 16
ATTACH_TRIES = 4
RETRY_CAP_S = 2.0


class Follower(Protocol):
    """A connection, as the feed sees it."""

    def mark(self, channel: str, rank: int) -> None:
        """Note that a followed channel has something new."""
        ...

    def flush(self) -> None:
        """Send what is marked, without waiting for it."""
        ...

    def lose(self, channel: str) -> None:
        """Learn that publications of a followed channel were lost."""
        ...


Ring = ChannelRing[Follower]


class HubFeed:
    """Everything this replica knows of the hub's channels."""

    def __init__(self, hub: HubClient, settings: GatewaySettings) -> None:
        self._hub = hub
        self.ledger = Ledger()
        self._settings = settings
        self._rings: dict[str, Ring] = {}
        self._cursor: Cursor | None = None
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._resync_slots = asyncio.Semaphore(RESYNC_AT_ONCE)
        self._failing_since_s: float | None = None
        self._woken: dict[Follower, None] = {}  # followers that are marked and not flushed yet, in order
        self._behind: set[Ring] = set()  # rings that have to read their channel again
        # What the hub is told of the channels that are followed here (``realtime.interest``).
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._left: set[str] = set()
        self._wants_all = ""
        self._spent_s = 0.0  # CPU time of the present reply's delivery
        self.coalesced_total = 0
        """Publications the hub left out because a newer one took their place."""
        self.resyncs_total = 0
        """Channels read again because the feed had a gap."""

    @property
    def is_dead(self) -> bool:
        """True when the poll loop ended, which only a bug can cause; a hub that is away does not."""
        return self._task is not None and self._task.done()

    @property
    def failing_s(self) -> float:
        """Seconds since the hub stopped answering; 0 while it does."""
        return 0.0 if self._failing_since_s is None else time.monotonic() - self._failing_since_s

    @property
    def num_channels(self) -> int:
        """Channels that clients of this replica follow."""
        return len(self._rings) - (GATEWAY_ALL in self._rings)  # its own ear is no client

    async def attach(self, wanted: Mapping[str, StreamPosition | None]) -> list[Attachment]:
        """Return where channels stand and what was missed since the given positions.

        Each channel is then held until ``follow`` or ``release``, whichever happens.

        Raises:
            FeedUnavailableError: the hub did not answer in time; nothing is held.
        """
        self._start()
        rings = {channel: self._pin(channel) for channel in wanted}
        try:
            async with asyncio.timeout(self._settings.hub_timeout_s):
                await self._ready.wait()
                joined, recovered = await asyncio.gather(
                    self._join({name: rings[name] for name, since in wanted.items() if since is None}),
                    asyncio.gather(
                        *(self._recover(rings[name], since) for name, since in wanted.items() if since is not None)
                    ),
                )
        except (RealtimeError, TimeoutError) as error:
            self.release(wanted)
            raise FeedUnavailableError("attach", str(error) or "no answer in time") from error
        except BaseException:
            self.release(wanted)
            raise
        return [*joined, *recovered]

    def follow(self, channel: str, position: StreamPosition, follower: Follower) -> Ring | None:
        """Turn a held channel into a followed one; None: what came after ``position`` is lost already."""
        ring = self._rings[channel]
        ring.pins -= 1
        if ring.epoch != position.epoch or position.offset < ring.floor:
            self._forget_if_idle(ring)
            return None
        ring.followers.add(follower)
        return ring

    def release(self, channels: Iterable[str]) -> None:
        """Give up held channels that will not be followed."""
        for channel in channels:
            ring = self._rings[channel]
            ring.pins -= 1
            self._forget_if_idle(ring)

    def leave(self, channel: str, follower: Follower) -> None:
        """Stop following; unknown channels and followers are ignored."""
        ring = self._rings.get(channel)
        if ring is not None:
            ring.followers.discard(follower)
            self._forget_if_idle(ring)

    def followers(self, channel: str) -> tuple[Follower, ...]:
        """Return who follows a channel on this replica."""
        ring = self._rings.get(channel)
        return () if ring is None else tuple(ring.followers)

    async def history(self, command: History) -> tuple[StreamPosition, tuple[Publication, ...] | None]:
        """Return a channel's position and recent publications; None: the given position is lost.

        Raises:
            FeedUnavailableError: the hub did not answer in time.
        """
        cap = self._settings.recovery_limit
        limit = cap if command.limit < 0 else min(command.limit, cap)
        try:
            async with asyncio.timeout(self._settings.hub_timeout_s):
                # `since` is all or nothing at the hub, so the client's own limit is applied here.
                read = cap if command.since is not None else max(1, limit)
                reply = await self._hub.history(command.channel, command.since, read)
        except (RealtimeError, TimeoutError) as error:
            raise FeedUnavailableError("history", str(error) or "no answer in time") from error
        if command.since is not None and not reply.recovered:
            return reply.position, None
        items = _within(reply.publications, self._settings.recovery_bytes)
        if command.reverse:
            items = items[::-1]
        if command.since is None and not command.reverse:
            return reply.position, items[len(items) - min(limit, len(items)) :]
        return reply.position, items[:limit]

    def num_bytes(self) -> int:
        """Return the bytes of all publications held; as many steps as there are channels."""
        return sum(ring.num_bytes for ring in self._rings.values())

    def tick(self, now_s: float) -> None:
        """Drop what is too old, and when all rings together hold too much, shrink the largest."""
        for ring in self._rings.values():
            ring.drop_older(now_s - self._settings.ring_age_s)
        total = self.num_bytes()
        while total > self._settings.ring_total_bytes:
            largest = max(self._rings.values(), key=lambda ring: ring.num_bytes)
            before = largest.num_bytes
            largest.shrink(before // 2)
            total -= before - largest.num_bytes

    async def close(self) -> None:
        """Stop the poll loop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _start(self) -> None:
        # Lazily: the replica's constructor may run before its loop serves requests, and a replica
        # nobody is connected to needs no feed.
        if self._task is None:
            self._task = asyncio.create_task(self._poll_forever(), name="hub-feed")

    def _pin(self, channel: str) -> Ring:
        ring = self._rings.get(channel)
        if ring is None:
            self._left.discard(channel)
            kind = kind_of(channel)
            # What the replicas tell each other is owed to no client.
            ledger = None if kind is ChannelKind.GATEWAY else self.ledger
            ring = self._rings[channel] = ChannelRing(channel, kind, self._settings, ledger)
        ring.pins += 1
        return ring

    def _forget_if_idle(self, ring: Ring) -> None:
        if ring.is_idle and self._rings.get(ring.channel) is ring:
            del self._rings[ring.channel]
            self._left.add(ring.channel)

    def _asker(self) -> Asker:
        return Asker(self._name, next(self._numbers))

    def _wish(self) -> Wish:
        leaves, self._left = tuple(self._left), set()
        follows = tuple(self._rings) if self._wants_all else None
        return Wish(self._name, next(self._numbers), leaves, follows, self._wants_all)

    async def _join(self, rings: Mapping[str, Ring]) -> list[Attachment]:
        """Attach to channels from now on: from where the hub is, as this replica may lag behind it."""
        if not rings:
            return []
        positions = await self._hub.positions(list(rings), self._asker())
        joined = []
        for channel, ring in rings.items():
            position = await self._aligned(ring, positions[channel])
            # Another attachment may have begun this ring from a later answer; nothing is owed from before it.
            joined.append(Attachment(channel, StreamPosition(position.epoch, max(position.offset, ring.floor))))
        return joined

    async def _recover(self, ring: Ring, since: StreamPosition) -> Attachment:
        """Attach to a channel from a client's position, with what it missed; from now on if that is lost."""
        channel = ring.channel
        if not since.epoch:  # a client that never learnt the epoch is taken at its word
            positions = await self._hub.positions([channel], self._asker())
            since = StreamPosition(positions[channel].epoch, since.offset)
        if ring.covers(since) and ring.position is not None:
            return self._attachment(channel, ring.position, ring.after(since.offset), recovered=True)
        publications: tuple[Publication, ...] = ()
        asked, recovered = since, True
        for _ in range(ATTACH_TRIES):
            reply = await self._hub.history(channel, asked, self._settings.recovery_limit, self._asker())
            position = await self._aligned(ring, reply.position)
            if position != reply.position:
                return Attachment(channel, position)
            recovered = recovered and reply.recovered
            publications += reply.publications
            if position.offset >= ring.floor:
                return self._attachment(channel, position, publications if recovered else (), recovered)
            # Another attachment began this ring from a later answer: fetch what lies between.
            asked = position
        raise FeedUnavailableError("attach", f"a channel of kind {ring.kind} moves too fast")

    async def _aligned(self, ring: Ring, position: StreamPosition) -> StreamPosition:
        """Return the position to follow a ring from, given one that the hub has just named."""
        if ring.epoch is not None and ring.epoch != position.epoch:
            # The stream began a new life that the feed has not seen yet.
            await self._resync(ring)
            return ring.position or position
        ring.start(position)
        return position

    def _attachment(
        self, channel: str, position: StreamPosition, items: tuple[Publication, ...], recovered: bool
    ) -> Attachment:
        if len(items) > self._settings.recovery_limit or _num_bytes(items) > self._settings.recovery_bytes:
            return Attachment(channel, position)
        return Attachment(channel, position, items, recovered)

    async def _poll_forever(self) -> None:
        pause_s = 0.05
        while True:
            wish = self._wish()
            try:
                reply = await self._hub.poll(self._cursor, self._settings.poll_timeout_s, self._hear, wish)
            except (RealtimeError, OSError) as error:
                self._left.update(channel for channel in wish.leaves if channel not in self._rings)
                if self._failing_since_s is None:
                    logger.warning("the hub does not answer, %d channels wait: %s", len(self._rings), error)
                    self._failing_since_s = time.monotonic()
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 -- jitter
                pause_s = min(RETRY_CAP_S, pause_s * 2)
                continue
            if self._failing_since_s is not None:
                logger.info("the hub answers again after %.1f s", self.failing_s)
                self._failing_since_s, pause_s = None, 0.05
            await self._settle(reply)

    def _hear(self, reply: PollReply) -> None:
        """Deliver what a reply brings in the turn of the loop that reads it; what must wait is left to ``_settle``."""
        # CPU time of this thread: on a busy machine the clock would count what others took as well.
        began_s, now_s = time.thread_time(), time.monotonic()
        touched: dict[Ring, int] = {}
        for publication in () if reply.gap else reply.publications:
            ring = self._rings.get(publication.channel)
            if ring is None:
                continue
            outcome = ring.append(publication, now_s)
            if outcome is Append.OTHER_EPOCH:
                self._behind.add(ring)
            elif outcome is Append.ADDED:
                rank = RANKS[publication.priority]
                touched[ring] = min(touched.get(ring, rank), rank)
        is_news = bool(touched)
        if len(touched) == 1 and not self._woken:
            self._tell_followers(*touched.popitem())
        else:
            self._mark(touched)
        self._flush_slice()
        self._spent_s = time.thread_time() - began_s if is_news else 0.0

    async def _settle(self, reply: PollReply) -> None:
        """Do what ``_hear`` had no time for, and rest."""
        is_first = self._cursor is None
        self._cursor = reply.cursor
        self._wants_all = reply.wants_all
        self.coalesced_total += reply.coalesced
        if reply.gap and not is_first:
            self._behind.update(self._rings.values())
        behind, self._behind = self._behind, set()
        await self._flush_rest()
        await asyncio.gather(*map(self._resync, behind))
        self._ready.set()
        if self._spent_s:
            await asyncio.sleep(self._rest_s(self._spent_s))

    def _rest_s(self, spent_s: float) -> float:
        """Return how long to let news gather after a flush that cost ``spent_s`` of CPU time.

        What a frame costs here it costs again in the proxy, the kernel and the client, whatever it
        carries. A flush that follows at once would carry a message or two; in proportion to its cost,
        the rest bounds frames a second and lets messages share them. Without load nothing waits:
        the rest is over before the next message comes.
        """
        return min(self._settings.flush_rest_max_s, self._settings.flush_rest * spent_s)

    def _tell_followers(self, ring: Ring, rank: int) -> None:
        """Mark and flush in one go: with news of one channel alone, nothing else could join its frame."""
        for number, follower in enumerate(tuple(ring.followers)):
            follower.mark(ring.channel, rank)
            if number < FLUSH_SLICE:
                follower.flush()
            else:
                self._woken[follower] = None

    def _mark(self, touched: Mapping[Ring, int]) -> None:
        for ring in sorted(touched, key=touched.__getitem__):
            rank = touched[ring]
            for follower in ring.followers:
                follower.mark(ring.channel, rank)
                self._woken[follower] = None

    def _flush_slice(self) -> None:
        for follower in tuple(itertools.islice(self._woken, FLUSH_SLICE)):
            del self._woken[follower]
            follower.flush()

    async def _flush_rest(self) -> None:
        while self._woken:
            began_s = time.thread_time()
            self._flush_slice()
            self._spent_s += time.thread_time() - began_s
            await asyncio.sleep(0)

    async def _resync(self, ring: Ring) -> None:
        """Read a channel again after a gap; followers whose place is lost are told so."""
        position = ring.position
        if position is None:
            return  # only held: its attachment is about to ask the hub anyway
        self.resyncs_total += 1
        try:
            async with self._resync_slots, asyncio.timeout(self._settings.hub_timeout_s):
                reply = await self._hub.history(ring.channel, position, self._settings.recovery_limit, self._asker())
        except (RealtimeError, TimeoutError) as error:
            logger.warning("a channel of kind %s could not be resynchronised: %s", ring.kind, error)
            self._lose(ring, None)
            return
        if not reply.recovered:
            self._lose(ring, reply.position)
            return
        now_s = time.monotonic()
        for publication in reply.publications:
            ring.append(publication, now_s)
        self._mark({ring: min((RANKS[item.priority] for item in reply.publications), default=0)})
        await self._flush_rest()

    def _lose(self, ring: Ring, position: StreamPosition | None) -> None:
        followers = list(ring.followers)
        ring.followers.clear()
        if position is None:
            ring.forget()
        else:
            ring.reset(position)
        self._forget_if_idle(ring)
        for follower in followers:
            follower.lose(ring.channel)
            follower.flush()


def _num_bytes(items: Iterable[Publication]) -> int:
    return sum(len(item.data) for item in items)


def _within(items: tuple[Publication, ...], max_bytes: int) -> tuple[Publication, ...]:
    """Return the newest of ``items`` that fit into ``max_bytes``."""
    kept = 0
    for number, item in enumerate(reversed(items)):
        kept += len(item.data)
        if kept > max_bytes:
            return items[len(items) - number :]
    return items
