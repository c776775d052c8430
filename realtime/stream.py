"""Bounded history of one channel: offsets, an epoch, and reads from a position.

Pure state: no I/O, no clock, no Ray, no locks -- the owner serialises access.
Invariant: offsets strictly increase and none is given to two publications of one epoch;
what ``since`` returns is complete, except for publications whose coalesce key came again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from realtime.publication import Draft, Publication, StreamPosition
from realtime.recovery import LostRange, Mark, can_recover, resumed
from realtime.settings import HubSettings


@dataclass(slots=True)
class Entry:
    """A publication while the hub holds it; its stream and the log share the object."""

    seq: int
    """Place in the hub's log of all channels."""
    publication: Publication
    key: str | None = None
    """Idempotency key of its draft."""
    batch: str = ""
    """Name of the publish call that brought it, with ``index`` its place therein."""
    index: int = 0
    is_superseded: bool = False
    """A newer publication with its coalesce key came; readers are spared this one."""


class Stream:
    """History of one channel."""

    def __init__(self, settings: HubSettings, epoch: str, new_epoch: Callable[[], str]) -> None:
        self._settings = settings
        self._new_epoch = new_epoch
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._latest: dict[str, int] = {}
        # The parts of a Mark, apart: building one for each publication would cost a third of the time.
        self._epoch = epoch
        self._floor = 0
        self._top = 0
        self._end = settings.offset_block
        self._lost: tuple[LostRange, ...] = ()
        self.num_bytes = 0
        self.marked_top = 0
        """Highest offset that was in a mark for the journal."""
        self.last_used_s = 0.0

    @classmethod
    def resume(
        cls, settings: HubSettings, mark: Mark, entries: Iterable[Entry], new_epoch: Callable[[], str]
    ) -> "Stream":
        """Return a stream that goes on where a lost process's stream ended.

        Args:
            settings: bounds of the history.
            mark: what the journal remembers; its ``top`` is the highest journalled offset.
            entries: what the journal still holds of the channel, ascending.
            new_epoch: source of epochs.
        """
        stream = cls(settings, mark.epoch, new_epoch)
        held = [entry for entry in entries if entry.publication.offset > mark.floor]
        # Older ones have left the journal. Some may have been superseded rather than
        # trimmed, which cannot be told any more: the higher floor is the safe side.
        floor = held[0].publication.offset - 1 if held else mark.top
        for entry in held:
            stream._hold(entry)
        mark = resumed(replace(mark, floor=max(mark.floor, floor)), settings.offset_block)
        stream._floor, stream._top, stream._end, stream._lost = mark.floor, mark.top, mark.end, mark.lost
        stream.marked_top = mark.top
        return stream

    @property
    def num_publications(self) -> int:
        """Publications held."""
        return len(self._entries)

    @property
    def position(self) -> StreamPosition:
        """Top of the stream."""
        return StreamPosition(self._epoch, self._top)

    def append(self, draft: Draft, seq: int, batch: str, index: int, time_ms: int) -> tuple[Entry, Entry | None]:
        """Give ``draft`` the next offset; also returns the older entry that it superseded, if any."""
        if self._top + 1 >= self._end:
            # The journal has been away for a whole block. Going on in this epoch, a
            # restarted hub could hand the same offsets out again.
            self.begin_epoch()
        self._top = offset = self._top + 1
        publication = Publication(
            draft.channel, offset, draft.data, draft.priority, time_ms, self._epoch, draft.info, draft.coalesce_key
        )
        entry = Entry(seq, publication, draft.key, batch, index)
        superseded = self._hold(entry)
        self.trim(time_ms)
        return entry, superseded

    def since(self, position: StreamPosition, limit: int) -> list[Publication] | None:
        """Return all publications after ``position``, ascending; None if some are gone or over ``limit``."""
        if not can_recover(self.mark(self._top), position.epoch, position.offset):
            return None
        found = self._newest(limit + 1, after=position.offset)
        return None if len(found) > limit else found

    def newest(self, limit: int) -> list[Publication]:
        """Return the last ``limit`` publications, ascending."""
        return self._newest(limit, after=0)

    def trim(self, now_ms: int) -> None:
        """Let publications go that are too old, too many or too large together."""
        oldest_ms = now_ms - self._settings.history_ttl_s * 1000
        while self._entries:
            entry = next(iter(self._entries.values()))
            if (
                len(self._entries) <= self._settings.history_size
                and self.num_bytes <= self._settings.history_max_bytes
                and entry.publication.time_ms >= oldest_ms
            ):
                return
            self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Let the oldest publication go; False if there is none."""
        if not self._entries:
            return False
        offset, entry = self._entries.popitem(last=False)
        self.num_bytes -= len(entry.publication.data)
        if entry.publication.coalesce_key is not None:
            self._latest.pop(entry.publication.coalesce_key, None)
        self._floor = offset
        return True

    def begin_epoch(self) -> None:
        """Begin a new life: no position from before can be recovered."""
        self._entries.clear()
        self._latest.clear()
        self.num_bytes = 0
        self.marked_top = 0
        self._epoch = self._new_epoch()
        self._floor = self._top = 0
        self._end = self._settings.offset_block
        self._lost = ()

    def mark(self, top: int) -> Mark:
        """Return what the journal shall remember once it holds everything up to ``top``.

        Reserves a further block when half of the present one is used, so that in
        ordinary times the reservation is confirmed long before it is needed.
        """
        end = self._end
        if end - self._top <= self._settings.offset_block // 2:
            end = self._top + self._settings.offset_block
        return Mark(self._epoch, min(self._floor, top), top, end, self._lost)

    def confirm(self, mark: Mark) -> None:
        """Note that the journal has stored ``mark``."""
        if mark.epoch == self._epoch:
            self._end = max(self._end, mark.end)

    def _hold(self, entry: Entry) -> Entry | None:
        publication, older = entry.publication, None
        if publication.coalesce_key is not None:
            older = self._entries.pop(self._latest.get(publication.coalesce_key, 0), None)
            if older is not None:
                older.is_superseded = True
                self.num_bytes -= len(older.publication.data)
            self._latest[publication.coalesce_key] = publication.offset
        self._entries[publication.offset] = entry
        self.num_bytes += len(publication.data)
        return older

    def _newest(self, limit: int, after: int) -> list[Publication]:
        found: list[Publication] = []
        for offset in reversed(self._entries):
            if offset <= after or len(found) >= limit:
                break
            found.append(self._entries[offset].publication)
        found.reverse()
        return found
