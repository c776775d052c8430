"""One way from the queue to one store: take a batch, judge it, make it durable, then acknowledge.

A loop body without a thread: ``step`` is driven by the ingest actor, or by a test. It knows
neither Ray nor redis nor paho; writing and acknowledging are passed in. Invariants: nothing
is settled before it is durable; during an outage the same batch is offered again until it is
taken or the lane is stopped, and nothing further is read meanwhile; an item that a store
refuses for what it is becomes a dead letter and holds nobody up.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from cluster.clock import Clock
from ingest.dead_letter import DeadLetter
from ingest.delivery import Delivery
from ingest.delivery_queue import BatchLimits, DeliveryQueue
from ingest.errors import StoreRefusedError, StoreUnavailableError
from ingest.payload import Reason
from ingest.pipeline import Judged, dead_letter
from realtime.backoff import Backoff

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
"""Between two offers of a batch during an outage: at most this long after the store is back, ingest goes on."""

Item = TypeVar("Item", bound=Judged)
Store = Callable[[Sequence[Item]], int]
"""Makes items durable and returns how many were new; repeating it with the same items is safe."""


class LaneObserver(Protocol):
    """Hears what a lane did; called on the lane's thread, returns at once."""

    def on_stored(self, lane: str, items: Sequence[Judged], new: int, seconds: float) -> None:
        """A batch is durable; ``new`` of its items were not stored before."""
        ...

    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """These were set aside."""
        ...

    def on_blocked(self, lane: str, error: StoreUnavailableError) -> None:
        """A store does not take data; called once per outage."""
        ...

    def on_unblocked(self, lane: str) -> None:
        """The store takes data again."""
        ...


class Lane(Generic[Item]):
    """Moves deliveries of one kind into their store."""

    def __init__(
        self,
        name: str,
        kind: type[Item],
        queue: DeliveryQueue,
        limits: BatchLimits,
        *,
        judge: Callable[[Delivery], Judged | None],
        store: "Store[Item]",
        set_aside: Callable[[Sequence[DeadLetter]], None],
        settle: Callable[[Sequence[Delivery]], None],
        observer: LaneObserver,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self.name = name
        self.queue = queue
        self._kind = kind
        self._limits = limits
        self._judge = judge
        self._store = store
        self._set_aside = set_aside
        self._settle = settle
        self._observer = observer
        self._clock = clock
        self._stop = stop

    def step(self, timeout_s: float) -> int:
        """Carry one batch through; return its size, 0 when none came or the lane was stopped in between."""
        batch = self.queue.take(self._limits, timeout_s)
        if not batch:
            return 0
        items: list[Item] = []
        origins: list[Delivery] = []
        letters: list[DeadLetter] = []
        for delivery in batch:
            judged = self._judge(delivery)
            if isinstance(judged, self._kind):
                items.append(judged)
                origins.append(delivery)
            elif isinstance(judged, DeadLetter):
                letters.append(judged)
        if items and not self._until_durable(lambda: self._write(items, origins, letters)):
            return 0
        if letters:
            if not self._until_durable(lambda: self._set_aside(letters)):
                return 0
            self._observer.on_dead_letters(letters)
        self._settle(batch)
        return len(batch)

    def _write(self, items: Sequence[Item], origins: Sequence[Delivery], letters: list[DeadLetter]) -> None:
        started_s = self._clock.monotonic_s()
        try:
            new = self._store(items)
        except StoreRefusedError as error:
            if len(items) == 1:
                letters.append(dead_letter(origins[0], Reason.REFUSED_BY_STORE, error.reason))
                return
            # The others of the batch are innocent: halve until the refused one stands alone.
            middle = len(items) // 2
            self._write(items[:middle], origins[:middle], letters)
            self._write(items[middle:], origins[middle:], letters)
            return
        self._observer.on_stored(self.name, items, new, self._clock.monotonic_s() - started_s)

    def _until_durable(self, write: Callable[[], None]) -> bool:
        """Repeat ``write`` through an outage; False when the lane was stopped first."""
        backoff: Backoff | None = None  # made at the first failure: it seeds a generator, too slow for every batch
        while True:
            try:
                write()
            except StoreUnavailableError as error:
                if backoff is None:
                    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
                    logger.warning("lane %s stops acknowledging: %s", self.name, error)
                    self._observer.on_blocked(self.name, error)
                if self._stop.wait(backoff.next_pause_s()):
                    return False
                continue
            if backoff is not None:
                logger.info("lane %s goes on", self.name)
                self._observer.on_unblocked(self.name)
            return True
