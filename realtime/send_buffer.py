"""What one process still has to broadcast: bounded, with a policy for the moment it is full.

Pure state: no thread, no clock, no network; the owner serialises access. Invariants:
messages leave in the order in which they came, whatever their class; of a progress bar
only the latest value waits, and that one is displaced only by too many other bars.
"""

from collections import deque
from dataclasses import dataclass

from realtime.publication import Draft, Priority
from realtime.settings import BroadcastSettings

URGENCY = {Priority.PROGRESS: 0, Priority.NORMAL: 1, Priority.HIGH: 2, Priority.CRITICAL: 3}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One draft in the buffer."""

    draft: Draft
    order: int
    """Place in the sequence of calls; a newer value of a bar keeps the place of the older."""
    called_at_s: float
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a draft, and of others because of it."""

    is_accepted: bool
    coalesced: int = 0
    """Older values of the same bar that will not be sent."""
    displaced: tuple[Waiting, ...] = ()
    """Less urgent messages that were dropped to make room."""


_ACCEPTED = Offer(is_accepted=True)
_REFUSED = Offer(is_accepted=False)


class SendBuffer:
    """Messages of one process, waiting for the next batch."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._lanes: dict[Priority, deque[Waiting]] = {priority: deque() for priority in Priority}
        self._bars: dict[tuple[str, str], Waiting] = {}
        self._next_order = 0
        self._lane_count = 0
        self._lane_bytes = 0
        self._bar_bytes = 0

    def __len__(self) -> int:
        return self._lane_count + len(self._bars)

    @property
    def num_bytes(self) -> int:
        """Bytes of payload that wait."""
        return self._lane_bytes + self._bar_bytes

    def offer(self, draft: Draft, now_s: float, run_id: str | None = None) -> Offer:
        """Take ``draft`` if there is room; a more urgent one displaces less urgent ones."""
        waiting = Waiting(draft, self._next_order, now_s, run_id)
        if draft.coalesce_key is not None:
            return self._offer_bar(waiting, (draft.channel, draft.coalesce_key))
        displaced: list[Waiting] = []
        while not self._has_room(len(draft.data)):
            victim = self._oldest_below(draft.priority)
            if victim is None:
                # Nothing less urgent is left; what was displaced so far would not have
                # been enough, which happens only for a payload near the whole buffer.
                return Offer(is_accepted=False, displaced=tuple(displaced)) if displaced else _REFUSED
            displaced.append(self._remove_oldest(victim))
        self._next_order += 1
        self._lanes[draft.priority].append(waiting)
        self._lane_count += 1
        self._lane_bytes += len(draft.data)
        return Offer(is_accepted=True, displaced=tuple(displaced)) if displaced else _ACCEPTED

    def take(self, max_count: int, max_bytes: int) -> list[Waiting]:
        """Remove and return the next messages, oldest call first; at least one if any waits."""
        taken: list[Waiting] = []
        taken_bytes = 0
        while len(taken) < max_count:
            head = self._head()
            if head is None or (taken and taken_bytes + len(head.draft.data) > max_bytes):
                break
            taken_bytes += len(head.draft.data)
            taken.append(head)
            if head.draft.coalesce_key is not None:
                del self._bars[head.draft.channel, head.draft.coalesce_key]
                self._bar_bytes -= len(head.draft.data)
            else:
                self._remove_oldest(head.draft.priority)
        return taken

    def _offer_bar(self, waiting: Waiting, key: tuple[str, str]) -> Offer:
        older = self._bars.get(key)
        size = len(waiting.draft.data)
        if older is not None:
            self._bars[key] = Waiting(waiting.draft, older.order, waiting.called_at_s, waiting.run_id)
            self._bar_bytes += size - len(older.draft.data)
            return Offer(is_accepted=True, coalesced=1)
        displaced: list[Waiting] = []
        while self._bars and (
            len(self._bars) >= self._settings.progress_keys or self._bar_bytes + size > self._settings.buffer_max_bytes
        ):
            displaced.append(self._bars.pop(next(iter(self._bars))))
            self._bar_bytes -= len(displaced[-1].draft.data)
        self._next_order += 1
        self._bars[key] = waiting
        self._bar_bytes += size
        return Offer(is_accepted=True, displaced=tuple(displaced)) if displaced else _ACCEPTED

    def _has_room(self, size: int) -> bool:
        return (
            self._lane_count < self._settings.buffer_size and self._lane_bytes + size <= self._settings.buffer_max_bytes
        )

    def _oldest_below(self, priority: Priority) -> Priority | None:
        for lane in reversed(Priority):
            if URGENCY[lane] >= URGENCY[priority]:
                return None
            if self._lanes[lane]:
                return lane
        return None

    def _remove_oldest(self, lane: Priority) -> Waiting:
        waiting = self._lanes[lane].popleft()
        self._lane_count -= 1
        self._lane_bytes -= len(waiting.draft.data)
        return waiting

    def _head(self) -> Waiting | None:
        heads = [lane[0] for lane in self._lanes.values() if lane]
        if self._bars:
            heads.append(next(iter(self._bars.values())))
        return min(heads, key=lambda waiting: waiting.order, default=None)
