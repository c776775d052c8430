"""The sum of many processes' metrics, right also for processes that have ended.

Pure: no Ray, no network; the time comes as an argument. Invariant: what a counter or a
histogram of an ended process had counted stays in the sum; a gauge counts for as long as
its process lives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LIVE_S = 10.0
"""A process that has not pushed for so long (five pushes) has ended."""
MAX_ENDED = 2000
"""Ended processes remembered one by one, in case one was only stopped; older ones are merged."""

Labels = tuple[tuple[str, str], ...]
SampleKey = tuple[str, Labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One life of one process."""

    kind: str
    host: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric of one process."""

    name: str
    kind: str
    """``counter``, ``gauge`` or ``histogram``."""
    documentation: str
    samples: dict[SampleKey, float]


@dataclass(slots=True)
class _Process:
    families: tuple[Family, ...]
    seen_at: float


@dataclass(slots=True)
class _Sum:
    kind: str
    documentation: str
    samples: dict[SampleKey, float] = field(default_factory=dict)


class MetricsSum:
    """Latest snapshot of each process, and their sum."""

    def __init__(self) -> None:
        self._live: dict[ProcessId, _Process] = {}
        self._ended: dict[ProcessId, _Process] = {}
        self._merged: dict[str, _Sum] = {}

    def push(self, process: ProcessId, families: Sequence[Family], now_s: float) -> None:
        """Replace what is known of ``process``."""
        self._ended.pop(process, None)
        self._live[process] = _Process(tuple(families), now_s)

    def processes(self, now_s: float) -> list[ProcessId]:
        """Return the processes that live."""
        self._expire(now_s)
        return list(self._live)

    def total(self, now_s: float) -> list[Metric]:
        """Return each metric summed over all processes, by name."""
        self._expire(now_s)
        sums = {name: _Sum(s.kind, s.documentation, dict(s.samples)) for name, s in self._merged.items()}
        for process in self._ended.values():
            _add(sums, process.families, with_gauges=False)
        for process in self._live.values():
            _add(sums, process.families, with_gauges=True)
        return [_metric(name, sums[name]) for name in sorted(sums)]

    def render(self, now_s: float) -> bytes:
        """Return the sum in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Fixed(self.total(now_s)))
        return generate_latest(registry)

    def _expire(self, now_s: float) -> None:
        for process, last in list(self._live.items()):
            if now_s - last.seen_at > LIVE_S:
                self._ended[process] = self._live.pop(process)
        while len(self._ended) > MAX_ENDED:
            oldest = next(iter(self._ended))
            _add(self._merged, self._ended.pop(oldest).families, with_gauges=False)


class _Fixed(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def take_snapshot(registry: CollectorRegistry) -> tuple[Family, ...]:
    """Return the present values of ``registry`` as plain data."""
    families = []
    for metric in registry.collect():
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for sample in metric.samples
            # When each child was created has no meaning in a sum.
            if not sample.name.endswith("_created")
        }
        if samples:
            families.append(
                Family(name=metric.name, kind=metric.type, documentation=metric.documentation, samples=samples)
            )
    return tuple(families)


def _add(sums: dict[str, _Sum], families: Iterable[Family], *, with_gauges: bool) -> None:
    for family in families:
        if family.kind == "gauge" and not with_gauges:
            continue
        total = sums.setdefault(family.name, _Sum(family.kind, family.documentation))
        for key, value in family.samples.items():
            total.samples[key] = total.samples.get(key, 0.0) + value


def _metric(name: str, total: _Sum) -> Metric:
    metric = Metric(name, total.documentation, total.kind)
    for (sample_name, labels), value in total.samples.items():
        metric.add_sample(sample_name, dict(labels), value)
    return metric
