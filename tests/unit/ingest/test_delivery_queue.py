"""The queue between the network thread and a lane: bounds, batches, wake-ups."""

import threading
import time

import pytest
from fakes_ingest import make_delivery

from ingest.delivery_queue import BatchLimits, DeliveryQueue

AT_ONCE = BatchLimits(count=10, payload_bytes=1000, linger_s=0.0)


def test_a_batch_keeps_the_order_and_the_count() -> None:
    """Batches are cut by count, oldest first."""
    queue = DeliveryQueue(100, 10_000)
    for mid in range(1, 15):
        assert queue.put(make_delivery(mid=mid))

    assert [delivery.mid for delivery in queue.take(AT_ONCE, 0.0)] == list(range(1, 11))
    assert [delivery.mid for delivery in queue.take(AT_ONCE, 0.0)] == [11, 12, 13, 14]
    assert queue.take(AT_ONCE, 0.0) == []


def test_a_batch_is_cut_by_bytes_and_a_giant_travels_alone() -> None:
    """A payload above the batch limit is not refused, it is a batch."""
    queue = DeliveryQueue(100, 10_000)
    for size in (600, 300, 200, 5000, 10):
        queue.put(make_delivery(payload=b"x" * size))

    sizes = [[len(delivery.payload) for delivery in queue.take(AT_ONCE, 0.0)] for _ in range(3)]

    assert sizes == [[600, 300], [200], [5000]]


@pytest.mark.parametrize(
    ("count", "size", "fitting"),
    [pytest.param(3, 1000, 3, id="by-count"), pytest.param(100, 25, 3, id="by-bytes")],
)
def test_a_full_queue_refuses_the_newest(count: int, size: int, fitting: int) -> None:
    """Both bounds hold, topics included, and room comes back with the next batch."""
    queue = DeliveryQueue(count, size)
    taken = [queue.put(make_delivery("t" * 4, b"x" * 6)) for _ in range(5)]

    assert taken.count(True) == fitting
    assert not queue.has_room()
    queue.take(AT_ONCE, 0.0)
    assert queue.has_room()
    assert queue.put(make_delivery())


def test_a_waiting_reader_is_woken_by_the_first_delivery() -> None:
    """Without linger an alert does not wait for a second one."""
    queue = DeliveryQueue(100, 10_000)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(d.mid for d in queue.take(AT_ONCE, 5.0)))
    reader.start()
    while queue._wanted != 1 or not reader.is_alive():
        time.sleep(0.001)
    queue.put(make_delivery(mid=42))
    reader.join(2.0)

    assert got == [42]


def test_a_lingering_reader_is_woken_by_a_full_batch() -> None:
    """Linger is the longest wait, not the usual one."""
    queue = DeliveryQueue(1000, 100_000)
    limits = BatchLimits(count=50, payload_bytes=100_000, linger_s=30.0)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(d.mid for d in queue.take(limits, 5.0)))
    reader.start()
    for mid in range(1, 51):
        queue.put(make_delivery(mid=mid))
    reader.join(5.0)

    assert got == list(range(1, 51))


def test_closing_wakes_the_reader() -> None:
    """A stop does not wait for the time-out."""
    queue = DeliveryQueue(100, 10_000)
    reader = threading.Thread(target=lambda: queue.take(AT_ONCE, 30.0))
    reader.start()
    queue.close()
    reader.join(2.0)

    assert not reader.is_alive()
