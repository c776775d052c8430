"""State machine: whatever happens in whatever order, no reader is told a lie.

Publishers, two kinds of readers, a journal and a hub that is killed at any step. What is
checked after each step: an (epoch, offset) of a channel names one publication for ever; a
reader that is told "recovered", or "no gap", has every confirmed publication since it was
last complete, each once and in order, except those whose coalesce key came again.
"""

from dataclasses import dataclass, field

from fakes_cluster import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from realtime.hub import Hub
from realtime.journal import JournalRecord, JournalState
from realtime.journal_memory import MemoryStore
from realtime.publication import Draft, Priority, Publication, StreamPosition
from realtime.replies import Cursor
from realtime.settings import HubSettings

CHANNELS = ["noc:all", "user:1"]
SETTINGS = HubSettings(
    history_size=6, history_ttl_s=60.0, log_size=4, offset_block=6, max_channels=2, reply_max_publications=3
)


@dataclass
class Sent:
    """One draft, as its publisher knows it."""

    draft: Draft
    batch: str
    seq: int | None = None
    """The hub confirms once its journal has everything up to this number; None: nobody waits for that."""
    is_confirmed: bool = False


@dataclass
class Reader:
    """Someone who follows one channel by its positions."""

    channel: str
    position: StreamPosition | None = None
    seen: set[bytes] = field(default_factory=set)
    complete_at: int = 0
    """Number of confirmations at the time when this reader last was complete."""


class HubMachine(RuleBasedStateMachine):
    """One hub after the other over one journal."""

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.sent: list[Sent] = []
        self.confirmed: list[Draft] = []
        self.names: dict[tuple[str, str, int], bytes] = {}
        self.living: set[bytes] = set()
        self.readers = [Reader(channel) for _ in range(2) for channel in CHANNELS]
        self.cursor: Cursor | None = None
        self.polled: set[bytes] = set()
        self.poll_complete_at = 0
        self.hub = Hub(SETTINGS, self.clock)
        self.hub.positions(CHANNELS)
        self._snapshot()

    # -- publishers --------------------------------------------------------------------

    @rule(
        channel=st.sampled_from(CHANNELS),
        count=st.integers(1, 3),
        coalesce_key=st.sampled_from([None, None, "bar"]),
    )
    def publish(self, channel: str, count: int, coalesce_key: str | None) -> None:
        batch = f"batch-{len(self.sent)}"
        drafts = [
            Draft(channel, b"%d" % (len(self.sent) + index), Priority.NORMAL, None, coalesce_key)
            for index in range(count)
        ]
        self._name(drafts, self.hub.publish(drafts, batch))
        self.sent += [Sent(draft, batch, self.hub.top) for draft in drafts]
        self.living |= {draft.data for draft in drafts}

    # -- the journal and the killer ----------------------------------------------------

    @rule(count=st.integers(1, 4))
    def journal(self, count: int) -> None:
        if self.hub.has_outrun_journal:
            self._snapshot()
            return
        record = self.hub.next_record(count, 1000)
        if record is not None:
            self.store.apply(record)
            self._confirm([record])

    @rule(reaches_journal=st.booleans(), count=st.integers(1, 4), publishers_repeat=st.booleans())
    def kill(self, reaches_journal: bool, count: int, publishers_repeat: bool) -> None:
        record = None if self.hub.has_outrun_journal else self.hub.next_record(count, 1000)
        if record is not None and reaches_journal:
            self.store.apply(record)
        failed = [sent for sent in self.sent if sent.seq is not None and not sent.is_confirmed]
        for sent in failed:
            sent.seq = None
        self._restart()
        if publishers_repeat:
            self._repeat(failed)

    @rule(seconds=st.sampled_from([1.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.hub.sweep()

    # -- readers -----------------------------------------------------------------------

    @rule(lazy_too=st.booleans())
    def read(self, lazy_too: bool) -> None:
        # Eager readers see what is not journalled yet, lazy ones fall far behind.
        for reader in self.readers if lazy_too else self.readers[:2]:
            self._read(reader)

    def _read(self, reader: Reader) -> None:
        reply = self.hub.history(reader.channel, reader.position, limit=100)
        if reader.position is not None and reply.recovered:
            self._see(reader, reply.publications, reader.position)
            self._assert_complete(reader.channel, reader.seen, reader.complete_at)
        else:
            reader.seen = set(self.living)  # it loads fresh state
        reader.position = reply.position
        reader.complete_at = len(self.confirmed)

    @precondition(lambda self: self.cursor is None)
    @rule()
    def begin_to_poll(self) -> None:
        self.cursor = self.hub.since(None, self.hub.top).cursor
        self.polled = set(self.living)
        self.poll_complete_at = len(self.confirmed)

    @precondition(lambda self: self.cursor is not None)
    @rule()
    def poll_until_all_is_read(self) -> None:
        while True:
            reply = self.hub.since(self.cursor, self.hub.top)
            self.cursor = reply.cursor
            if reply.gap:
                self.polled = set(self.living)  # it reads each channel again
                break
            for publication in reply.publications:
                self._check_name(publication)
                assert publication.data not in self.polled, "delivered twice"
                self.polled.add(publication.data)
            if not reply.publications:
                for channel in CHANNELS:
                    self._assert_complete(channel, self.polled, self.poll_complete_at)
                break
        self.poll_complete_at = len(self.confirmed)

    # -- what must hold ----------------------------------------------------------------

    def _see(self, reader: Reader, publications: tuple[Publication, ...], position: StreamPosition) -> None:
        offset = position.offset
        for publication in publications:
            self._check_name(publication)
            assert publication.epoch == position.epoch
            assert publication.offset > offset
            offset = publication.offset
            assert publication.data not in reader.seen, "delivered twice"
            reader.seen.add(publication.data)

    def _assert_complete(self, channel: str, seen: set[bytes], complete_at: int) -> None:
        latest = {sent.draft.coalesce_key: sent.draft.data for sent in self.sent if sent.draft.channel == channel}
        for draft in self.confirmed[complete_at:]:
            if draft.channel != channel or draft.data in seen:
                continue
            assert draft.coalesce_key is not None, f"{draft.data!r} was confirmed and is missing"
            assert draft.data != latest[draft.coalesce_key], f"the last value {draft.data!r} of a bar is missing"

    def _name(self, drafts: list[Draft], positions: list[StreamPosition]) -> None:
        for draft, position in zip(drafts, positions, strict=True):
            key = (draft.channel, position.epoch, position.offset)
            assert self.names.setdefault(key, draft.data) == draft.data, f"{key} was used twice"

    def _check_name(self, publication: Publication) -> None:
        key = (publication.channel, publication.epoch, publication.offset)
        assert self.names.setdefault(key, publication.data) == publication.data, f"{key} was used twice"

    @invariant()
    def the_books_balance(self) -> None:
        # Before the first step there is no hub.
        books = self.hub.books() if hasattr(self, "hub") else {}
        assert [book.imbalance() for book in books.values()] == [{}] * len(books)

    # -- doing it ----------------------------------------------------------------------

    def _repeat(self, failed: list[Sent]) -> None:
        # A call is repeated whole, although a part of it may have been confirmed by now:
        # its name tells the hub which drafts it has.
        for batch in dict.fromkeys(sent.batch for sent in failed):
            sents = [sent for sent in self.sent if sent.batch == batch]
            self._name([sent.draft for sent in sents], self.hub.publish([sent.draft for sent in sents], batch))
            self.living |= {sent.draft.data for sent in sents}
            for sent in sents:
                sent.seq = self.hub.top
        # What the journal had is confirmed by this answer, and not repeated once it has left the log.
        self._confirm([])

    def _confirm(self, records: list[JournalRecord]) -> None:
        for record in records:
            self.hub.confirm(record)
        for sent in self.sent:
            if not sent.is_confirmed and sent.seq is not None and sent.seq <= self.hub.journalled_seq:
                sent.is_confirmed = True
                self.confirmed.append(sent.draft)

    def _snapshot(self) -> None:
        records = self.hub.snapshot()
        self.store.entries, self.store.marks = {}, {}
        for record in records:
            self.store.apply(record)
        self._confirm(records)

    def _restart(self) -> None:
        assert self.store.log_mark is not None
        entries = tuple(self.store.entries[seq] for seq in sorted(self.store.entries))
        state = JournalState("here", self.store.log_mark, entries, dict(self.store.marks))
        self.living = {entry.publication.data for entry in entries}
        self.hub = Hub(SETTINGS, self.clock)
        self.hub.resume(state)
        records = self.hub.snapshot()
        self.store.entries, self.store.marks = {}, {}
        for record in records:
            self.store.apply(record)
        for record in records:
            self.hub.confirm(record)


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
