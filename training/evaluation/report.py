"""The report of one model version on one data set: itself, and the honest baselines beside it.

Scores every series with every scorer and takes the same figures of all. Pure but for the scorers' own work:
storage, registry and SQL are the caller's. Invariants: figures come from the held-out part alone; every
scorer is judged on the same readings; a reading whose label counts neither way is nobody's hit or miss.

Shapes: N readings of a series, M of its held-out part.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.labels import Meaning, anomalous
from training.data.snapshots import Dataset, Series
from training.data.split import Split, device_of
from training.data.versions import DatasetManifest
from training.errors import NotEnoughDataError
from training.evaluation.anomaly_metrics import events
from training.evaluation.figures import FigureSettings, Part, ScorerFigures, compare, device_days, take_figures
from training.evaluation.scoring import SeriesScorer, p_values

FORMAT = 1
"""Raised when a reader of an older version could misunderstand a new report."""
MIN_HISTORY = 100
"""Scored readings before the held-out part that p-values are made of; of fewer they say nothing."""
MIN_HELD_OUT = 10
MOST_SERIES = 1000
"""Lines of the report's table, of each scorer."""
DIGITS = 6

Labels = NDArray[np.bool_]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContext:
    """What a report says beside the figures."""

    sites: Mapping[str, str] = field(default_factory=dict)
    """Site of a device, by ``tenant/device``."""
    trained_on: DatasetManifest | None = None
    """The data set of the version; None: unknown, or nothing was trained."""


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """The held-out part of one series, before anybody judged it."""

    series: Series
    history: int
    """Readings before it."""
    labels_M: Labels
    counts_M: Labels
    """False where nobody could say."""


def make_report(
    dataset: Dataset,
    scorers: Sequence[SeriesScorer],
    settings: FigureSettings,
    context: ReportContext | None = None,
    progress: Progress = lambda _percent, _text: None,
) -> dict[str, Any]:
    """Return the report as one JSON object.

    Args:
        dataset: a frozen version; its held-out part is judged.
        scorers: what the report is of, then the baselines beside it.
        settings: at what figures are taken.
        context: what else it says.
        progress: hears percent and what is going on.

    Raises:
        NotEnoughDataError: no series has enough readings before and in its held-out part.
    """
    assert dataset.split is not None, "only a frozen data set has a held-out part that stays"
    context = context or ReportContext()
    held_out = _held_out(dataset, dataset.split)
    judged = [_judged(scorer, held_out, at, len(scorers), progress) for at, scorer in enumerate(scorers)]
    # All on the same readings: a series that one of them could not judge is left out for all.
    keys = [one.series.key for one in held_out if all(one.series.key in parts for parts in judged)]
    if not keys:
        least = MIN_HISTORY + MIN_HELD_OUT
        raise NotEnoughDataError(dataset.name, "a report", 0, least, dataset.num_readings, len(dataset.series))
    slices, facts = _slicers(dataset.split, context), _facts(dataset.split, context)
    found = [take_figures([parts[key] for key in keys], settings, slices, facts) for parts in judged]
    parts = [judged[0][key] for key in keys]
    document = {
        "format": FORMAT,
        "dataset": dataset.to_json() | {"labels_are_complete": dataset.labels.are_complete},
        "held_out": _extent(dataset, dataset.split, parts),
        "settings": asdict(settings),
        "notes": _notes(dataset, parts, found[0]),
        "scorers": [
            {"name": scorer.name, "kind": "baseline" if at else "model"} | _shortened(figures).to_json()
            for at, (scorer, figures) in enumerate(zip(scorers, found, strict=True))
        ],
        "comparisons": [
            {"against": scorer.name, "vus_pr": asdict(compare(found[0].vus, figures.vus, settings.seed))}
            for scorer, figures in zip(scorers[1:], found[1:], strict=True)
        ],
    }
    rounded: dict[str, Any] = _rounded(document)
    return rounded


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that a task's result and a list show: by scorer, by figure, the value alone."""
    return {
        scorer["name"]: {name: figure["value"] for name, figure in scorer["figures"].items()}
        for scorer in report["scorers"]
    }


def _held_out(dataset: Dataset, split: Split) -> list[_HeldOut]:
    """Return the held-out parts that are long enough to be judged."""
    by_series = dataset.labels.by_series()
    found = []
    for one in dataset.series:
        _, history = split.points(one.key, one.ts)
        if history < MIN_HISTORY or len(one.ts) - history < MIN_HELD_OUT:
            continue
        spans, ts_M = by_series.get(one.key, []), one.ts[history:]
        unsure = [replace(span, value=Meaning.ANOMALY) for span in spans if span.meaning is Meaning.UNSURE]
        labels_M = anomalous(spans, ts_M)
        found.append(_HeldOut(one, history, labels_M, labels_M | ~anomalous(unsure, ts_M)))
    return found


def _judged(
    scorer: SeriesScorer, held_out: Sequence[_HeldOut], at: int, of: int, progress: Progress
) -> dict[str, Part]:
    """Return what a scorer makes of every held-out part that it can judge, by the series' key."""
    parts = {}
    for number, one in enumerate(held_out):
        progress(100.0 * (at + number / len(held_out)) / of, f"scoring with {scorer.name}")
        part = _judge(scorer, one)
        if part is not None:
            parts[one.series.key] = part
    return parts


def _judge(scorer: SeriesScorer, one: _HeldOut) -> Part | None:
    """Return a scorer's part; None when it gave too few scores before, or not all of them in it."""
    scores_N = scorer.scores(one.series, one.history)
    history_H = scores_N[: one.history]
    history_H = history_H[np.isfinite(history_H)]
    scores_M = scores_N[one.history :][one.counts_M]
    if len(history_H) < MIN_HISTORY or len(scores_M) < MIN_HELD_OUT or not np.isfinite(scores_M).all():
        return None
    ts_M = one.series.ts[one.history :][one.counts_M]
    return Part(one.series.key, ts_M, one.labels_M[one.counts_M], scores_M, p_values(history_H, scores_M))


def _extent(dataset: Dataset, split: Split, parts: Sequence[Part]) -> dict[str, Any]:
    devices = {device_of(part.key) for part in parts}
    return {
        "series": len(parts),
        "left_out": len(dataset.series) - len(parts),
        "devices": len(devices),
        "unseen_devices": len(devices & split.held_out),
        "readings": sum(len(part.ts_M) for part in parts),
        "events": sum(len(events(part.labels_M)) for part in parts),
        "device_days": device_days(parts),
        "from_ts": min(float(part.ts_M[0]) for part in parts),
        "to_ts": max(float(part.ts_M[-1]) for part in parts),
    }


def _slicers(split: Split, context: ReportContext) -> dict[str, Callable[[str], str]]:
    return {
        "device": device_of,
        "site": lambda key: context.sites.get(device_of(key), "(none)"),
        "channel": lambda key: key.split("/", 2)[2],
        "known": lambda key: "trained on" if split.trains(key) else "never trained on",
    }


def _facts(split: Split, context: ReportContext) -> Callable[[str], dict[str, Any]]:
    """Return what a series' line says of its place in the world, and of what the model knew of it."""
    learned = _learned(context.trained_on)

    def facts(key: str) -> dict[str, Any]:
        device = device_of(key)
        begins = split.cuts[device][1]
        return {
            "device": device,
            "site": context.sites.get(device),
            "channel": key.split("/", 2)[2],
            "trains": split.trains(key),
            # Whether the version learned from readings of what it is judged on here; None: nobody knows.
            "was_trained_on": None if context.trained_on is None else learned.get(key, -math.inf) > begins,
        }

    return facts


def _learned(manifest: DatasetManifest | None) -> dict[str, float]:
    """Return until when a version learned from each series, device times in seconds since the Unix epoch."""
    if manifest is None:
        return {}
    split = Split.from_json(manifest.split)
    keys = [str(one["key"]) for one in manifest.series]
    # The validation part chose the epoch: whatever lies before the version's own held-out part was seen.
    return {key: split.cuts[device_of(key)][1] for key in keys if split.trains(key)}


def _notes(dataset: Dataset, parts: Sequence[Part], model: ScorerFigures) -> list[str]:
    """Return what a reader must know before believing the figures."""
    notes = []
    total = sum(len(events(part.labels_M)) for part in parts)
    if not total:
        notes.append("no labelled anomaly lies in the held-out part: nothing can be said of precision, recall or delay")
    if not dataset.labels.are_complete:
        notes.append("readings that nobody judged count as normal, so some false alarms may be right")
    if 0 < total < 5:
        notes.append(f"{total} labelled anomalies are few: look at the intervals")
    seen = sum(row.get("was_trained_on") is True for row in model.series)
    if seen:
        notes.append(f"the version was trained on readings that it is judged on here, in {seen} of {len(parts)} series")
    if any(row.get("was_trained_on") is None for row in model.series):
        notes.append("nobody knows what the version was trained on: it may have seen what it is judged on here")
    left_out = len(dataset.series) - len(parts)
    if left_out:
        notes.append(f"{left_out} series are too short to be judged")
    return notes


def _shortened(figures: ScorerFigures) -> ScorerFigures:
    return replace(figures, series=figures.series[:MOST_SERIES])


def _rounded(value: Any) -> Any:
    """Return JSON of finite numbers with ``DIGITS`` significant digits; times keep all of theirs."""
    if isinstance(value, dict):
        return {name: item if name.endswith("_ts") else _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
