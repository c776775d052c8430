"""The hub: every channel's stream, the log of them all, and what the journal must know.

Pure state behind the hub's actor: no I/O, no Ray, no locks; the clock is passed in.
Invariants: no (epoch, offset) is used twice, in this process or a later one; a draft with
a known key or batch place is not published again; memory is bounded whatever is published.
"""

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Sequence

from cluster.clock import Clock
from realtime.books import Book, Label, label_of
from realtime.channels import kind_of
from realtime.idempotency import IdempotencyWindow
from realtime.journal import JournalRecord, JournalState
from realtime.log import Log
from realtime.publication import Draft, StreamPosition
from realtime.recovery import Mark
from realtime.replies import Cursor, HistoryReply, PollReply
from realtime.settings import HubSettings
from realtime.stream import Entry, Stream

BATCH_TTL_S = 60.0
"""Time for which a repeated publish call is recognised; clients give up long before."""
RECORD_MARKS = 1_000
"""Marks in one journal record; Valkey runs a script for one such record in a few ms."""


def new_epoch() -> str:
    """Return the name of a new life of a stream."""
    return secrets.token_hex(4)


class Hub:
    """All channels of a floor."""

    def __init__(self, settings: HubSettings, clock: Clock, new_epoch: Callable[[], str] = new_epoch) -> None:
        self._settings = settings
        self._clock = clock
        self._new_epoch = new_epoch
        self._log = Log(settings.log_size, settings.log_max_bytes, new_epoch())
        # Streams with history, by last publication, and streams without, by last use: the
        # front of each is what expires or is forgotten next.
        self._active: OrderedDict[str, Stream] = OrderedDict()
        self._idle: OrderedDict[str, Stream] = OrderedDict()
        self._keys = IdempotencyWindow(settings.idempotency_size, settings.idempotency_ttl_s)
        self._batches = IdempotencyWindow(settings.idempotency_size, BATCH_TTL_S)
        self._taken_seq = 0
        self._journalled_seq = 0
        self._unmarked: set[str] = set()
        self._forgotten: set[str] = set()
        self._history_bytes = 0
        self.drafts: Counter[Label] = Counter()
        """What was handed in; each became a publication or was a duplicate."""
        self.publications: Counter[Label] = Counter()
        self.duplicates: Counter[Label] = Counter()
        self.channels_evicted_total = 0

    # -- publishing --------------------------------------------------------------------

    def publish(self, drafts: Sequence[Draft], batch: str = "") -> list[StreamPosition]:
        """Append ``drafts`` in order and return their positions.

        Args:
            drafts: what to publish.
            batch: name of this call; a repeated call of the same name and drafts appends
                only what the first one did not. Empty: not to be repeated.
        """
        now_s = self._clock.monotonic_s()
        time_ms = int(self._clock.time_s() * 1000)
        positions = []
        for index, draft in enumerate(drafts):
            label = label_of(draft)
            self.drafts[label] += 1
            position = self._known(draft, batch, index, now_s)
            if position is None:
                position = self._append(draft, batch, index, now_s, time_ms)
                self.publications[label] += 1
            else:
                self.duplicates[label] += 1
            positions.append(position)
        self._forget_surplus()
        return positions

    def _known(self, draft: Draft, batch: str, index: int, now_s: float) -> StreamPosition | None:
        if draft.key is not None:  # it tells a repeated call, too
            return self._keys.get((draft.channel, draft.key), now_s)
        return self._batches.get((batch, index), now_s) if batch else None

    def _append(self, draft: Draft, batch: str, index: int, now_s: float, time_ms: int) -> StreamPosition:
        stream = self._stream(draft.channel)
        before = stream.num_bytes
        entry, superseded = stream.append(draft, self._log.top + 1, batch, index, time_ms)
        if superseded is not None:
            self._log.supersede(superseded)
        self._log.append(entry)
        self._remember(entry, now_s)
        stream.last_used_s = now_s
        self._active[draft.channel] = stream
        self._active.move_to_end(draft.channel)
        self._idle.pop(draft.channel, None)
        self._history_bytes += stream.num_bytes - before
        # Beyond the common bound a channel pays with its own history, so that one that
        # floods cannot take the history of those that do not.
        while self._history_bytes > self._settings.total_max_bytes and stream.num_publications > 1:
            before = stream.num_bytes
            stream.drop_oldest()
            self._history_bytes += stream.num_bytes - before
        return entry.publication.position

    def _remember(self, entry: Entry, now_s: float) -> None:
        position = entry.publication.position
        if entry.key is not None:
            self._keys.put((entry.publication.channel, entry.key), position, now_s)
        elif entry.batch:
            self._batches.put((entry.batch, entry.index), position, now_s)

    # -- reading -----------------------------------------------------------------------

    @property
    def top(self) -> int:
        """Sequence number of the newest publication."""
        return self._log.top

    @property
    def epoch(self) -> str:
        """Life of the log."""
        return self._log.mark.epoch

    @property
    def coalesced_total(self) -> int:
        """Publications whose place a newer one took while readers could still have got them."""
        return self._log.coalesced.total()

    @property
    def num_channels(self) -> int:
        return len(self._active) + len(self._idle)

    @property
    def history_bytes(self) -> int:
        """Bytes of payload in all histories."""
        return self._history_bytes

    def books(self) -> dict[str, Book]:
        """Return the accounts of what was handed in, and of the log that gateways read; cheap."""
        log = self._log
        drafts = Book(
            taken=dict(self.drafts),
            settled={(*label, "published", ""): count for label, count in self.publications.items()}
            | {(*label, "duplicate", ""): count for label, count in self.duplicates.items()},
        )
        held = Book(
            taken=self.publications + log.resumed,
            settled={(*label, "coalesced", ""): count for label, count in log.coalesced.items()}
            | {(*label, "aged out", ""): count for label, count in log.aged_out.items()},
            open={(*label, "held"): count for label, count in log.held.items()},
        )
        return {"hub": drafts, "log": held}

    @property
    def log_size(self) -> int:
        """Publications that a lagging reader may still get."""
        return len(self._log)

    def since(self, cursor: Cursor | None, until: int, wanted: Container[str] | None = None) -> PollReply:
        """Return what the ``wanted`` channels, or all, got after ``cursor``, up to the sequence number ``until``.

        Without a cursor, or with one that cannot be followed: nothing, and the cursor to
        go on with; in the second case the reply says that there is a gap.
        """
        if cursor is None:
            return PollReply(self._log.cursor(until), (), gap=False)
        if not self._log.can_follow(cursor):
            return PollReply(self._log.cursor(until), (), gap=True)
        reading = self._log.read(
            cursor.seq, until, self._settings.reply_max_publications, self._settings.reply_max_bytes, wanted
        )
        return PollReply(self._log.cursor(reading.seq), reading.publications, gap=False, coalesced=reading.coalesced)

    def history(self, channel: str, since: StreamPosition | None, limit: int) -> HistoryReply:
        """Return the publications of ``channel`` after ``since``, or its newest ones."""
        stream = self._used(channel)
        before = stream.num_bytes
        stream.trim(int(self._clock.time_s() * 1000))
        self._history_bytes += stream.num_bytes - before
        if since is None:
            return HistoryReply(tuple(stream.newest(limit)), stream.position, recovered=False)
        found = stream.since(since, limit)
        return HistoryReply(tuple(found or ()), stream.position, recovered=found is not None)

    def remove_history(self, channel: str) -> StreamPosition:
        """Drop all that is kept of ``channel``, and return its top: earlier positions cannot be recovered."""
        stream = self._used(channel)
        self._history_bytes -= stream.num_bytes
        while stream.drop_oldest():
            pass
        # A hub that resumes from the journal must not bring it back.
        self._unmarked.add(channel)
        return stream.position

    def positions(self, channels: Sequence[str]) -> dict[str, StreamPosition]:
        """Return the top of each channel's stream."""
        return {channel: self._used(channel).position for channel in channels}

    def _used(self, channel: str) -> Stream:
        # A channel comes into being when it is read, too: a reader of a quiet channel must
        # be able to come back with a position and hear that it missed nothing.
        stream = self._stream(channel)
        if channel not in self._active:
            stream.last_used_s = self._clock.monotonic_s()
            self._idle[channel] = stream
            self._idle.move_to_end(channel)
            self._forget_surplus()
        return stream

    # -- channels come and go ----------------------------------------------------------

    def sweep(self) -> None:
        """Let histories expire and forget channels that were quiet too long; cheap, called each second."""
        now_s = self._clock.monotonic_s()
        while self._active:
            channel, stream = next(iter(self._active.items()))
            if stream.last_used_s > now_s - self._settings.history_ttl_s:
                break
            self._history_bytes -= stream.num_bytes
            while stream.drop_oldest():
                pass
            del self._active[channel]
            self._idle[channel] = stream
        while self._idle:
            channel, stream = next(iter(self._idle.items()))
            if stream.last_used_s > now_s - self._settings.channel_idle_s:
                break
            self._forget(channel, self._idle.pop(channel))

    def _stream(self, channel: str) -> Stream:
        stream = self._find(channel)
        if stream is None:
            kind_of(channel)
            stream = Stream(self._settings, self._new_epoch(), self._new_epoch)
            self._unmarked.add(channel)
            self._forgotten.discard(channel)
        return stream

    def _forget_surplus(self) -> None:
        while self.num_channels > self._settings.max_channels:
            channel, stream = (self._idle or self._active).popitem(last=False)
            self._forget(channel, stream)
            self.channels_evicted_total += 1

    def _forget(self, channel: str, stream: Stream) -> None:
        self._history_bytes -= stream.num_bytes
        self._unmarked.discard(channel)
        self._forgotten.add(channel)

    # -- the journal -------------------------------------------------------------------

    @property
    def journal_lag(self) -> int:
        """Publications that the journal has not confirmed."""
        return max(0, self._log.top - self._journalled_seq)

    @property
    def taken_seq(self) -> int:
        """Sequence number up to which ``next_record`` has given everything out."""
        return self._taken_seq

    @property
    def journalled_seq(self) -> int:
        """Sequence number up to which the journal has confirmed everything."""
        return self._journalled_seq

    def next_record(self, max_count: int, max_bytes: int) -> JournalRecord | None:
        """Return the oldest part of what the journal does not know yet; None if it knows all.

        Each record is given once. ``confirm`` them in order, or ``snapshot`` everything
        after a failure.
        """
        entries = self._log.entries(self._taken_seq, max_count, max_bytes)
        if not entries and not self._unmarked and not self._forgotten:
            return None
        tops = {entry.publication.channel: entry.publication.position for entry in entries}
        marks = {}
        for channel in [self._unmarked.pop() for _ in range(min(len(self._unmarked), RECORD_MARKS))]:
            stream = self._find(channel)
            if stream is not None:
                marks[channel] = stream.mark(stream.marked_top)
        for channel, position in tops.items():
            stream = self._find(channel)
            # A stream that was forgotten or began a new epoch meanwhile has nothing to
            # continue: entries without a mark of their epoch are dropped at a restart.
            if stream is not None and stream.position.epoch == position.epoch:
                marks[channel] = stream.mark(position.offset)
                stream.marked_top = position.offset
        forgotten = [self._forgotten.pop() for _ in range(min(len(self._forgotten), RECORD_MARKS))]
        self._taken_seq = entries[-1].seq if entries else self._taken_seq
        return JournalRecord(
            log_mark=self._log_mark(self._taken_seq),
            entries=entries,
            marks=marks,
            forgotten=tuple(forgotten),
            keep_after=self._log.floor,
        )

    def snapshot(self) -> list[JournalRecord]:
        """Return everything, as records that replace whatever the journal holds."""
        self._unmarked.clear()
        self._forgotten.clear()
        self._taken_seq = self._log.top
        log_mark = self._log_mark(self._taken_seq)
        streams = [*self._idle.items(), *self._active.items()]
        marks = []
        for channel, stream in streams:
            stream.marked_top = stream.position.offset
            marks.append((channel, stream.mark(stream.marked_top)))
        records = [
            JournalRecord(log_mark, marks=dict(marks[start : start + RECORD_MARKS]))
            for start in range(0, len(marks), RECORD_MARKS)
        ]
        after = self._log.floor
        while entries := self._log.entries(
            after, self._settings.reply_max_publications, self._settings.reply_max_bytes
        ):
            records.append(JournalRecord(log_mark, entries=entries))
            after = entries[-1].seq
        return records or [JournalRecord(log_mark)]

    def confirm(self, record: JournalRecord) -> None:
        """Note that the journal has stored ``record``."""
        self._journalled_seq = max(self._journalled_seq, record.log_mark.top)
        for channel, mark in record.marks.items():
            stream = self._find(channel)
            if stream is not None:
                stream.confirm(mark)

    @property
    def has_outrun_journal(self) -> bool:
        """True when the log lost publications before they were taken: ``snapshot`` is needed."""
        return self._log.floor > self._taken_seq or len(self._forgotten) > self._settings.max_channels

    def resume(self, state: JournalState) -> None:
        """Go on where a lost process ended. The result must be journalled before anything is published."""
        now_s = self._clock.monotonic_s()
        now_ms = int(self._clock.time_s() * 1000)
        self._log.resume(state.log_mark, state.entries)
        self._taken_seq = self._journalled_seq = self._log.top
        by_channel: dict[str, list[Entry]] = {channel: [] for channel in state.marks}
        for entry in state.entries:
            publication = entry.publication
            mark = state.marks.get(publication.channel)
            if mark is not None and mark.epoch == publication.epoch:
                by_channel[publication.channel].append(entry)
                self._remember(entry, now_s)
        for channel, entries in by_channel.items():
            stream = Stream.resume(self._settings, state.marks[channel], entries, self._new_epoch)
            stream.trim(now_ms)
            stream.last_used_s = now_s
            self._history_bytes += stream.num_bytes
            (self._active if stream.num_publications else self._idle)[channel] = stream
        for entry in state.entries:
            if entry.is_superseded:
                self._log.supersede(entry)
        self._forget_surplus()

    def _log_mark(self, top: int) -> Mark:
        mark = self._log.mark
        return Mark(mark.epoch, min(mark.floor, top), top, mark.end, mark.lost)

    def _find(self, channel: str) -> Stream | None:
        return self._active.get(channel) or self._idle.get(channel)
