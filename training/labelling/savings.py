"""How many labels choosing them saved, measured on the audits: the only labels that nobody chose.

Torch, no Ray, no SQL. Networks are trained on more and more of the audits and judged on the others: that is
the curve of random labels. Where it reaches the accuracy of the model of the chosen labels is what those would
have cost. Invariant: nothing is judged on what it was trained on.

Shapes: A audits, F features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.labelling.classify import ClassifierSettings, classify, train_classifier

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MIN_AUDITS = 40
"""Fewer say nothing about a curve."""
PARTS = (0.125, 0.25, 0.5, 0.75)
"""Sizes at which the curve is measured, of all audits."""
REPEATS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What the chosen labels would have cost at random."""

    chosen: int
    """Labels that were chosen, and the model learned from."""
    at_random: tuple[int, int, int] | None
    """Random labels for the same accuracy: estimate, lower and upper bound; None: there are too few audits."""
    is_more: bool
    """Whether the estimate is the end of the curve, and the truth is more."""

    @property
    def saved(self) -> int | None:
        """Labels saved, negative when chance would have done better; None: not known."""
        return None if self.at_random is None else self.at_random[0] - self.chosen


def measure_savings(
    features_AF: Floats,
    target_A: Indices,
    classes: tuple[str, ...],
    accuracy: tuple[float, float, float],
    chosen: int,
    seed: int = 0,
) -> Savings:
    """Return what the chosen labels would have cost at random.

    Args:
        features_AF: the audited samples.
        target_A: what people said of them, places in ``classes``.
        classes: names of the classes.
        accuracy: of the model of the chosen labels on the audits: share, lower and upper bound.
        chosen: how many labels it learned from.
        seed: of the curve's draws.
    """
    count = len(target_A)
    if count < MIN_AUDITS:
        return Savings(chosen=chosen, at_random=None, is_more=False)
    rng = np.random.default_rng(seed)
    settings = ClassifierSettings(calibration_folds=0, steps=60, members=3)
    sizes = [max(2, round(part * count)) for part in PARTS]
    reached = []
    for size in sizes:
        right = []
        for _ in range(REPEATS):
            order = rng.permutation(count)
            trained, judged = order[:size], order[size:]
            model = train_classifier(features_AF[trained], target_A[trained], classes, settings)
            right.append(float((classify(model, features_AF[judged]).argmax(axis=1) == target_A[judged]).mean()))
        reached.append(float(np.mean(right)))
    # More labels do not make it worse: what looks so is chance.
    curve = np.maximum.accumulate(reached)
    found = [_where(curve, sizes, wanted) for wanted in accuracy]
    return Savings(chosen=chosen, at_random=(found[0], min(found), max(found)), is_more=bool(curve[-1] < accuracy[0]))


def _where(curve: Floats, sizes: list[int], wanted: float) -> int:
    """Return where a rising curve reaches ``wanted``; beyond its end: its end."""
    above = np.flatnonzero(curve >= wanted)
    if not len(above):
        return sizes[-1]
    place = int(above[0])
    if place == 0:
        return sizes[0]
    part = (wanted - curve[place - 1]) / (curve[place] - curve[place - 1])
    return round(sizes[place - 1] + float(part) * (sizes[place] - sizes[place - 1]))
