"""Labels that the model gives itself: how many, how right, and what the audits cost.

``digits`` and the generated windows: 150 labels chosen by the default strategy in rounds of ten train the
classifier, then ``AUDITS`` of the other samples, drawn at random, are put to a person. What they say sets the
threshold, and the model labels the samples above it that are left. Precision is of those labels, coverage
their share of the samples left. Beside it the fixed threshold of 0.85 that the replaced system used, on
the same model and samples, without an audit. Sets where 0.99 cannot be proved: windows whose faults are
hardly larger than noise, and two tables too small for the audits. Intervals: 90 %, bootstrap over seeds.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench.learning._environment import Environment
from bench.learning._sets import LabelledSet, tables, telemetry
from training.labelling.auto_labels import AutoSettings, calibrate
from training.labelling.classify import ClassifierSettings, classify, embed, train_classifier
from training.labelling.query import DEFAULT, STRATEGIES, Pool, standardised

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

LABELS = 150
BATCH = 10
AUDITS = 350
SMALL = 0.35
"""Size of the faults that cannot be told from noise."""
FIXED = 0.85
RESAMPLES = 1000


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield two rows a set: by calibration, and by the fixed threshold."""
    yield from measure(range(seeds))


def measure(seeds: range) -> Iterator[dict[str, Any]]:
    """Yield the rows for these seeds."""
    torch.set_num_threads(1)
    with Environment("modal") as environment:
        measured = [*tables(environment), telemetry(), telemetry(overlap=SMALL)]
    for one in measured:
        shown = track(seeds, description=one.name, console=Console(stderr=True), transient=True)
        found = [_labelled(one, seed) for seed in shown]
        for name in ("calibrated", "fixed 0.85"):
            yield _row(one.name, name, np.array([each[name] for each in found]), seeds)


def _labelled(one: LabelledSet, seed: int) -> dict[str, tuple[float, ...]]:
    rng = np.random.default_rng(seed)
    count = len(one.target_N)
    audits = min(AUDITS, (count - LABELS) // 2 if count > LABELS else 0)
    model, chosen = chosen_and_trained(one, min(LABELS, count // 2), seed)
    rest = rng.permutation(np.setdiff1d(np.arange(count), chosen))
    audited, left = rest[:audits], rest[audits:]
    proba = classify(model, one.features_NF)
    sure, says = proba.max(axis=1), proba.argmax(axis=1)
    is_right = says == one.target_N
    found = calibrate(sure[audited], is_right[audited], AutoSettings())
    own = sure[left] >= found.threshold if found.threshold is not None else np.zeros(len(left), dtype=bool)
    fixed = sure[left] >= FIXED
    threshold = np.nan if found.threshold is None else found.threshold
    return {
        "calibrated": (own.sum(), is_right[left][own].sum(), len(left), audits, threshold),
        "fixed 0.85": (fixed.sum(), is_right[left][fixed].sum(), len(left), 0, FIXED),
    }


def chosen_and_trained(one: LabelledSet, labels: int, seed: int) -> tuple[Any, Indices]:
    """Return the classifier of ``labels`` samples that the default strategy chose, and which those are."""
    rng = np.random.default_rng([seed, 1])
    everything = np.arange(len(one.target_N))
    chosen = np.empty(0, dtype=np.intp)
    proba = np.full((len(everything), len(one.classes)), 1.0 / len(one.classes))
    embedding = standardised(one.features_NF)
    quick = ClassifierSettings(calibration_folds=0)
    while len(chosen) < labels:
        free = np.setdiff1d(everything, chosen)
        pool = Pool(proba_NC=proba[free], embedding_NE=embedding[free], labelled_LE=embedding[chosen])
        picked = STRATEGIES[DEFAULT](pool, min(BATCH, labels - len(chosen)), rng)
        chosen = np.concatenate([chosen, free[picked]])
        if len(chosen) < labels:
            model = train_classifier(one.features_NF[chosen], one.target_N[chosen], one.classes, quick)
            proba, embedding = classify(model, one.features_NF), embed(model, one.features_NF)
    return train_classifier(one.features_NF[chosen], one.target_N[chosen], one.classes), chosen


def _row(case: str, name: str, found_S5: Floats, seeds: range) -> dict[str, Any]:
    resampled = np.random.default_rng(0).integers(len(found_S5), size=(RESAMPLES, len(found_S5)))
    labelled, right, left, audits, threshold = found_S5.T
    row: dict[str, Any] = {"part": "auto_labels", "case": case, "threshold_is": name}
    if labelled.sum():
        per_resample = right[resampled].sum(axis=1) / np.maximum(labelled[resampled].sum(axis=1), 1)
        row["precision"] = round(float(right.sum() / labelled.sum()), 4)
        row["precision_interval"] = [round(float(bound), 4) for bound in np.quantile(per_resample, (0.05, 0.95))]
        row["precision_worst_seed"] = round(float((right / np.maximum(labelled, 1))[labelled > 0].min()), 4)
    coverage = labelled / left
    row |= {
        "coverage": round(float(coverage.mean()), 3),
        "coverage_interval": [
            round(float(bound), 3) for bound in np.quantile(coverage[resampled].mean(axis=1), (0.05, 0.95))
        ],
        "seeds_that_labelled": int((labelled > 0).sum()),
        "auto_labels": round(float(labelled.mean())),
        "audit_cost": round(float(audits.mean())),
        "threshold": None if np.isnan(threshold).all() else round(float(np.nanmedian(threshold)), 4),
        "seeds": f"{seeds[0]}-{seeds[-1]}",
    }
    return row
