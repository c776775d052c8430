"""The hub's log: the last publications of all channels, in the order of publishing.

A ring for readers that follow everything (the gateways) and for the journal. Pure state,
no clock. Invariant: a reader is told of a gap whenever something after its cursor has
left the ring, or may have been lost with an earlier process.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from realtime.books import Label, label_of
from realtime.publication import Publication
from realtime.recovery import LostRange, Mark, can_recover, resumed
from realtime.replies import Cursor
from realtime.stream import Entry

SEQ_BLOCK = 1 << 40
"""Sequence numbers reserved per life of the process; never used up in practice."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader gets from the log."""

    publications: tuple[Publication, ...]
    seq: int
    """Where the reader stands afterwards."""
    coalesced: int
    """Superseded publications passed over on the way."""


class Log:
    """Ring of entries, bounded by count and by bytes; the oldest leave first."""

    def __init__(self, size: int, max_bytes: int, epoch: str) -> None:
        self._size = size
        self._max_bytes = max_bytes
        # Slot of an entry is its place in the order of arrival, modulo the size; numbers
        # jump at a restart, so a number is found by bisection.
        self._slots: list[Entry | None] = [None] * size
        self._head = 0
        self._tail = 0
        self._num_bytes = 0
        self._epoch = epoch
        self._floor = 0
        self._top = 0
        self._end = SEQ_BLOCK
        self._lost: tuple[LostRange, ...] = ()
        self.resumed: Counter[Label] = Counter()
        """Taken over from a lost process, by class."""
        self.aged_out: Counter[Label] = Counter()
        """Left because newer ones needed the room."""
        self.coalesced: Counter[Label] = Counter()
        """Superseded while they were here; they still take room, but no reader gets them."""
        self.held: Counter[Label] = Counter()
        """What a reader could still get."""

    def resume(self, mark: Mark, entries: Sequence[Entry]) -> None:
        """Take over what a lost process has journalled, and go on above what it may have used."""
        held = [entry for entry in entries if mark.floor < entry.seq <= mark.top]
        self._floor = held[0].seq - 1 if held else mark.top
        for entry in held:
            self.resumed[label_of(entry.publication)] += 1
            self._put(entry)
        mark = resumed(replace(mark, floor=self._floor), SEQ_BLOCK)
        self._epoch, self._floor, self._top, self._end, self._lost = (
            mark.epoch, mark.floor, mark.top, mark.end, mark.lost,
        )  # fmt: skip

    def __len__(self) -> int:
        return self._tail - self._head

    @property
    def mark(self) -> Mark:
        """Life and bounds of the log, as the journal remembers them."""
        return Mark(self._epoch, self._floor, self._top, self._end, self._lost)

    @property
    def top(self) -> int:
        """Sequence number of the newest entry."""
        return self._top

    @property
    def floor(self) -> int:
        """Sequence number of the newest entry that has left; all held ones are above it."""
        return self._floor

    def cursor(self, seq: int) -> Cursor:
        """Return the cursor of a reader that has seen everything up to ``seq``."""
        return Cursor(self._epoch, seq)

    def can_follow(self, cursor: Cursor) -> bool:
        """Return whether nothing after ``cursor`` is missing."""
        return can_recover(self.mark, cursor.hub_epoch, cursor.seq)

    def append(self, entry: Entry) -> None:
        """Hold ``entry``, whose number is ``top`` + 1."""
        assert entry.seq == self._top + 1
        self._top = entry.seq
        self._put(entry)

    def supersede(self, entry: Entry) -> None:
        """Note that a newer one has taken the place of ``entry``, if that is still here."""
        if entry.seq > self._floor:
            label = label_of(entry.publication)
            self.coalesced[label] += 1
            self.held[label] -= 1

    def read(
        self, after: int, until: int, max_count: int, max_bytes: int, wanted: Container[str] | None = None
    ) -> Reading:
        """Return publications after ``after`` up to ``until``; at least one if there is one.

        Args:
            after: sequence number up to which the reader has everything.
            until: sequence number up to which it may have.
            max_count: publications at most.
            max_bytes: bytes of payload at most, but for a single publication.
            wanted: the only channels that it follows; None: all.
        """
        publications: list[Publication] = []
        seq, coalesced, num_bytes = after, 0, 0
        for place in range(self._place_after(after), self._tail):
            entry = self._slot(place)
            if entry.seq > until or len(publications) >= max_count:
                return Reading(tuple(publications), seq, coalesced)
            if wanted is not None and entry.publication.channel not in wanted:
                pass  # for others
            elif entry.is_superseded:
                coalesced += 1
            else:
                num_bytes += len(entry.publication.data)
                if publications and num_bytes > max_bytes:
                    return Reading(tuple(publications), seq, coalesced)
                publications.append(entry.publication)
            seq = entry.seq
        return Reading(tuple(publications), max(seq, until), coalesced)

    def entries(self, after: int, max_count: int, max_bytes: int) -> tuple[Entry, ...]:
        """Return held entries after ``after``, superseded ones included; at least one if there is one."""
        found: list[Entry] = []
        num_bytes = 0
        for place in range(self._place_after(after), min(self._tail, self._place_after(after) + max_count)):
            entry = self._slot(place)
            num_bytes += len(entry.publication.data)
            if found and num_bytes > max_bytes:
                break
            found.append(entry)
        return tuple(found)

    def _put(self, entry: Entry) -> None:
        while self._tail > self._head and (
            self._tail - self._head >= self._size or self._num_bytes + len(entry.publication.data) > self._max_bytes
        ):
            oldest = self._slot(self._head)
            self._slots[self._head % self._size] = None
            self._head += 1
            self._num_bytes -= len(oldest.publication.data)
            self._floor = oldest.seq
            if not oldest.is_superseded:
                label = label_of(oldest.publication)
                self.aged_out[label] += 1
                self.held[label] -= 1
        self.held[label_of(entry.publication)] += 1
        self._slots[self._tail % self._size] = entry
        self._tail += 1
        self._num_bytes += len(entry.publication.data)

    def _place_after(self, seq: int) -> int:
        # Almost always asked of the end, and numbers jump at a restart only: count back from the top.
        place = self._tail - (self._top - seq)
        if self._head < place <= self._tail and self._slot(place - 1).seq == seq:
            return place
        places = range(self._head, self._tail)
        return self._head + bisect_right(places, seq, key=lambda place: self._slot(place).seq)

    def _slot(self, place: int) -> Entry:
        entry = self._slots[place % self._size]
        assert entry is not None
        return entry
