"""A bounded queue between the MQTT thread and one writer, with batches by count, bytes and linger.

Threads, no I/O. Policy when full: the newest is refused and the caller decides (a refused
QoS 1 message stays unacknowledged, so the broker keeps it). Invariant: order of arrival.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

from ingest.delivery import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """When a batch is full."""

    count: int
    """Deliveries per batch."""
    payload_bytes: int
    """Payload bytes per batch; one delivery above it travels alone."""
    linger_s: float
    """How long a batch waits for more, in seconds; 0: takes what is there."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.payload_bytes < 1 or self.linger_s < 0:
            raise ValueError(f"count and payload_bytes must be positive and linger_s not negative, got {self}")


class DeliveryQueue:
    """First in, first out; one reader, any number of writers."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._items: deque[Delivery] = deque()
        self._bytes = 0
        self._wanted = 1
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, delivery: Delivery) -> bool:
        """Append without waiting; False when the queue is full."""
        with self._changed:
            if len(self._items) >= self._max_count or self._bytes >= self._max_bytes:
                return False
            self._items.append(delivery)
            self._bytes += delivery.kept_bytes
            # The reader sleeps through the first messages of a batch: a wake-up each would cost more than the batch.
            if len(self._items) == self._wanted:
                self._changed.notify()
        return True

    def take(self, limits: BatchLimits, timeout_s: float) -> list[Delivery]:
        """Return the next batch; empty when nothing came within ``timeout_s`` or the queue was closed."""
        with self._changed:
            if not self._wait_for(1, timeout_s):
                return []
            if limits.linger_s > 0:
                self._wait_for(limits.count, limits.linger_s)
            batch: list[Delivery] = []
            size = 0
            while self._items and len(batch) < limits.count:
                size += len(self._items[0].payload)
                if batch and size > limits.payload_bytes:
                    break
                batch.append(self._items.popleft())
            self._bytes -= sum(delivery.kept_bytes for delivery in batch)
            return batch

    def has_room(self) -> bool:
        """Say whether at least half of the queue is free."""
        return len(self._items) * 2 < self._max_count and self._bytes * 2 < self._max_bytes

    def close(self) -> None:
        """Wake the reader for the last time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait_for(self, count: int, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        self._wanted = count
        while len(self._items) < count and not self._closed:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                break
        self._wanted = 1
        return bool(self._items)
