"""Counters of ended processes stay; gauges go with their process; Prometheus can read it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from cluster.metrics_sum import LIVE_S, MAX_ENDED, MetricsSum, ProcessId, take_snapshot


class Process:
    """One process with a counter, a gauge and a histogram."""

    def __init__(self, pid: int) -> None:
        self.id = ProcessId(kind="task", host="h", pid=pid, started_at=float(pid))
        self.registry = CollectorRegistry()
        self.counter = Counter("calls", "Calls.", ["kind"], registry=self.registry)
        self.gauge = Gauge("open", "Open now.", ["kind"], registry=self.registry)
        self.histogram = Histogram("seconds", "Time.", buckets=(1, 5), registry=self.registry)

    def push(self, total: MetricsSum, now_s: float) -> None:
        total.push(self.id, take_snapshot(self.registry), now_s)


def value(total: MetricsSum, now_s: float, sample: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(total.render(now_s).decode()):
        for found in family.samples:
            if found.name == sample and found.labels == labels:
                return found.value
    return None


def test_counters_of_two_processes_add_up_by_label() -> None:
    """Each label keeps its own sum."""
    total, one, two = MetricsSum(), Process(1), Process(2)
    one.counter.labels("a").inc(2)
    two.counter.labels("a").inc(3)
    two.counter.labels("b").inc(7)
    one.push(total, 0)
    two.push(total, 0)

    assert value(total, 0, "calls_total", kind="a") == 5
    assert value(total, 0, "calls_total", kind="b") == 7


def test_a_second_push_replaces_the_first() -> None:
    """Values are totals of the process, so pushing twice counts once."""
    total, one = MetricsSum(), Process(1)
    one.counter.labels("a").inc()
    for _ in range(3):
        one.push(total, 0)

    assert value(total, 0, "calls_total", kind="a") == 1


def test_a_counter_outlives_its_process_and_a_gauge_does_not() -> None:
    """After five missed pushes the process has ended."""
    total, gone, here = MetricsSum(), Process(1), Process(2)
    for process in (gone, here):
        process.counter.labels("a").inc(10)
        process.gauge.labels("a").set(4)
        process.push(total, 0)
    here.push(total, LIVE_S + 1)

    assert value(total, LIVE_S + 1, "calls_total", kind="a") == 20
    assert value(total, LIVE_S + 1, "open", kind="a") == 4


def test_a_process_that_was_only_stopped_is_not_counted_twice() -> None:
    """SIGSTOP for a minute, then it pushes again."""
    total, one, other = MetricsSum(), Process(1), Process(2)
    one.counter.labels("a").inc(10)
    one.push(total, 0)
    other.push(total, 60)
    assert value(total, 60, "calls_total", kind="a") == 10

    one.counter.labels("a").inc(1)
    one.push(total, 61)

    assert value(total, 61, "calls_total", kind="a") == 11


def test_histograms_add_up() -> None:
    """Buckets, count and sum."""
    total, one, two = MetricsSum(), Process(1), Process(2)
    one.histogram.observe(0.5)
    two.histogram.observe(3)
    one.push(total, 0)
    two.push(total, 0)

    assert value(total, 0, "seconds_bucket", le="1.0") == 1
    assert value(total, 0, "seconds_bucket", le="+Inf") == 2
    assert value(total, 0, "seconds_sum") == 3.5


def test_many_ended_processes_take_no_more_room_but_still_count() -> None:
    """The oldest are merged into one sum."""
    total = MetricsSum()
    for pid in range(MAX_ENDED + 10):
        process = Process(pid)
        process.counter.labels("a").inc()
        process.push(total, 0)

    assert value(total, LIVE_S + 1, "calls_total", kind="a") == MAX_ENDED + 10
    assert total.processes(LIVE_S + 1) == []


def test_types_and_help_are_kept() -> None:
    """Prometheus sees a counter as a counter."""
    total, one = MetricsSum(), Process(1)
    one.counter.labels("a").inc()
    one.push(total, 0)

    text = total.render(0).decode()

    assert "# HELP calls_total Calls." in text
    assert "# TYPE calls_total counter" in text
    assert "_created" not in text
