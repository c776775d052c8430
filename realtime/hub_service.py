"""The hub in an event loop: waiting readers, the journal's writer, and what happens when it is away.

Knows no Ray. Invariants, while the journal answers: a publish returns only when its
publications are in the journal, and what readers get is handed over to it in the same turn of
the loop -- so a hub that is killed has lost nothing that it confirmed, and of what it showed
at most that turn's, in whose place nothing else can come (ADR 87). A journal that answers
slowly delays publishers only: after 50 ms readers no longer wait for it. While it is away
everything goes on from memory, and the marker says so to the next hub.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cluster.clock import Clock, SystemClock
from realtime import notices
from realtime.behind_marker import BehindMarker
from realtime.books import Book
from realtime.channels import GATEWAY_ALL
from realtime.errors import (
    FencedError,
    JournalLostError,
    JournalUnavailableError,
    RealtimeError,
    UnreadablePayloadError,
)
from realtime.hub import Hub
from realtime.interest import Asker, Interests, Wish
from realtime.journal import Journal, JournalRecord, JournalState, Stored
from realtime.presence import Changes, GatewayFigures, Presence, PresenceReply, Report
from realtime.publication import Draft, StreamPosition
from realtime.replies import Cursor, HistoryReply, HubStats, JournalHealth, PollReply
from realtime.settings import HubSettings

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SWEEP_INTERVAL_S = 1.0
REWRITE_TIMEOUT_S = 60.0
RECORD_ENTRIES = 512
RECORD_BYTES = 65_536
RECORDS_UNDER_WAY = 4
"""Records handed over and not yet answered. One would make each publication wait for the
disk write of the one before; many would make each record small when it is busy."""
READERS_WAIT_S = 0.05
"""Longest time that readers wait for a slow journal to take what is published."""


class HubService:
    """One hub, its readers and its journal. All methods run on one event loop."""

    def __init__(
        self,
        settings: HubSettings,
        journal: Journal | None,
        marker: BehindMarker,
        owner: str,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._marker = marker
        self._owner = owner
        self._clock = clock or SystemClock()
        self._started_at_s = self._clock.time_s()
        self._hub = Hub(settings, self._clock)
        self._presence = Presence(settings)
        self._interests = Interests(settings.presence_ttl_s, settings.presence_gateways, settings.max_channels)
        self._health = JournalHealth.NONE if journal is None else JournalHealth.AWAY
        self._shown = self._hub.top
        self._news = asyncio.Event()  # something waits for the writer
        self._readers: dict[_Reader, asyncio.TimerHandle] = {}  # those that wait for news, and until when
        self._confirmations: deque[tuple[int, Callable[[], None]]] = deque()
        self._under_way: asyncio.Queue[tuple[JournalRecord, Stored]] = asyncio.Queue(RECORDS_UNDER_WAY)
        self._is_writing = False  # the writer has records to hand over
        self._is_stalled = False  # readers have waited long enough for the journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._health_lock = asyncio.Lock()  # held across the marker's file and the change it stands for
        self.is_fenced = asyncio.Event()
        """Set when a younger hub has taken the journal over: this one must end."""

    async def start(self) -> None:
        """Load the journal and begin to serve."""
        if self._journal is not None:
            await self._begin_with(self._journal)
        self._spawn(self._write_forever(), "hub-writer")
        self._spawn(self._settle_forever(), "hub-settler")
        self._spawn(self._sweep_forever(), "hub-sweeper")

    async def close(self) -> None:
        """Stop; what the journal does not know yet is offered to it once more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._journal is not None:
            if self._health is JournalHealth.OK:
                with contextlib.suppress(RealtimeError, TimeoutError):
                    await self._write_rest(self._journal)
            await self._journal.close()

    async def publish(self, drafts: Sequence[Draft], batch: str = "") -> list[StreamPosition]:
        """Append ``drafts``; returns when they are in the journal, or the journal is away."""
        confirmed: asyncio.Future[list[StreamPosition]] = asyncio.get_running_loop().create_future()
        self.publish_then(drafts, batch, partial(_resolve, confirmed))
        return await confirmed

    def publish_then(self, drafts: Sequence[Draft], batch: str, answer: Callable[[list[StreamPosition]], None]) -> None:
        """``publish`` for callers that are no coroutine: ``answer`` is called once, perhaps before this returns."""
        # The append comes first and at once: batches of one caller keep their order.
        positions = self._hub.publish(drafts, batch)
        self._write_soon()
        if self._health is JournalHealth.OK and self._hub.journalled_seq < self._hub.top:
            self._confirmations.append((self._hub.top, lambda: answer(positions)))
        else:
            answer(positions)

    async def poll(self, cursor: Cursor | None, timeout_s: float, wish: Wish | None = None) -> PollReply:
        """Return what came after ``cursor``, of the channels of ``wish``, waiting for it up to ``timeout_s``."""
        news: asyncio.Future[PollReply] = asyncio.get_running_loop().create_future()
        give_up = self.poll_then(cursor, timeout_s, partial(_resolve, news), wish)
        try:
            return await news
        finally:
            give_up()

    def poll_then(
        self,
        cursor: Cursor | None,
        timeout_s: float,
        answer: Callable[[PollReply], None],
        wish: Wish | None = None,
    ) -> Callable[[], None]:
        """``poll`` for callers that are no coroutine; returns what makes it forget ``answer``."""
        if wish is not None:
            self._interests.hear(wish, self._clock.monotonic_s())
        gateway = None if wish is None else wish.gateway
        reply = self._since(cursor, gateway)
        if cursor is None or reply.publications or reply.gap or reply.wants_all:
            answer(reply)
            return _nothing
        # A random part less, so that readers that began together do not poll together.
        wait_s = min(timeout_s, self._settings.poll_timeout_s) * random.uniform(0.8, 1.0)  # noqa: S311
        reader = _Reader(reply.cursor, answer, gateway)
        self._readers[reader] = asyncio.get_running_loop().call_later(wait_s, self._serve, reader)
        return partial(self._forget_reader, reader)

    def _since(self, cursor: Cursor | None, gateway: str | None) -> PollReply:
        if gateway is None:
            return self._hub.since(cursor, self._shown)
        reply = self._hub.since(cursor, self._shown, self._interests.wanted(gateway))
        wants_all = self._interests.wants_all(gateway)
        return replace(reply, wants_all=wants_all) if wants_all else reply

    def _serve(self, reader: "_Reader") -> None:
        self._forget_reader(reader)
        reader.answer(self._since(reader.cursor, reader.gateway))

    def _serve_news(self, reader: "_Reader") -> None:
        """Answer a reader if there is something for it; else it waits on, past what is for others."""
        reply = self._since(reader.cursor, reader.gateway)
        if reply.publications or reply.gap:
            self._forget_reader(reader)
            reader.answer(reply)
        else:
            reader.cursor = reply.cursor

    def _forget_reader(self, reader: "_Reader") -> None:
        timer = self._readers.pop(reader, None)
        if timer is not None:
            timer.cancel()

    def history(
        self, channel: str, since: StreamPosition | None, limit: int, asker: Asker | None = None
    ) -> HistoryReply:
        """See ``Hub.history``; from here on ``asker`` gets what the channel gets."""
        self._will_follow(asker, (channel,))
        reply = self._hub.history(channel, since, limit)
        self._news.set()  # a channel that came into being has a mark to journal
        return reply

    def positions(self, channels: Sequence[str], asker: Asker | None = None) -> dict[str, StreamPosition]:
        """See ``Hub.positions``; from here on ``asker`` gets what the channels get."""
        self._will_follow(asker, channels)
        found = self._hub.positions(channels)
        self._news.set()
        return found

    def _will_follow(self, asker: Asker | None, channels: Sequence[str]) -> None:
        if asker is not None:
            self._interests.follow(asker, channels, self._clock.monotonic_s())

    def remove_history(self, channel: str) -> StreamPosition:
        """See ``Hub.remove_history``."""
        position = self._hub.remove_history(channel)
        self._news.set()
        return position

    # -- presence ----------------------------------------------------------------------

    def report(self, report: Report) -> bool:
        """Take a gateway's report of its members; False: unknown, it must tell everything again."""
        changes = self._presence.report(report, self._clock.monotonic_s())
        if changes is None:
            return False
        self._announce(changes)
        return True

    def presence(self, channel: str, limit: int) -> PresenceReply:
        """See ``Presence.members``."""
        return self._presence.members(channel, limit)

    def present_channels(self, pattern: str, limit: int) -> dict[str, int]:
        """See ``Presence.channels``."""
        return self._presence.channels(pattern, limit)

    def gateways(self) -> tuple[GatewayFigures, ...]:
        """See ``Presence.gateways``."""
        return self._presence.gateways()

    def _announce(self, changes: Changes) -> None:
        # Nobody waits for the journal here: who comes and goes is told once, and never recovered.
        drafts = [Draft(GATEWAY_ALL, notices.write(part)) for part in notices.changes_in_parts(changes)]
        if drafts:
            self._hub.publish(drafts)
            self._write_soon()

    def stats(self) -> HubStats:
        """Return figures; cheap."""
        hub = self._hub
        return HubStats(
            epoch=hub.epoch,
            started_at_s=self._started_at_s,
            channels=hub.num_channels,
            publications_total=sum(hub.publications.values()),
            duplicates_total=hub.duplicates.total(),
            coalesced_total=hub.coalesced_total,
            channels_evicted_total=hub.channels_evicted_total,
            history_bytes=hub.history_bytes,
            log_size=hub.log_size,
            pollers=len(self._readers),
            journal=self._health,
            journal_lag=0 if self._journal is None else hub.journal_lag,
            publications_by_class=dict(hub.publications),
            presence_members=self._presence.num_members,
            presence_refused_total=self._presence.refused_total,
        )

    def books(self) -> dict[str, Book]:
        """See ``Hub.books``."""
        return self._hub.books()

    # -- writing -----------------------------------------------------------------------

    def _write_soon(self) -> None:
        """Give the journal what was just published: in this turn of the loop if nothing is in its way."""
        journal = self._journal
        if (
            journal is None
            or self._health is not JournalHealth.OK
            or self._is_writing
            or self._under_way.full()
            or not journal.is_clear
            or self._hub.has_outrun_journal
        ):
            self._news.set()
            if self._is_stalled:
                self._show(self._hub.top)
            return
        if self._hub.top == self._hub.taken_seq + 1:
            self._show(self._hub.top)  # one, which is sure to be in the record
        record = self._hub.next_record(RECORD_ENTRIES, RECORD_BYTES)
        if record is not None:
            # Readers first: the journal's part of this turn is as long as all before it.
            self._show(record.log_mark.top)
            self._under_way.put_nowait((record, journal.append_at_once(record)))
            if record.log_mark.top < self._hub.top:
                self._news.set()  # more than fits into one record

    async def _write_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._journal is None or self._health is not JournalHealth.OK:
                self._show(self._hub.top)
                continue
            self._is_writing = True
            try:
                await self._write_news(self._journal)
            except Exception as error:
                await self._face(self._journal, error)
            finally:
                self._is_writing = False

    async def _write_news(self, journal: Journal) -> None:
        while self._health is JournalHealth.OK:
            if self._hub.has_outrun_journal:
                raise JournalUnavailableError("append", "publications left the log before it took them")
            record = self._hub.next_record(RECORD_ENTRIES, RECORD_BYTES)
            if record is None:
                return
            async with asyncio.timeout(self._settings.journal_timeout_s):
                stored = await journal.append(record)
            self._show(record.log_mark.top)
            stall = asyncio.get_running_loop().call_later(READERS_WAIT_S, self._begin_stall)
            try:
                await self._under_way.put((record, stored))
            finally:
                stall.cancel()
                self._is_stalled = False

    def _begin_stall(self) -> None:
        self._is_stalled = True
        self._show(self._hub.top)

    async def _settle_forever(self) -> None:
        while True:
            record, stored = await self._under_way.get()
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the answer,
                # and `close` would wait for this task for ever.
                async with asyncio.timeout(self._settings.journal_timeout_s):
                    await asyncio.shield(stored)
            except Exception as error:
                assert self._journal is not None
                await self._face(self._journal, error)
            else:
                self._confirm([record])

    async def _write_rest(self, journal: Journal) -> None:
        stored = []
        while not self._under_way.empty():
            stored.append(self._under_way.get_nowait()[1])
        while (record := self._hub.next_record(RECORD_ENTRIES, RECORD_BYTES)) is not None:
            stored.append(await journal.append(record))
        await asyncio.wait_for(asyncio.gather(*stored), self._settings.journal_timeout_s)

    async def _face(self, journal: Journal, error: Exception) -> None:
        if isinstance(error, FencedError):
            await self._end(error)
        elif isinstance(error, JournalUnavailableError | JournalLostError | TimeoutError):
            await self._lose_journal(journal, str(error) or "no answer in time")
        else:
            raise error

    async def _confirmed(self, seq: int) -> None:
        if self._hub.journalled_seq >= seq:
            return
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._confirmations.append((seq, partial(_resolve, confirmed, None)))
        await confirmed

    def _confirm(self, records: Sequence[JournalRecord]) -> None:
        for record in records:
            self._hub.confirm(record)
        self._release_publishers(self._hub.journalled_seq)

    def _release_publishers(self, seq: int) -> None:
        while self._confirmations and self._confirmations[0][0] <= seq:
            self._confirmations.popleft()[1]()

    def _show(self, seq: int) -> None:
        if seq > self._shown:
            self._shown = seq
            for reader in list(self._readers):
                self._serve_news(reader)

    # -- the journal comes and goes ----------------------------------------------------

    async def _begin_with(self, journal: Journal) -> None:
        try:
            state = await self._remembered(journal)
            if state is not None and await self._is_trusted(state):
                self._hub.resume(state)
                self._shown = self._hub.top
            await self._rewrite(journal)
        except (JournalUnavailableError, TimeoutError) as error:
            # What was loaded cannot be continued unless its new reservations are stored.
            self._hub = Hub(self._settings, self._clock)
            self._shown = self._hub.top
            await self._go_on_without(journal, str(error) or "no answer in time")

    async def _remembered(self, journal: Journal) -> JournalState | None:
        try:
            return await journal.open()
        except UnreadablePayloadError as error:
            logger.warning("a new epoch begins: %s", error)
            return None

    async def _is_trusted(self, state: JournalState) -> bool:
        if state.owner != self._owner:
            # The marker of that machine cannot be seen from here.
            logger.warning("the journal is of machine %s: a new epoch begins", state.owner)
            return False
        if await asyncio.to_thread(self._marker.is_set):
            logger.warning("the last hub went on without its journal: a new epoch begins")
            return False
        return True

    async def _lose_journal(self, journal: Journal, reason: str) -> None:
        # Readers do not wait for the marker, publishers do: what they are told next would
        # be a lie to a hub that trusted the journal.
        self._show(self._hub.top)
        async with self._health_lock:
            # Writer and settler may both have met the same failure.
            if self._health is JournalHealth.OK:
                await self._go_on_without(journal, reason)

    async def _go_on_without(self, journal: Journal, reason: str) -> None:
        try:
            await asyncio.to_thread(self._marker.set)
        except OSError:
            logger.exception("the marker cannot be written; a hub restarted now would trust its journal")
        self._health = JournalHealth.AWAY
        logger.warning("journal away, broadcasting goes on from memory: %s", reason)
        while not self._under_way.empty():
            # Whatever becomes of them: the whole memory is written when the journal is back.
            _, stored = self._under_way.get_nowait()
            stored.add_done_callback(_heard)
        self._release_publishers(self._hub.top)
        self._show(self._hub.top)
        self._spawn(self._regain_journal(journal), "hub-regain-journal")

    async def _regain_journal(self, journal: Journal) -> None:
        while self._health is JournalHealth.AWAY:
            await asyncio.sleep(self._settings.journal_retry_s * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                await self._rewrite(journal)
            except (JournalUnavailableError, TimeoutError) as error:
                logger.debug("journal still away: %s", error)
            except FencedError as error:
                await self._end(error)
                return
        logger.info("journal is back and holds everything again")

    async def _rewrite(self, journal: Journal) -> None:
        records = self._hub.snapshot()
        async with asyncio.timeout(REWRITE_TIMEOUT_S):
            await journal.rewrite(records)
        self._confirm(records)
        # From here on publishers wait for the journal again. What was confirmed without it
        # meanwhile still has to follow before the marker may go.
        self._health = JournalHealth.OK
        promised = self._hub.top
        self._news.set()
        await self._confirmed(promised)
        async with self._health_lock:
            if self._health is JournalHealth.OK:
                await asyncio.to_thread(self._marker.clear)

    async def _end(self, error: FencedError) -> None:
        logger.error("hub ends: %s", error)
        self.is_fenced.set()
        await asyncio.Event().wait()

    # -- housekeeping ------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            self._hub.sweep()
            self._announce(self._presence.expire(self._clock.monotonic_s()))
            self._interests.expire(self._clock.monotonic_s())
            self._news.set()

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Only a bug gets here. A hub without its writer would hang silently.
            logger.error("task %s of the hub failed", task.get_name(), exc_info=task.exception())
            self.is_fenced.set()


class _Reader:
    """A poll that waits."""

    __slots__ = ("answer", "cursor", "gateway")

    def __init__(self, cursor: Cursor, answer: Callable[[PollReply], None], gateway: str | None) -> None:
        self.cursor = cursor
        self.answer = answer
        self.gateway = gateway


def _nothing() -> None:
    """The poll was answered already."""


def _resolve(future: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _heard(stored: Stored) -> None:
    # An error that nobody asks a future for is logged when the future goes.
    if not stored.cancelled():
        stored.exception()
