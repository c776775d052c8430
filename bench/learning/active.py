"""How many labels active learning saves, beside random choice, modAL and scikit-activeml.

Pool-based: two thirds of a set are the pool, one third the test set, split anew by every seed. Each strategy
picks a batch a round; the model that is trained on what it picked and tested is always ours, ``classifier``,
with the same settings, so the curves differ by the choice alone. Opponents run in environments of their
own and see our model's probabilities and embeddings of the whole pool. ``random`` and the opponents begin
with the same random batch; TypiClust, theirs and ours, begins by itself, because beginning is what it is for. In the
rows ``+ our start`` the opponent goes on from our first batch.

``labels_95`` is where the mean curve reaches 95 % of the accuracy of the model trained on the whole pool;
``area`` the mean accuracy over the curve; ``worst_below_random`` the largest distance of the mean curve below
random's at any checkpoint. Intervals: 90 %, bootstrap over seeds.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from bench.learning._environment import Environment, python_of
from bench.learning._sets import LabelledSet, tables, telemetry
from training.labelling.classify import ClassifierSettings, classify, embed, train_classifier
from training.labelling.query import STRATEGIES, Pool, standardised

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

OURS = "default"
RANDOM = "random"
BEGINNERS = {OURS, "typiclust", "skactiveml typiclust"}
"""What chooses the first batch by itself."""
OWN = (OURS, RANDOM, "least_confidence")
OPPONENTS = {
    "modal": ("margin",),
    "skactiveml": ("badge", "coreset", "falcun", "typiclust"),
}
WITH_OUR_START = ("modal margin",)
SHARE = 0.95
RESAMPLES = 1000
SETTINGS = ClassifierSettings(calibration_folds=0, steps=60)
"""A round needs an order, not a calibrated figure; with all 100 steps accuracy is the same within 0.2 points."""


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a row a set and strategy, then what they come to together."""
    yield from measure(sets(), range(seeds), compared())


def compared() -> list[str]:
    """Return the names of all that is compared."""
    strategies = [*OWN, *(f"{library} {name}" for library, names in OPPONENTS.items() for name in names)]
    strategies += [f"{name} + our start" for name in WITH_OUR_START]
    return strategies


def sets() -> list[LabelledSet]:
    """Return what is measured on."""
    with Environment("modal") as environment:
        return [*tables(environment), telemetry()]


def measure(measured: list[LabelledSet], seeds: range, strategies: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows for these seeds."""
    curves: dict[tuple[str, str], list[Floats]] = {}
    full: dict[str, list[float]] = {}
    jobs = [(one, seed, name) for one in measured for seed in seeds for name in ["full", *strategies]]
    for library in OPPONENTS:
        python_of(library)  # now: of several processes each would make it
    shown = Progress(console=Console(stderr=True), transient=True)
    with shown, ProcessPoolExecutor(min(4, os.cpu_count() or 1), initializer=_start) as processes:
        bar = shown.add_task("curves", total=len(jobs))
        for (one, _, name), curve in zip(jobs, processes.map(_job, jobs), strict=True):
            shown.advance(bar)
            if name == "full":
                full.setdefault(one.name, []).append(float(curve[0]))
            else:
                curves.setdefault((one.name, name), []).append(curve)
    ratios: dict[str, list[Floats]] = {}
    for one in measured:
        at = np.array(checkpoints(one))
        target = np.array(full[one.name])
        baseline = np.stack(curves[one.name, RANDOM])
        for name in strategies:
            own = np.stack(curves[one.name, name])
            row, ratio = _compared(own, baseline, target, at)
            ratios.setdefault(name, []).append(ratio)
            yield {"part": "active", "case": one.name, "strategy": name} | row | {"seeds": f"{seeds[0]}-{seeds[-1]}"}
    for name in strategies:
        together = np.exp(np.log(np.stack(ratios[name])).mean(axis=0))
        yield {
            "part": "active",
            "case": "all sets, geometric mean",
            "strategy": name,
            "labels_to_random": round(float(together[0]), 3),
            "labels_to_random_interval": _interval(together[1:]),
            "seeds": f"{seeds[0]}-{seeds[-1]}",
        }


def checkpoints(one: LabelledSet) -> list[int]:
    """Return the labels at which a curve is measured."""
    return list(range(one.batch, one.budget + 1, one.batch))


def _compared(own_SK: Floats, random_SK: Floats, full_S: Floats, at_K: Floats) -> tuple[dict[str, Any], Floats]:
    """Return a row, and the labels to those of random: first of all seeds, then of each resample."""
    resampled = np.random.default_rng(0).integers(len(full_S), size=(RESAMPLES, len(full_S)))
    picks = [np.arange(len(full_S)), *resampled]
    needed = np.array([_needed(own_SK[pick].mean(axis=0), SHARE * full_S[pick].mean(), at_K) for pick in picks])
    theirs = np.array([_needed(random_SK[pick].mean(axis=0), SHARE * full_S[pick].mean(), at_K) for pick in picks])
    ahead_K = own_SK.mean(axis=0) - random_SK.mean(axis=0)
    areas = own_SK.mean(axis=1)
    row = {
        "labels_95": round(float(needed[0]), 1),
        "labels_95_interval": _interval(needed[1:]),
        "labels_to_random": round(float(needed[0] / theirs[0]), 3),
        "labels_to_random_interval": _interval(needed[1:] / theirs[1:]),
        "area": round(float(areas.mean()), 4),
        "area_interval": _interval(areas[resampled].mean(axis=1)),
        "worst_below_random": round(float(max(0.0, -ahead_K.min())), 4),
        "at": int(at_K[ahead_K.argmin()]),
        "full_accuracy": round(float(full_S.mean()), 4),
    }
    return row, needed / theirs


def _needed(curve_K: Floats, wanted: float, at_K: Floats) -> float:
    """Return where a curve first reaches ``wanted``, on the line between checkpoints; never: the last one."""
    above = np.flatnonzero(curve_K >= wanted)
    if not len(above):
        return float(at_K[-1])
    k = int(above[0])
    if k == 0:
        return float(at_K[0])
    part = (wanted - curve_K[k - 1]) / (curve_K[k] - curve_K[k - 1])
    return float(at_K[k - 1] + part * (at_K[k] - at_K[k - 1]))


def _interval(values: Floats) -> list[float]:
    return [round(float(bound), 4) for bound in np.quantile(values, (0.05, 0.95))]


_environments: dict[str, Environment] = {}


def _start() -> None:
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(OSError):
        sys.stdin.close()


def _job(job: tuple[LabelledSet, int, str]) -> Floats:
    one, seed, name = job
    order = np.random.default_rng(seed).permutation(len(one.target_N))
    held = len(order) // 3
    return curve(one, order[held:], order[:held], seed, name)


def curve(one: LabelledSet, pool: Indices, test: Indices, seed: int, name: str) -> Floats:
    """Return the test accuracy after each batch that a strategy chose; of ``full``: the whole pool's."""
    features, target = one.features_NF[pool], one.target_N[pool]
    asked, _, start = name.partition(" + ")
    chosen = np.arange(len(pool)) if name == "full" else np.empty(0, dtype=np.intp)
    proba = np.full((len(pool), len(one.classes)), 1.0 / len(one.classes))
    embedding = standardised(features)
    rng = np.random.default_rng([seed, 1])
    accuracies = []
    for number in range(1 if name == "full" else len(checkpoints(one))):
        if name != "full":
            begins_itself = asked in BEGINNERS
            strategy = asked if number or begins_itself else (OURS if start else RANDOM)
            chosen = np.concatenate(
                [chosen, _pick(strategy, one, proba, embedding, chosen, target, seed + number, rng)]
            )
        model = train_classifier(features[chosen], target[chosen], one.classes, SETTINGS)
        found = classify(model, one.features_NF[test]).argmax(axis=1)
        accuracies.append(float((found == one.target_N[test]).mean()))
        if name not in ("full", RANDOM):
            proba, embedding = classify(model, features), embed(model, features)
    return np.array(accuracies)


def _pick(
    name: str,
    one: LabelledSet,
    proba: Floats,
    embedding: Floats,
    chosen: Indices,
    target: Indices,
    seed: int,
    rng: np.random.Generator,
) -> Indices:
    free = np.setdiff1d(np.arange(len(target)), chosen)
    library, _, strategy = name.partition(" ")
    if library in OPPONENTS:
        if library not in _environments:
            _environments[library] = Environment(library)
        (answer,) = _environments[library].ask(
            library=library,
            strategy=strategy,
            proba=proba,
            embedding=embedding,
            labelled=chosen,
            target=target[chosen],
            free=free,
            k=one.batch,
            seed=seed,
        )
        return answer.astype(np.intp)
    pool = Pool(proba_NC=proba[free], embedding_NE=embedding[free], labelled_LE=embedding[chosen])
    return free[STRATEGIES[name](pool, one.batch, rng)]
