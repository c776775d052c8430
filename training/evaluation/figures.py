"""What a scorer is worth on the held-out parts of many series: figures, curves, slices, intervals.

Pure numpy. A series' scores are compared with other series' by their p-values (``scoring.p_values``), so one
threshold stands for one rate everywhere. Nothing is point-adjusted. Invariants: thresholds come from before
the held-out part, except where a figure says "at so many false alarms"; an interval is None where there is
too little to draw from.

Shapes: M readings of a part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.split import device_of
from training.evaluation.anomaly_metrics import (
    affiliation,
    alerts_at,
    bootstrap_mean,
    bootstrap_ratio,
    count_interval,
    event_delays,
    events,
    precision_recall,
    reliability,
    share_interval,
    vus_pr,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]

DAY_S = 86_400.0
CURVE_POINTS = 120
MOST_ALARMING = 0.05
"""P-value at which the curve ends: beyond it a device would be in alarm more often than not, and alarms that
run into each other would count as few."""
LEVELS = (0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Of the reliability curve."""


@dataclass(frozen=True, slots=True)
class Part:
    """The held-out part of one series, as one scorer judged it."""

    key: str
    ts_M: Floats
    labels_M: Labels
    """True inside events."""
    scores_M: Floats
    p_M: Floats
    """See ``scoring.p_values``."""

    @property
    def rarity(self) -> Floats:
        """-log10 of the p-values, shape (M,): larger is stranger, in every series alike."""
        rarity_M: Floats = -np.log10(self.p_M)
        return rarity_M


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its interval."""

    value: float | None
    """None: there is nothing to make it from."""
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Series, or events, that it comes from."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What people see of one part at one threshold."""

    part: Part
    alerts: tuple[int, ...]
    delays: tuple[float | None, ...]
    """Of each event, in seconds; None: not found."""
    false_alarms: int

    @property
    def found(self) -> int:
        """Events with an alert inside."""
        return sum(delay is not None for delay in self.delays)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One threshold of rarity for all series."""

    threshold: float
    false_per_day: float
    """False alarms per device and day."""
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerFigures:
    """Everything a report says of one scorer."""

    figures: dict[str, Figure]
    precision_recall: list[tuple[float, float]]
    """(recall, precision) of single readings."""
    operating: list[OperatingPoint]
    calibration: list[tuple[float, float]]
    """(level, share of the unlabelled readings with a p-value up to it)."""
    series: list[dict[str, Any]]
    slices: dict[str, list[dict[str, Any]]]
    vus: dict[str, float] = field(repr=False)
    """VUS-PR of each series with events, for comparisons."""

    def to_json(self) -> dict[str, Any]:
        """Return them as they stand in a report."""
        return {
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "precision_recall": self.precision_recall,
            "operating": [asdict(point) for point in self.operating],
            "calibration": self.calibration,
            "series": self.series,
            "slices": self.slices,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSettings:
    """At what figures are taken."""

    rate: float
    """Share of a healthy series' readings that may alarm: the detector's ``exceedance_rate``."""
    false_per_day: float = 0.1
    """False alarms per device and day that people bear, for the figures at a price."""
    quiet: int = 50
    """Readings without one above the threshold after which another one is another alarm."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.false_per_day <= 0 or self.quiet < 0:
            raise ValueError(f"rate must be in (0, 1), false_per_day positive, quiet not negative, got {self}")


def take_figures(
    parts: Sequence[Part],
    settings: FigureSettings,
    slices: Mapping[str, Callable[[str], str]],
    facts: Callable[[str], Mapping[str, Any]] = lambda _key: {},
) -> ScorerFigures:
    """Return the figures of one scorer.

    Args:
        parts: of every series, at least one.
        settings: at what they are taken.
        slices: by name, what slice a series' key belongs to.
        facts: what else a series' row says.
    """
    threshold = -float(np.log10(settings.rate))
    seen = [look(part, threshold, settings.quiet) for part in parts]
    curve = operating_curve(parts, settings.quiet)
    affordable = afford(curve, settings.false_per_day)
    at_price = [look(part, affordable.threshold, settings.quiet) for part in parts]
    vus = {part.key: vus_pr(part.scores_M, part.labels_M) for part in parts if _has_both(part.labels_M)}
    near = {part.key: affiliation(part.rarity >= threshold, part.labels_M) for part in parts if part.labels_M.any()}
    p_values = np.concatenate([part.p_M for part in parts])
    labels = np.concatenate([part.labels_M for part in parts])
    calibration = reliability(p_values, labels, LEVELS) if not labels.all() else []
    observed = reliability(p_values, labels, [settings.rate])[0][1] if not labels.all() else None
    figures = {
        "vus_pr": _mean(list(vus.values()), settings.seed),
        "affiliation_precision": _mean([one.precision for one in near.values()], settings.seed),
        "affiliation_recall": _mean([one.recall for one in near.values()], settings.seed),
        "affiliation_f1": _mean([one.f1 for one in near.values()], settings.seed),
        "event_recall": _recall(seen, settings.seed),
        "false_per_device_day": _false_rate(seen, settings.seed),
        "delay_s": _delay(seen, settings.seed),
        "event_recall_at_price": _recall(at_price, settings.seed),
        "false_per_device_day_at_price": _false_rate(at_price, settings.seed),
        "delay_at_price_s": _delay(at_price, settings.seed),
        "alarming_share": Figure(observed, n=int((~labels).sum())),
    }
    rows = [_row(one, vus.get(one.part.key), near.get(one.part.key)) | dict(facts(one.part.key)) for one in seen]
    return ScorerFigures(
        figures=figures,
        precision_recall=precision_recall(-np.log10(p_values), labels) if labels.any() else [],
        operating=curve,
        calibration=calibration,
        series=rows,
        slices={name: _slices(seen, vus, of, settings.seed) for name, of in slices.items()},
        vus=vus,
    )


def compare(first: Mapping[str, float], second: Mapping[str, float], seed: int) -> Figure:
    """Return by how much one scorer's figure of each series exceeds another's, on average."""
    shared = [first[key] - second[key] for key in first if key in second]
    return _mean(shared, seed)


def look(part: Part, threshold: float, quiet: int) -> Seen:
    """Return what people see of a part when readings at least as rare as ``threshold`` alarm."""
    alerts = alerts_at(part.rarity, threshold, quiet)
    delays = event_delays(alerts, part.labels_M, part.ts_M)
    outside = int((~part.labels_M[alerts]).sum()) if alerts else 0
    return Seen(part, tuple(alerts), tuple(delays), outside)


def operating_curve(parts: Sequence[Part], quiet: int) -> list[OperatingPoint]:
    """Return false alarms and found events over falling thresholds, as long as alarms are the exception."""
    falling = np.unique(np.concatenate([part.rarity for part in parts]))[::-1]
    falling = falling[falling >= -np.log10(MOST_ALARMING)]
    if not len(falling):
        return []
    ranks = np.unique(np.geomspace(1, len(falling), CURVE_POINTS).astype(int)) - 1
    days = device_days(parts)
    total = sum(len(events(part.labels_M)) for part in parts)
    points = []
    for threshold in falling[ranks].tolist():
        seen = [look(part, threshold, quiet) for part in parts]
        rate = sum(one.false_alarms for one in seen) / days
        points.append(OperatingPoint(threshold, rate, sum(one.found for one in seen) / total if total else 0.0))
    return points


def afford(curve: Sequence[OperatingPoint], false_per_day: float) -> OperatingPoint:
    """Return the lowest threshold of the curve that keeps to a number of false alarms per device and day.

    It is chosen on the readings that it is judged on: a figure to compare scorers at equal cost to people,
    not a promise of what yesterday's threshold does tomorrow.
    """
    best = OperatingPoint(np.inf, 0.0, 0.0)
    for point in curve:
        if point.false_per_day <= false_per_day and point.recall >= best.recall:
            best = point
    return best


def device_days(parts: Iterable[Part]) -> float:
    """Return how long all devices were watched together, in days."""
    spans: dict[str, tuple[float, float]] = {}
    for part in parts:
        first, last = float(part.ts_M[0]), float(part.ts_M[-1])
        known = spans.get(device_of(part.key), (first, last))
        spans[device_of(part.key)] = (min(known[0], first), max(known[1], last))
    return max(sum(last - first for first, last in spans.values()), 1.0) / DAY_S


def _has_both(labels_M: Labels) -> bool:
    return bool(labels_M.any() and not labels_M.all())


def _mean(values: Sequence[float], seed: int) -> Figure:
    if not values:
        return Figure(None)
    low, high = bootstrap_mean(values, seed) if len(values) > 1 else (None, None)
    return Figure(float(np.mean(values)), low, high, len(values))


def _recall(seen: Sequence[Seen], seed: int) -> Figure:
    found = [one.found for one in seen if one.delays]
    total = [len(one.delays) for one in seen if one.delays]
    if not total:
        return Figure(None)
    # Events of one series are alike: drawn anew by series, where there are several.
    interval = bootstrap_ratio(found, total, seed) if len(total) > 1 else share_interval(found[0], total[0])
    return Figure(sum(found) / sum(total), *interval, sum(total))


def _false_rate(seen: Sequence[Seen], seed: int) -> Figure:
    by_device: dict[str, list[Seen]] = {}
    for one in seen:
        by_device.setdefault(device_of(one.part.key), []).append(one)
    counts = [sum(one.false_alarms for one in group) for group in by_device.values()]
    days = [device_days(one.part for one in group) for group in by_device.values()]
    if len(counts) > 1:
        low, high = bootstrap_ratio(counts, days, seed)
    else:
        low, high = (bound / days[0] for bound in count_interval(counts[0]))
    return Figure(sum(counts) / sum(days), low, high, len(counts))


def _delay(seen: Sequence[Seen], seed: int) -> Figure:
    delays = np.array([delay for one in seen for delay in one.delays if delay is not None])
    if len(delays) < 2:
        return Figure(float(delays[0]) if len(delays) else None, n=len(delays))
    drawn = np.random.default_rng(seed).choice(delays, (2000, len(delays)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975]).tolist()
    return Figure(float(np.median(delays)), low, high, len(delays))


def _row(seen: Seen, vus: float | None, near: Any) -> dict[str, Any]:
    """Return a series' line of the report's table."""
    days = device_days([seen.part])
    known = [delay for delay in seen.delays if delay is not None]
    total = len(seen.delays)
    return {
        "key": seen.part.key,
        "readings": len(seen.part.ts_M),
        "days": days,
        "events": total,
        "found": seen.found,
        "recall_interval": share_interval(seen.found, total) if total else None,
        "false_alarms": seen.false_alarms,
        "false_per_day": seen.false_alarms / days,
        "false_per_day_interval": [bound / days for bound in count_interval(seen.false_alarms)],
        "delay_s": float(np.median(known)) if known else None,
        "vus_pr": vus,
        "affiliation_precision": None if near is None else near.precision,
        "affiliation_recall": None if near is None else near.recall,
    }


def _slices(
    seen: Sequence[Seen], vus: Mapping[str, float], of: Callable[[str], str], seed: int
) -> list[dict[str, Any]]:
    """Return the figures of each slice, in order of names."""
    groups: dict[str, list[Seen]] = {}
    for one in seen:
        groups.setdefault(of(one.part.key), []).append(one)
    return [
        {
            "name": name,
            "series": len(group),
            "vus_pr": asdict(_mean([vus[one.part.key] for one in group if one.part.key in vus], seed)),
            "event_recall": asdict(_recall(group, seed)),
            "false_per_device_day": asdict(_false_rate(group, seed)),
        }
        for name, group in sorted(groups.items())
    ]
