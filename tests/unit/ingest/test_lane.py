"""A lane: durable before acknowledged, through outages, with refused items set aside."""

import threading
from collections.abc import Callable, Sequence

import pytest
from bad_payloads import telemetry
from fakes_ingest import RecordingObserver, make_delivery

from cluster.clock import SystemClock
from ingest import lane as lane_module
from ingest.dead_letter import DeadLetter
from ingest.decoder import ClockTolerance
from ingest.delivery import Delivery
from ingest.delivery_queue import BatchLimits, DeliveryQueue
from ingest.errors import StoreRefusedError, StoreUnavailableError
from ingest.lane import Lane
from ingest.payload import Reading, Reason
from ingest.pipeline import Pipeline
from ingest.topics import TopicTree


class Bench:
    """A lane between lists."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.readings: list[Reading] = []
        self.letters: list[DeadLetter] = []
        self.settled: list[Delivery] = []
        self.observer = RecordingObserver()
        self.stop = threading.Event()
        self.queue = DeliveryQueue(1000, 10_000_000)
        self.store: Callable[[Sequence[Reading]], int] = self.keep
        self.set_aside: Callable[[Sequence[DeadLetter]], None] = self.keep_letters

    def keep(self, readings: Sequence[Reading]) -> int:
        self.log.append("store")
        self.readings.extend(readings)
        return len(readings)

    def keep_letters(self, letters: Sequence[DeadLetter]) -> None:
        self.log.append("set aside")
        self.letters.extend(letters)

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        self.log.append("settle")
        self.settled.extend(deliveries)

    def lane(self, count: int = 100) -> Lane[Reading]:
        return Lane(
            "telemetry",
            Reading,
            self.queue,
            BatchLimits(count=count, payload_bytes=1_000_000, linger_s=0.0),
            judge=Pipeline(TopicTree("wf"), ClockTolerance()).judge,
            store=lambda readings: self.store(readings),
            set_aside=lambda letters: self.set_aside(letters),
            settle=self.settle,
            observer=self.observer,
            clock=SystemClock(),
            stop=self.stop,
        )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(lane_module, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(lane_module, "LONGEST_PAUSE_S", 0.0001)
    return Bench()


def test_a_batch_is_durable_before_it_is_settled(bench: Bench) -> None:
    """Readings and dead letters are both on disk before any acknowledgement."""
    deliveries = [make_delivery(payload=telemetry(seq=seq)) for seq in range(3)]
    bad = make_delivery(payload=b"{")
    for delivery in (*deliveries, bad):
        bench.queue.put(delivery)

    assert bench.lane().step(0.0) == 4

    assert bench.log == ["store", "set aside", "settle"]
    assert [reading.seq for reading in bench.readings] == [0, 1, 2]
    assert [letter.reason for letter in bench.letters] == [Reason.NOT_JSON]
    assert bench.settled == [*deliveries, bad]


def test_what_carries_nothing_is_settled_all_the_same(bench: Bench) -> None:
    """A rejected or ignored message must release its place in the window, or the input stops one day."""
    ignored = make_delivery("wf/acme/d/cmd", b"{}")
    bench.queue.put(ignored)

    bench.lane().step(0.0)

    assert bench.settled == [ignored]


def test_nothing_is_settled_while_the_store_is_away(bench: Bench) -> None:
    """The same batch is offered again until it is taken, then all is acknowledged once."""
    failures = iter([True, True, True, False])

    def unreliable(readings: Sequence[Reading]) -> int:
        if next(failures):
            assert bench.settled == []
            raise StoreUnavailableError("telemetry", "away")
        return bench.keep(readings)

    bench.store = unreliable
    bench.queue.put(make_delivery(payload=telemetry()))
    bench.lane().step(0.0)

    assert len(bench.readings) == len(bench.settled) == 1
    assert (len(bench.observer.blocked), bench.observer.unblocked) == (1, 1)


def test_a_stop_during_an_outage_settles_nothing(bench: Bench) -> None:
    """What was not stored stays with the broker."""

    def away(readings: Sequence[Reading]) -> int:
        bench.stop.set()
        raise StoreUnavailableError("telemetry", "away")

    bench.store = away
    bench.queue.put(make_delivery(payload=telemetry()))

    assert bench.lane().step(0.0) == 0
    assert bench.settled == []


def test_dead_letters_wait_for_their_store_too(bench: Bench) -> None:
    """A message that cannot be used is kept as carefully as one that can."""
    failures = iter([True, False])

    def unreliable(letters: Sequence[DeadLetter]) -> None:
        if next(failures):
            raise StoreUnavailableError("sql", "locked")
        bench.keep_letters(letters)

    bench.set_aside = unreliable
    bench.queue.put(make_delivery(payload=b"{"))
    bench.lane().step(0.0)

    assert len(bench.letters) == len(bench.settled) == 1


def test_an_item_the_store_refuses_is_set_aside_alone(bench: Bench) -> None:
    """One poisoned reading in a batch costs itself, not its neighbours, and is never retried for ever."""

    def picky(readings: Sequence[Reading]) -> int:
        if any(reading.seq == 5 for reading in readings):
            raise StoreRefusedError("telemetry", "DataError")
        return bench.keep(readings)

    bench.store = picky
    for seq in range(8):
        bench.queue.put(make_delivery(payload=telemetry(seq=seq)))
    bench.lane().step(0.0)

    assert sorted(reading.seq or 0 for reading in bench.readings) == [0, 1, 2, 3, 4, 6, 7]
    assert [letter.reason for letter in bench.letters] == [Reason.REFUSED_BY_STORE]
    assert len(bench.settled) == 8
