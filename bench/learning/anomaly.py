"""Anomaly detection on the shipped series: the floor's own detection, through the shipped code, beside opponents.

Two tables, because they answer two questions. *Causal*: no score knows a later reading; the floor's detection
where nothing was trained, whose scores are made for alarms, and the floor's ranking of whole faults (``multiscale``);
a plain autoregression's residual, PCA, nearest neighbours, chance. *Offline*: the whole series is seen first; the
floor's ``hindsight``, by which people find what to label; Sub-PCA, POLY and the matrix profile, rebuilt
(``_hindsight.py``). Settings of opponents are chosen on generated series (``_series.py``) and two named recordings,
and reported on the other five; *leave one out* chooses on all but the one that is reported. What may be chosen stands
in ``anomaly.json``, whose hash is printed. Last the NAB score, standard profile, of the causal ones.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a rate per core

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bench.learning import _hindsight
from bench.learning._nab import fresh_maxima, nab_score
from bench.learning._series import generated
from ingest.baseline import ARBaseline
from ingest.detection_settings import DetectorSettings
from training.data.labels import anomalous
from training.data.snapshots import Series, read_dataset
from training.evaluation.anomaly_metrics import bootstrap_mean, events, vus_pr
from training.evaluation.baselines import NearestScorer, PcaScorer
from training.evaluation.multiscale import MultiscaleScorer, hindsight
from training.evaluation.scoring import ChanceScorer, ar_baseline, p_values

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Setting = dict[str, int]
Scorer = Callable[..., Floats]

SETTINGS = Path(__file__).with_name("anomaly.json")
AR_BLOCK = 64
RANK_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Case:
    """One series with its events."""

    name: str
    series: Series
    labels: Labels


@dataclass(slots=True)
class Judged:
    """What one scorer made of all cases."""

    name: str
    grid: Sequence[Setting]
    vus: NDArray[np.float64]
    """By setting and case."""
    scores: list[dict[str, Floats]]
    """By setting, of the recordings."""
    cpu_s: float
    """Scoring only, of all settings."""


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield the causal table, the offline one, NAB's score, and what it cost.

    Args:
        seeds: generated series, each of its own seed.
    """
    began_s = time.process_time()
    text = SETTINGS.read_bytes()
    settings = json.loads(text)
    recorded = _recorded()
    planted = [Case(series.key, series, labels) for series, labels in (generated(seed) for seed in range(seeds))]
    common = {"seeds": seeds, "settings_sha256": hashlib.sha256(text).hexdigest()[:16]}
    tables: dict[str, Mapping[str, Scorer]] = {"causal": CAUSAL, "offline": OFFLINE}
    chosen: dict[str, tuple[Judged, int]] = {}
    for table, scorers in tables.items():
        judged = [_judge(name, scorers[name], grid, recorded, planted) for name, grid in settings[table].items()]
        for one in judged:
            row, setting = _row(one, recorded, settings["tuning"])
            chosen.setdefault(one.name, (one, setting))
            yield {"part": "anomaly", "case": table, "scorer": one.name} | row | common
    for name in settings["causal"]:
        one, setting = chosen[name]
        told = [(_told(one.scores[setting][case.name]), events(case.labels)) for case in recorded]
        yield {"part": "anomaly", "case": "nab-standard", "scorer": name, "score": round(nab_score(told), 1)} | common
    yield {"part": "anomaly", "case": "cost"} | _rate(recorded) | {"cpu_s": round(time.process_time() - began_s, 1)}


def _recorded() -> list[Case]:
    data = read_dataset("recorded", "", 0.0, 0.0)
    spans = data.labels.by_series()
    return [Case(one.key.split("/")[1], one, anomalous(spans[one.key], one.ts)) for one in data.series]


def _judge(
    name: str, scorer: Scorer, grid: Sequence[Setting], recorded: Sequence[Case], planted: Sequence[Case]
) -> Judged:
    vus = np.empty((len(grid), len(recorded) + len(planted)))
    kept: list[dict[str, Floats]] = []
    cpu_s = 0.0
    for number, setting in enumerate(grid):
        kept.append({})
        for place, case in enumerate([*recorded, *planted]):
            began_s = time.process_time()
            scores = scorer(case.series, **setting)
            cpu_s += time.process_time() - began_s
            # Before the first past nobody can say: least strange.
            scores = np.where(np.isfinite(scores), scores, np.nanmin(scores))
            vus[number, place] = vus_pr(scores, case.labels)
            if place < len(recorded):
                kept[-1][case.name] = scores
    return Judged(name, grid, vus, kept, cpu_s)


def _row(one: Judged, recorded: Sequence[Case], tuning: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Return a scorer's line, and the place of the setting that was chosen."""
    count = len(recorded)
    is_tuning = np.array([case.name in tuning for case in recorded])
    on_planted = one.vus[:, count:].mean(axis=1)
    chosen = int(np.argmax(on_planted + one.vus[:, :count][:, is_tuning].mean(axis=1)))
    reported = one.vus[chosen, :count][~is_tuning]
    low, high = bootstrap_mean(reported.tolist())
    left_out = []
    for place in range(count):
        others = np.delete(one.vus[:, :count], place, axis=1)
        left_out.append(one.vus[int(np.argmax(on_planted + others.mean(axis=1))), place])
    row = {
        "vus_pr": round(float(reported.mean()), 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "leave_one_out": round(float(np.mean(left_out)), 3),
        "generated": round(float(on_planted[chosen]), 3),
        "tuning": round(float(one.vus[chosen, :count][is_tuning].mean()), 3),
        "setting": one.grid[chosen],
        "by_series": {
            case.name: round(float(value), 3) for case, value in zip(recorded, one.vus[chosen, :count], strict=True)
        },
        "cpu_s": round(one.cpu_s, 1),
    }
    return row, chosen


def _told(scores_N: Floats) -> Floats:
    """Return how rare each score is by the series' own past, where it is above all recent ones."""
    rarity_N = np.zeros(len(scores_N))
    for begin in range(RANK_BLOCK, len(scores_N), RANK_BLOCK):
        block = slice(begin, begin + RANK_BLOCK)
        rarity_N[block] = -np.log10(p_values(scores_N[:begin], scores_N[block]))
    return fresh_maxima(rarity_N)


def _rate(recorded: Sequence[Case]) -> dict[str, Any]:
    """Return how many readings our causal scorers judge in a second of one core."""
    readings = sum(len(case.series.values) for case in recorded)
    rates = {}
    for name in ("floor", "multiscale"):
        found = []
        for _ in range(3):
            began_s = time.process_time()
            for case in recorded:
                CAUSAL[name](case.series)
            found.append(readings / (time.process_time() - began_s))
        rates[f"{name}_readings_per_s_per_core"] = round(float(np.median(found)))
    return rates


def _floor(series: Series) -> Floats:
    return ar_baseline(DetectorSettings()).scores(series, 0)


def _ar(series: Series, smooth: int) -> Floats:
    """Return the squared residual of a plain closed-form autoregression, refitted as the past grows."""
    values, settings = series.values, DetectorSettings()
    found = np.full(len(values), np.nan)
    fitted = 0
    for begin in range(AR_BLOCK, len(values), AR_BLOCK):
        if begin >= 1.25 * fitted:
            fitted = begin
            middle, scale = float(values[:begin].mean()), float(values[:begin].std()) or 1.0
            past = ((values[:begin] - middle) / scale).astype(np.float32)
            model = ARBaseline.fit(past, context=settings.context, ridge=settings.ridge)
        block = (values[begin - settings.context : begin + AR_BLOCK] - middle) / scale
        windows = np.ascontiguousarray(sliding_window_view(block, settings.context + 1), dtype=np.float32)
        found[begin : begin + len(windows)] = model.residuals(windows).astype(np.float64) ** 2
    return _smoothed(found, smooth)


def _pca(series: Series, width: int, smooth: int) -> Floats:
    return _smoothed(PcaScorer(width=width).scores(series, 0), smooth)


def _nearest(series: Series, width: int, smooth: int) -> Floats:
    return _smoothed(NearestScorer(width=width).scores(series, 0), smooth)


def _nearest_by_shape(series: Series, width: int, smooth: int) -> Floats:
    return _smoothed(NearestScorer(width=width, is_shape=True).scores(series, 0), smooth)


def _multiscale(series: Series) -> Floats:
    return MultiscaleScorer().scores(series, 0)


def _chance(series: Series) -> Floats:
    return ChanceScorer().scores(series, 0)


def _smoothed(scores_N: Floats, over: int) -> Floats:
    """Return the mean of the last ``over`` scores."""
    if over == 1:
        return scores_N
    sums = np.cumsum(np.concatenate([[0.0], np.nan_to_num(scores_N)]))
    ends = np.arange(1, len(scores_N) + 1)
    begins = np.maximum(ends - over, 0)
    means: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return means


CAUSAL: Mapping[str, Scorer] = {
    "floor": _floor,
    "multiscale": _multiscale,
    "ar": _ar,
    "pca": _pca,
    "nearest": _nearest,
    "nearest-by-shape": _nearest_by_shape,
    "chance": _chance,
}
OFFLINE: Mapping[str, Scorer] = {
    "hindsight": lambda series: hindsight(series.values),
    "sub-pca": lambda series, width: _hindsight.sub_pca(series.values, width),
    "poly": lambda series, width: _hindsight.poly(series.values, width),
    "discord": lambda series, width: _hindsight.discord(series.values, width, is_shape=False),
    "discord-by-shape": lambda series, width: _hindsight.discord(series.values, width, is_shape=True),
}
