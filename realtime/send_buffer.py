"""What one process still has to broadcast: bounded, the urgent first, each channel in order.

Pure state: no thread, no clock, no network; the owner serialises access. Invariants: a
channel's messages leave in the order in which they came, whatever their class; the channel
with the most urgent message goes first, with whatever stands before that message, so an
urgent one waits for its own channel at most; of a progress bar only the latest value waits,
and that one is displaced only by too many other bars. Progress leaves at a pace: a flood of
it must not fill the way of everything else, in the hub and in the gateways either.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from realtime.publication import Draft, Priority
from realtime.settings import BroadcastSettings

RANKS = {priority: rank for rank, priority in enumerate(Priority)}
"""Classes as numbers, most urgent first."""
_PACED = RANKS[Priority.PROGRESS]
BURST_S = 0.005
"""Progress leaves in bursts of so many seconds' worth: an urgent message waits for the burst before it, all the way."""
OLDEST_EVERY = 16
"""One message in so many is the oldest of all, whatever its class: a flood delays the others, and starves none."""


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
_COALESCED = Offer(is_accepted=True, coalesced=1)


class _Queue:
    """What waits on one channel, by order, and how many of each class."""

    __slots__ = ("counts", "rank", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[int, Waiting] = OrderedDict()
        self.counts = [0] * len(RANKS)
        self.rank = len(RANKS)
        """Of its most urgent message."""

    def most_urgent(self) -> int:
        return next((rank for rank, count in enumerate(self.counts) if count), len(self.counts))


class SendBuffer:
    """Messages of one process, waiting for the next batch."""

    def __init__(self, settings: BroadcastSettings) -> None:
        self._settings = settings
        self._channels: dict[str, _Queue] = {}
        # Channels by the rank of their most urgent message; those of one rank take turns.
        self._turns: list[OrderedDict[str, _Queue]] = [OrderedDict() for _ in RANKS]
        self._lanes: list[OrderedDict[int, Waiting]] = [OrderedDict() for _ in RANKS]
        self._bars: OrderedDict[tuple[str, str], Waiting] = OrderedDict()
        self._next_order = 0
        self._next_oldest = OLDEST_EVERY
        self._progress_from_s = 0.0
        self._lane_count = 0
        self._lane_bytes = 0
        self._bar_bytes = 0

    def __len__(self) -> int:
        return self._lane_count + len(self._bars)

    def __iter__(self) -> Iterator[Waiting]:
        for queue in self._channels.values():
            yield from queue.waiting.values()

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
            victim = self._oldest_below(RANKS[draft.priority])
            if victim is None:
                # Nothing less urgent is left; what was displaced so far would not have
                # been enough, which happens only for a payload near the whole buffer.
                return Offer(is_accepted=False, displaced=tuple(displaced)) if displaced else _REFUSED
            self._remove(victim)
            displaced.append(victim)
        self._lanes[RANKS[draft.priority]][waiting.order] = waiting
        self._lane_count += 1
        self._lane_bytes += len(draft.data)
        self._enqueue(waiting)
        return Offer(is_accepted=True, displaced=tuple(displaced)) if displaced else _ACCEPTED

    def wait_s(self, now_s: float) -> float | None:
        """Return in how many seconds something can be taken; None: nothing waits."""
        if any(self._turns[:_PACED]):
            return 0.0
        return max(0.0, self._progress_from_s - now_s) if self._turns[_PACED] else None

    def take(self, max_count: int, max_bytes: int, now_s: float, *, at_once: bool = False) -> list[Waiting]:
        """Remove and return the next messages, most urgent channel first; at least one if ``wait_s`` is 0.

        Args:
            max_count: messages at most.
            max_bytes: bytes of payload at most, but for a single message.
            now_s: monotonic seconds, for the pace of progress.
            at_once: leave that pace out: the process is about to end.
        """
        taken: list[Waiting] = []
        taken_bytes = 0
        burst = max_count if at_once else max(1, int(self._settings.progress_per_s * BURST_S))
        left = burst if at_once or now_s >= self._progress_from_s else 0
        began_with = left
        while len(taken) < max_count:
            head, is_paced = self._head(has_progress=left > 0)
            if head is None or (taken and taken_bytes + len(head.draft.data) > max_bytes):
                break
            taken_bytes += len(head.draft.data)
            taken.append(head)
            left -= is_paced
            self._remove(head)
            self._pass_turn(head.draft.channel)
            self._next_oldest = OLDEST_EVERY if self._next_oldest == 0 else self._next_oldest - 1
        if left < began_with:
            self._progress_from_s = now_s + (began_with - left) / self._settings.progress_per_s
        return taken

    def _offer_bar(self, waiting: Waiting, key: tuple[str, str]) -> Offer:
        older = self._bars.get(key)
        size = len(waiting.draft.data)
        if older is not None and older.draft.priority is waiting.draft.priority:
            newer = Waiting(waiting.draft, older.order, waiting.called_at_s, waiting.run_id)
            self._bars[key] = newer
            self._channels[key[0]].waiting[older.order] = newer
            self._bar_bytes += size - len(older.draft.data)
            return _COALESCED
        if older is not None:
            self._remove(older)
        displaced: list[Waiting] = []
        while self._bars and (
            len(self._bars) >= self._settings.progress_keys or self._bar_bytes + size > self._settings.buffer_max_bytes
        ):
            oldest = next(iter(self._bars.values()))
            self._remove(oldest)
            displaced.append(oldest)
        self._bars[key] = waiting
        self._bar_bytes += size
        self._enqueue(waiting)
        return Offer(is_accepted=True, coalesced=0 if older is None else 1, displaced=tuple(displaced))

    def _has_room(self, size: int) -> bool:
        return (
            self._lane_count < self._settings.buffer_size and self._lane_bytes + size <= self._settings.buffer_max_bytes
        )

    def _oldest_below(self, rank: int) -> Waiting | None:
        for lane in reversed(self._lanes[rank + 1 :]):
            if lane:
                return next(iter(lane.values()))
        return None

    def _head(self, *, has_progress: bool) -> tuple[Waiting | None, bool]:
        """Return what leaves next, and whether it counts against the pace of progress."""
        if self._next_oldest == 0:
            heads = [next(iter(lane.values())) for lane in self._lanes if lane]
            if self._bars and has_progress:
                heads.append(next(iter(self._bars.values())))
            oldest = min(heads, key=lambda waiting: waiting.order, default=None)
            if oldest is not None:
                # Of its channel whatever stands before it goes first, which is no older than all others.
                queue = self._channels[oldest.draft.channel]
                return next(iter(queue.waiting.values())), queue.rank == _PACED
        for rank, turns in enumerate(self._turns):
            if turns and (rank != _PACED or has_progress):
                return next(iter(next(iter(turns.values())).waiting.values())), rank == _PACED
        return None, False

    def _enqueue(self, waiting: Waiting) -> None:
        self._next_order += 1
        channel, rank = waiting.draft.channel, RANKS[waiting.draft.priority]
        queue = self._channels.get(channel)
        if queue is None:
            queue = self._channels[channel] = _Queue()
        queue.waiting[waiting.order] = waiting
        queue.counts[rank] += 1
        if rank < queue.rank:
            self._rerank(channel, queue, rank)

    def _remove(self, waiting: Waiting) -> None:
        draft = waiting.draft
        rank = RANKS[draft.priority]
        if draft.coalesce_key is not None:
            del self._bars[draft.channel, draft.coalesce_key]
            self._bar_bytes -= len(draft.data)
        else:
            del self._lanes[rank][waiting.order]
            self._lane_count -= 1
            self._lane_bytes -= len(draft.data)
        queue = self._channels[draft.channel]
        del queue.waiting[waiting.order]
        queue.counts[rank] -= 1
        if not queue.waiting:
            del self._turns[queue.rank][draft.channel], self._channels[draft.channel]
        elif not queue.counts[queue.rank]:
            self._rerank(draft.channel, queue, queue.most_urgent())

    def _pass_turn(self, channel: str) -> None:
        queue = self._channels.get(channel)
        if queue is not None:
            self._turns[queue.rank].move_to_end(channel)

    def _rerank(self, channel: str, queue: _Queue, rank: int) -> None:
        if queue.rank < len(RANKS):
            del self._turns[queue.rank][channel]
        self._turns[rank][channel] = queue
        queue.rank = rank
