"""What thirty verdicts change at once: the shipped series, judged in their first half, measured in their second.

Every recording goes through the floor's own detection. The alerts of all first halves, in the
order in which they came, get a verdict each by the labels of the recordings, thirty at most;
what that makes of the thresholds (``ingest.verdict_levels``) is measured on the second halves,
into each of which a fresh seed plants four events: once with and once without the verdicts.
An alert is false when it begins outside of every event; an event is found when an alert
begins in it. Intervals are 95 %, by drawing seeds anew.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.alerts.model import Verdict
from ingest.detection_settings import DetectorSettings
from ingest.detector import Decision, Detector
from ingest.episode import Change
from ingest.payload import Reading
from ingest.verdict_levels import JudgedAlert, levels_of
from ingest.windows import SeriesKey
from training.data.labels import anomalous
from training.data.snapshots import read_dataset

VERDICTS = 30
PLANTED = 4
MARGIN = 100
"""Readings of the second half before its first planted event."""
APART = 300
BATCH = 256
DRAWS = 2_000

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Recording:
    """One series after its first half."""

    key: SeriesKey
    ts: Floats
    values: Floats
    labels: Labels
    half: int
    detector: Detector
    """As it is after the first half."""
    raised: Sequence[Decision]
    """Its alerts until then, each with the highest score that it reported."""


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the one row.

    Args:
        seeds: seeds of planted events.
    """
    recordings = [_first_half(*one) for one in _recorded()]
    judged = sorted(
        ((alert.ts - one.ts[0], one, alert) for one in recordings for alert in one.raised), key=lambda found: found[0]
    )[:VERDICTS]
    given = [
        JudgedAlert(one.key, alert.score, _verdict(alert.ts, _spans(one.ts, one.labels))) for _, one, alert in judged
    ]
    levels = levels_of(given)
    counts = np.array([_measure(recordings, levels, seed) for seed in range(seeds)], dtype=float)
    yield {
        "part": "verdicts",
        "case": "second half and planted events",
        "seeds": seeds,
        "verdicts": len(given),
        "of_them_false": sum(one.verdict is Verdict.FALSE_POSITIVE for one in given),
        "series_moved": len(levels),
        "false_alarms_before": counts[:, 0].mean(),
        "false_alarms_after": counts[:, 2].mean(),
        **_interval("false_alarms_cut", counts, lambda sums: 1 - sums[2] / max(1.0, sums[0])),
        **_interval("event_recall_before", counts, lambda sums: sums[1] / sums[4]),
        **_interval("event_recall_after", counts, lambda sums: sums[3] / sums[4]),
    }


def _recorded() -> Iterator[tuple[SeriesKey, Floats, Floats, Labels]]:
    data = read_dataset("recorded", "", 0.0, 0.0)
    spans = data.labels.by_series()
    for one in data.series:
        yield SeriesKey(*one.key.split("/", 2)), one.ts, one.values, anomalous(spans[one.key], one.ts)


def _first_half(key: SeriesKey, ts: Floats, values: Floats, labels: Labels) -> Recording:
    half = len(ts) // 2
    detector = Detector(DetectorSettings())
    raised = _drive(detector, key, ts[:half], values[:half], 0)
    return Recording(key, ts, values, labels, half, detector, raised)


def _measure(recordings: Sequence[Recording], levels: Mapping[SeriesKey, float], seed: int) -> list[int]:
    """Return false alarms and found events without the verdicts, the same with them, and how many events there are."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(5, dtype=int)
    for one in recordings:
        values, planted = _with_events(one, rng)
        events = [span for span in _spans(one.ts, one.labels | planted) if span[0] >= one.ts[one.half]]
        counts[4] += len(events)
        for at, said in ((0, {}), (2, levels)):
            detector = copy.deepcopy(one.detector)
            detector.set_levels(said)
            raised = _drive(detector, one.key, one.ts[one.half :], values[one.half :], one.half)
            counts[at] += sum(_verdict(alert.ts, events) is Verdict.FALSE_POSITIVE for alert in raised)
            counts[at + 1] += sum(any(first <= alert.ts <= last for alert in raised) for first, last in events)
    return counts.tolist()


def _drive(detector: Detector, key: SeriesKey, ts: Floats, values: Floats, first: int) -> list[Decision]:
    """Have readings judged; returns the alerts that began, each with the highest score that it reported."""
    readings = [
        Reading(key.tenant, key.device, "boot", first + at, float(ts[at]), {key.metric: float(values[at])}, None, 0.0)
        for at in range(len(ts))
    ]
    raised: list[Decision] = []
    for start in range(0, len(readings), BATCH):
        for decision in detector.observe(readings[start : start + BATCH]):
            if decision.change is Change.RAISE:
                raised.append(decision)
            elif decision.change is Change.UPDATE and raised:
                raised[-1] = replace(raised[-1], score=decision.score)
    return raised


def _with_events(one: Recording, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Return the values with planted steps, spikes and noise in the second half, and where those are."""
    values, planted = one.values.copy(), np.zeros(len(one.values), dtype=bool)
    scale = float(np.std(values[: one.half])) or 1.0
    for _ in range(PLANTED):
        length = int(rng.integers(10, 80))
        at = int(rng.integers(one.half + MARGIN, len(values) - length))
        if planted[max(0, at - APART) : at + length + APART].any():
            continue  # two events would become one
        sign, kind = float(rng.choice([-1.0, 1.0])), int(rng.integers(3))
        if kind == 0:
            values[at : at + length] += sign * scale * float(rng.uniform(3, 6))
        elif kind == 1:
            length = min(length, 5)
            values[at : at + length] += sign * scale * float(rng.uniform(5, 9))
        else:
            values[at : at + length] += scale * float(rng.uniform(1.5, 3)) * rng.standard_normal(length)
        planted[at : at + length] = True
    return values, planted


def _spans(ts: Floats, labels: Labels) -> list[Span]:
    edges = np.diff(np.concatenate([[False], labels, [False]]).astype(int))
    return list(zip(ts[np.flatnonzero(edges == 1)].tolist(), ts[np.flatnonzero(edges == -1) - 1].tolist(), strict=True))


def _verdict(at: float, events: Sequence[Span]) -> Verdict:
    is_right = any(first <= at <= last for first, last in events)
    return Verdict.TRUE_POSITIVE if is_right else Verdict.FALSE_POSITIVE


def _interval(name: str, counts: NDArray[np.float64], figure: Callable[[NDArray[np.float64]], float]) -> dict[str, Any]:
    drawn = np.random.default_rng(0).integers(0, len(counts), (DRAWS, len(counts)))
    figures = [figure(counts[rows_].sum(axis=0)) for rows_ in drawn]
    low, high = np.quantile(figures, [0.025, 0.975])
    value = figure(counts.sum(axis=0))
    return {name: round(float(value), 3), f"{name}_low": round(float(low), 3), f"{name}_high": round(float(high), 3)}
