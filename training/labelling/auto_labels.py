"""Which samples a model may label by itself: those above a threshold that random audits vouch for.

Pure numpy. Knows no model and no queue. Invariants: the threshold rests on people's answers about
samples drawn at random, which the model was not trained on, and on nothing else; where they do not prove the
precision asked for, there is no threshold and nothing is labelled.

Shapes: A audited samples, N others.

References:
    Clopper, Pearson, The Use of Confidence or Fiducial Limits (1934); Angelopoulos et al., Learn then Test
    (2021), for testing thresholds in a fixed order.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

STEPS = 20
"""Thresholds that are tried below the strictest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoSettings:
    """What a model must have proved before it labels."""

    precision: float = 0.99
    """Share of its labels that must be right."""
    trust: float = 0.9
    """How sure that must be: at most one calibration in ten may promise too much."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.precision < 1:
            raise ValueError(f"precision must be 0.5 to below 1, got {self.precision}")
        if not 0.5 <= self.trust < 1:
            raise ValueError(f"trust must be 0.5 to below 1, got {self.trust}")

    @property
    def min_audits(self) -> int:
        """Audits above the threshold without a mistake that prove ``precision``: 230 as it stands."""
        return math.ceil(math.log(1.0 - self.trust) / math.log(self.precision))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the audits say."""

    threshold: float | None
    """The model labels from this confidence on; None: it must not label anything."""
    audits: int
    """People's answers that it rests on: what it cost."""
    accepted: int = 0
    """Of them at or above the threshold."""
    mistakes: int = 0
    """Of those, where the model was wrong."""
    precision_at_least: float = 0.0
    """Lower bound of the precision above the threshold, with ``AutoSettings.trust``."""
    why: str = ""
    """Why there is no threshold, in a person's words."""


def calibrate(confidence_A: Floats, is_right_A: Flags, settings: AutoSettings | None = None) -> Calibration:
    """Return the lowest threshold above which the audits prove the precision.

    Thresholds are tried from the strictest one that could pass downwards, and the first that fails ends
    it; which ones are tried depends on the confidences alone, so that trying many does not weaken the proof.

    Args:
        confidence_A: the model's, of samples drawn at random that it was not trained on.
        is_right_A: whether a person said the same.
        settings: what must be proved.
    """
    settings = settings or AutoSettings()
    audits = len(confidence_A)
    if audits < settings.min_audits:
        return Calibration(
            threshold=None, audits=audits, why=f"{settings.min_audits} audits are needed, there are {audits}"
        )
    descending = np.sort(confidence_A)[::-1]
    best: Calibration | None = None
    for count in np.unique(np.linspace(settings.min_audits, audits, STEPS + 1).astype(int)):
        threshold = float(descending[count - 1])
        accepted = confidence_A >= threshold
        mistakes = int((~is_right_A[accepted]).sum())
        bound = lower_bound(int(accepted.sum()), mistakes, settings.trust)
        if bound < settings.precision:
            break
        best = Calibration(
            threshold=threshold,
            audits=audits,
            accepted=int(accepted.sum()),
            mistakes=mistakes,
            precision_at_least=bound,
        )
    if best is None:
        return Calibration(
            threshold=None,
            audits=audits,
            accepted=int(accepted.sum()),
            mistakes=mistakes,
            precision_at_least=bound,
            why=f"{mistakes} mistakes among the {int(accepted.sum())} surest of {audits} audits",
        )
    return best


def lower_bound(count: int, mistakes: int, trust: float) -> float:
    """Return the share of right ones that ``count`` draws with so many mistakes prove, one-sided (Clopper-Pearson)."""
    if count == 0 or mistakes >= count:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):  # halving: exact to the last bit, and no beta function is needed
        middle = (low + high) / 2
        if _at_most(mistakes, count, 1.0 - middle) <= 1.0 - trust:
            low = middle
        else:
            high = middle
    return low


def interval(count: int, right: int, trust: float = 0.9) -> tuple[float, float]:
    """Return the two-sided interval of a share that ``right`` of ``count`` random draws speak for."""
    if count == 0:
        return 0.0, 1.0
    one_side = 1.0 - (1.0 - trust) / 2
    return lower_bound(count, count - right, one_side), 1.0 - lower_bound(count, right, one_side)


def _at_most(mistakes: int, count: int, rate: float) -> float:
    """Return the probability of at most so many mistakes in ``count`` draws at this rate."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(rate) + (count - k) * math.log1p(-rate)
        for k in range(mistakes + 1)
    ]  # fmt: skip
    return min(1.0, sum(math.exp(one) for one in logs))
