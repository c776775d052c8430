"""How rare is a reading, compared with the same series' own past and nothing else.

Each feature of a reading gets a causal conformal tail rank, -log10 of the share of earlier
readings that were at least as extreme; the score is their sum. No distribution is assumed
for the features; only the threshold, which lies beyond what was seen, extends the scores'
own upper tail by an exponential. Invariants: a reading is never compared with later ones,
except by ``refill``; and ranks do not depend on how readings were cut into calls.

Shapes: F features, T tails (some features have two), M readings of a call, N of the history.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.detection_settings import BLOCK

Features = NDArray[np.float32]
Ranks = NDArray[np.float64]

HIGH = 1
LOW = -1

EARLIER = np.tri(BLOCK, k=-1, dtype=bool)
"""[j, i]: does reading i of a block come before reading j."""

MIN_MEAN_EXCESS = 0.1
"""Lower bound of the fitted tail's scale: a history of equal scores must not make it zero."""


class RankHistory:
    """Earlier values of each feature, sorted, for the ranks of the next ones."""

    def __init__(self, tails: tuple[tuple[int, int], ...], capacity: int) -> None:
        """Begin empty.

        Args:
            tails: (feature, HIGH or LOW) of each rank wanted.
            capacity: readings kept, at least a block; the newest block lies unsorted beside them.
        """
        self._tails = tails
        self._capacity = capacity
        self._feature_T = np.array([feature for feature, _ in tails])
        # Low tails are high tails of the negated feature; float32 negation is exact.
        self._side_T1 = np.array([[side] for _, side in tails], dtype=np.float32)
        num_features = 1 + max(feature for feature, _ in tails)
        self._past_FN = np.empty((num_features, 0), dtype=np.float32)
        self._sorted_FN = self._past_FN
        self._known_F = np.zeros(num_features, dtype=np.int64)
        self._block_FM = np.empty((num_features, BLOCK), dtype=np.float32)
        self._filled = 0

    @property
    def room(self) -> int:
        """Readings that the next call of ``judge`` may bring."""
        return BLOCK - self._filled

    def judge(self, features_FM: Features) -> Ranks:
        """Rank readings against all before them, then take them into the history.

        Args:
            features_FM: shape (F, M), 1 <= M <= ``room``; NaN where a feature has no value.

        Returns:
            Shape (T, M): -log10 of the tail rank, 0 for NaN; at most log10(N + 1).
        """
        count = features_FM.shape[1]
        first, last = self._filled, self._filled + count
        self._block_FM[:, first:last] = features_FM
        block_TK = self._block_FM[self._feature_T, :last] * self._side_T1
        values_TM = block_TK[:, first:]
        # NaN compares as False, so it is never as extreme as anything.
        extreme_TMK = block_TK[:, None, :] >= values_TM[:, :, None]
        if count > 1:
            extreme_TMK &= EARLIER[first:last, :last]
        else:
            extreme_TMK[:, 0, first] = False
        extreme_TM = np.add.reduce(extreme_TMK, axis=2, dtype=np.int64)
        for tail, (feature, side) in enumerate(self._tails):
            sorted_N = self._sorted_FN[feature, : self._known_F[feature]]
            if side == HIGH:
                extreme_TM[tail] += len(sorted_N) - sorted_N.searchsorted(features_FM[feature], "left")
            else:
                extreme_TM[tail] += sorted_N.searchsorted(features_FM[feature], "right")
        is_known_TK = block_TK == block_TK
        known_TM = np.add.accumulate(is_known_TK, axis=1, dtype=np.int64)[:, first:] - is_known_TK[:, first:]
        known_TM += self._known_F[self._feature_T, None]
        ranks_TM: Ranks = np.log10((known_TM + 1) / (extreme_TM + 1)) * is_known_TK[:, first:]
        self._filled = last
        if self.room == 0:
            self._take_in(np.concatenate([self._past_FN, self._block_FM], axis=1))
            self._filled = 0
        return ranks_TM

    def refill(self, features_FN: Features, unsorted: int) -> Ranks:
        """Replace the history and rank all of it in hindsight, each reading among all others.

        Args:
            features_FN: the new history, oldest first.
            unsorted: how many of the newest belong to the block in progress.

        Returns:
            Shape (T, N).
        """
        self._take_in(features_FN)
        ranks_TN = np.zeros((len(self._tails), features_FN.shape[1]))
        for tail, (feature, side) in enumerate(self._tails):
            sorted_N = self._sorted_FN[feature, : self._known_F[feature]]
            values_N = features_FN[feature]
            position_N = np.searchsorted(sorted_N, values_N, side="left" if side == HIGH else "right")
            extreme_N = len(sorted_N) - position_N if side == HIGH else position_N
            # The reading itself is among the extreme ones: that is the "+ 1" of the causal rank.
            rarity_N = np.log10(max(len(sorted_N), 1) / np.maximum(extreme_N, 1))
            ranks_TN[tail] = np.where(np.isnan(values_N), 0.0, rarity_N)
        split = features_FN.shape[1] - unsorted
        self._take_in(features_FN[:, :split])
        self._block_FM[:, :unsorted] = features_FN[:, split:]
        self._filled = unsorted
        return ranks_TN

    def _take_in(self, features_FN: Features) -> None:
        self._past_FN = features_FN[:, -self._capacity :].copy()
        self._sorted_FN = np.sort(self._past_FN, axis=1)  # NaN last
        self._known_F = (~np.isnan(self._past_FN)).sum(axis=1)


@dataclass(frozen=True, slots=True)
class Tail:
    """Exponential upper tail of a series' scores."""

    start: float
    """Score that ``share`` of the readings passed."""
    mean_excess: float
    share: float

    @classmethod
    def fit(cls, scores: NDArray[np.float64], share: float) -> "Tail":
        """Fit to the scores of a history, NaN left out; at least one must remain."""
        known = scores[scores == scores]
        num_above = max(1, int(share * len(known)))
        above = np.partition(known, len(known) - num_above)[-num_above:]
        start = float(np.minimum.reduce(above))
        mean_excess = float(np.add.reduce(above)) / num_above - start
        return cls(start, max(mean_excess, MIN_MEAN_EXCESS), share)

    def threshold(self, rate: float) -> float:
        """Return the score that a share ``rate`` of the readings is expected to pass."""
        return self.start + self.mean_excess * float(np.log(self.share / rate))

    def rate(self, score: float) -> float:
        """Return the share of readings expected to reach ``score`` (``share`` at most)."""
        return self.share * float(np.exp(-max(score - self.start, 0.0) / self.mean_excess))
