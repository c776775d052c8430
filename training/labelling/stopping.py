"""When more labels no longer change the model: agreement of models that follow each other.

Pure. Needs no labels: the models are compared on samples that nobody has labelled. Invariant:
agreement by chance does not count, so a model that always says the same never looks settled
because of it.

Shapes: S samples of the stop set, C classes.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingSettings:
    """When it is enough."""

    agreement: float = 0.99
    """Mean kappa of the last comparisons from which on more labels are not worth it."""
    window: int = 3
    """Comparisons that count."""

    def __post_init__(self) -> None:
        if not 0 < self.agreement <= 1:
            raise ValueError(f"agreement must be above 0 and at most 1, got {self.agreement}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")


class KappaStopping:
    """Watches what each round's model says of one stop set.

    References:
        Bloodgood, Vijay-Shanker, A Method for Stopping Active Learning Based on Stabilizing Predictions
        (CoNLL 2009); the change of F is below 4 (1 - kappa) / kappa (Bloodgood, Grothendieck 2013).
    """

    def __init__(self, settings: StoppingSettings | None = None) -> None:
        self._settings = settings or StoppingSettings()
        self._before: Classes | None = None
        self._agreements: deque[float] = deque(maxlen=self._settings.window)

    def watch(self, said_S: Classes) -> bool:
        """Take in a model's classes of the stop set; return whether labelling may stop.

        Raises:
            ValueError: another number of samples than before.
        """
        before, self._before = self._before, said_S.copy()
        if before is not None:
            self._agreements.append(kappa(before, said_S))
        return len(self._agreements) == self._settings.window and self.agreement >= self._settings.agreement

    @property
    def agreement(self) -> float:
        """Mean kappa of the last comparisons; 0 before there is one."""
        return float(np.mean(self._agreements)) if self._agreements else 0.0


def kappa(one_S: Classes, other_S: Classes) -> float:
    """Return Cohen's kappa of two lists of classes, 1 for equal ones, about 0 for chance.

    Two lists that both name one and the same class everywhere agree by chance alone: 0.

    Raises:
        ValueError: the lists differ in length or are empty.
    """
    if len(one_S) != len(other_S) or len(one_S) == 0:
        raise ValueError(f"two lists of the same length are needed, got {len(one_S)} and {len(other_S)}")
    classes = 1 + max(int(one_S.max()), int(other_S.max()))
    share_one, share_other = (np.bincount(said, minlength=classes) / len(said) for said in (one_S, other_S))
    by_chance = float(share_one @ share_other)
    if by_chance >= 1.0:
        return 0.0
    return float(((one_S == other_S).mean() - by_chance) / (1.0 - by_chance))
