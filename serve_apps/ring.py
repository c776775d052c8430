"""Recent publications of one channel on one replica, encoded once for all its connections.

Pure state: no I/O, no clock, no locks -- the event loop serialises access. A connection
holds no copy, only the offset it has reached.
Invariant: the ring holds every publication of its epoch above ``floor`` and up to ``top``
(offsets may skip), so who stands below ``floor`` has fallen behind, and who takes chunk
after chunk misses nothing -- but what a newer publication of its coalesce key has
superseded before it was sent.
"""

from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from realtime.publication import Priority, Publication, StreamPosition
from serve_apps.frames import push_prefix, push_publication, unwrap
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.ledger import Ledger, unit
from serve_apps.outgoing import Frame, Part

RANKS = {priority: rank for rank, priority in enumerate(Priority)}
"""Priority classes as numbers, most urgent first."""

COMPACT_AFTER = 1024

Follower = TypeVar("Follower")


class Append(Enum):
    """What became of a publication."""

    ADDED = auto()
    DUPLICATE = auto()
    OTHER_EPOCH = auto()
    """The stream began a new life; the publication was not added, the channel must be resynchronised."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Publications in a row, joined into one frame or a part of one."""

    frame: Frame
    num_lines: int
    last_offset: int
    tally: int
    """What it passes, by class (see ``ledger``)."""
    coalesced: int
    """The part of ``tally`` that is left out, because something newer took its place."""


class _Item(NamedTuple):
    line: bytes
    data_bytes: int
    priority: Priority
    time_ms: int
    arrived_s: float
    info: bytes
    coalesce_key: str | None


class ChannelRing(Generic[Follower]):
    """One channel's recent publications and the connections that follow it."""

    def __init__(self, channel: str, kind: str, settings: GatewaySettings, ledger: Ledger | None = None) -> None:
        self.channel = channel
        self.kind = kind
        self.followers: set[Follower] = set()
        self.pins = 0
        """Attachments under way, which keep the ring alive without a follower."""
        self.epoch: str | None = None
        """None until the hub or a publication said it."""
        self.num_bytes = 0
        self.floor = 0
        self.top: int | None = None
        """Offset of the newest publication; None until it is known."""
        self.total = 0
        """Tally of all that was ever appended, whatever of it is still here."""
        self._settings = settings
        self._ledger = ledger or Ledger()
        self._units = {priority: unit(kind, priority) for priority in Priority}
        self._prefix = push_prefix(channel)
        self._floor_is_guess = False
        # Two lists and a start, because a deque cannot be searched by halves.
        self._offsets: list[int] = []
        self._items: list[_Item] = []
        self._start = 0
        self._chunks: dict[tuple[int, bool], Chunk] = {}
        self._latest: dict[str, int] = {}  # coalesce key -> offset of its newest publication here

    @property
    def is_idle(self) -> bool:
        """True when nobody follows the channel or is about to."""
        return not self.followers and not self.pins

    @property
    def position(self) -> StreamPosition | None:
        """Where the ring ends; None until that is known."""
        if self.epoch is None or self.top is None:
            return None
        return StreamPosition(epoch=self.epoch, offset=self.top)

    def start(self, position: StreamPosition) -> None:
        """Take the channel's position, which the hub gave after this ring began to be fed.

        Publications may have come in before that answer. None between it and them was
        missed, whatever their offsets, so the floor below the first of them moves down to
        it. A floor that came from another answer of the hub stays where it is: what lies
        between two answers was never here.
        """
        if self.top is None:
            self.epoch, self.top, self.floor = position.epoch, position.offset, position.offset
        elif self._floor_is_guess:
            self.floor = min(self.floor, position.offset)

    def reset(self, position: StreamPosition) -> None:
        """Begin again at ``position``: the stream's life ended, or publications were lost."""
        self.forget()
        self.start(position)

    def forget(self) -> None:
        """Drop everything, the position too; the next answer of the hub gives one."""
        self._offsets.clear()
        self._items.clear()
        self._chunks.clear()
        self._latest.clear()
        self._start = self.num_bytes = self.floor = 0
        self._floor_is_guess = False
        self.epoch = self.top = None

    def append(self, publication: Publication, now_s: float) -> Append:
        """Add the next publication, which arrived at ``now_s`` (monotonic seconds)."""
        if self.top is None:
            self.epoch, self.floor, self._floor_is_guess = publication.epoch, publication.offset - 1, True
        elif publication.epoch != self.epoch:
            return Append.OTHER_EPOCH
        elif publication.offset <= self.top:
            return Append.DUPLICATE
        line = push_publication(self._prefix, publication)
        self._offsets.append(publication.offset)
        key = publication.coalesce_key
        self._items.append(
            _Item(line, len(publication.data), publication.priority, publication.time_ms, now_s, publication.info, key)
        )
        if key is not None:
            self._latest[key] = publication.offset
        self.top = publication.offset
        self.num_bytes += len(line)
        counted = self._units[publication.priority]
        self.total += counted
        self._ledger.owed += counted * len(self.followers)
        self._chunks.clear()
        while len(self) > self._settings.ring_items or self.num_bytes > self._settings.ring_bytes:
            self._drop_oldest()
        return Append.ADDED

    def drop_older(self, than_s: float) -> None:
        """Drop publications that arrived before ``than_s`` (monotonic seconds).

        By arrival, not by the hub's time: another node's clock may be off by more than a ring's age.
        """
        while len(self) and self._items[self._start].arrived_s < than_s:
            self._drop_oldest()

    def shrink(self, to_bytes: int) -> None:
        """Drop the oldest publications until at most ``to_bytes`` are held."""
        while len(self) and self.num_bytes > to_bytes:
            self._drop_oldest()

    def covers(self, position: StreamPosition) -> bool:
        """Tell whether everything after ``position`` up to the top is here."""
        return self.top is not None and position.epoch == self.epoch and self.floor <= position.offset <= self.top

    def after(self, offset: int) -> tuple[Publication, ...]:
        """Return the publications above ``offset``."""
        first = self._index_after(offset)
        return tuple(
            self._publication(offset, item)
            for offset, item in zip(self._offsets[first:], self._items[first:], strict=True)
            if not self._is_superseded(offset, item)
        )

    def tally_after(self, offset: int) -> int:
        """Return the tally of everything above ``offset``, which is not below the floor."""
        return sum(self._units[item.priority] for item in self._items[self._index_after(offset) :])

    def has_after(self, offset: int) -> bool:
        """Tell whether there is anything to send to who has reached ``offset``."""
        return self.top is not None and offset < self.top

    def chunk(self, after: int, *, unidirectional: bool) -> Chunk | None:
        """Return what comes after offset ``after``; None when the ring no longer has it.

        The same object for every connection at the same place, so that a publication is
        joined and framed once, however many receive it. ``has_after`` is assumed.
        """
        if after < self.floor:
            return None
        key = (after, unidirectional)
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = self._chunks[key] = self._join(self._index_after(after), unidirectional)
        return chunk

    def __len__(self) -> int:
        return len(self._items) - self._start

    def _join(self, first: int, unidirectional: bool) -> Chunk:
        lines: list[bytes] = []
        num_bytes, tally, coalesced, oldest_ms, place = -1, 0, 0, 0, first
        # The newest is never superseded, so a chunk is never empty.
        while place < len(self._items) and len(lines) < self._settings.frame_lines:
            item = self._items[place]
            if self._is_superseded(self._offsets[place], item):
                coalesced += self._units[item.priority]
            else:
                text = unwrap(item.line) if unidirectional else item.line
                if lines and num_bytes + len(text) + 1 > self._settings.frame_bytes:
                    break
                oldest_ms = oldest_ms or item.time_ms
                lines.append(text)
                num_bytes += len(text) + 1
            tally += self._units[item.priority]
            place += 1
        part = Part(self.kind, len(lines), oldest_ms)
        return Chunk(Frame(b"\n".join(lines), (part,)), len(lines), self._offsets[place - 1], tally, coalesced)

    def _is_superseded(self, offset: int, item: _Item) -> bool:
        return item.coalesce_key is not None and self._latest[item.coalesce_key] > offset

    def _publication(self, offset: int, item: "_Item") -> Publication:
        # Cut out of its line: the payload is not kept twice.
        data = item.line[len(self._prefix) : len(self._prefix) + item.data_bytes]
        return Publication(
            self.channel, offset, data, item.priority, item.time_ms, self.epoch or "", item.info, item.coalesce_key
        )

    def _index_after(self, offset: int) -> int:
        return bisect_right(self._offsets, offset, lo=self._start)

    def _drop_oldest(self) -> None:
        self.floor = self._offsets[self._start]
        oldest = self._items[self._start]
        self.num_bytes -= len(oldest.line)
        if oldest.coalesce_key is not None and self._latest[oldest.coalesce_key] == self.floor:
            del self._latest[oldest.coalesce_key]
        self._start += 1
        self._floor_is_guess = False
        self._chunks.clear()
        if self._start >= COMPACT_AFTER and self._start * 2 >= len(self._items):
            del self._offsets[: self._start], self._items[: self._start]
            self._start = 0
