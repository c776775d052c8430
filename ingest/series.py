"""How one series is judged: its window, its baseline, its ranks and its threshold.

A reading is described by five features (residual of the model, value, mean and standard
deviation of the last 50 values, and their distance to all that was before, see
``prototypes.py``); ``conformal.py`` ranks seven of their tails against the series' own past
and the sum is the score. Decides nothing about alerts. Invariants: what is fitted
(normaliser, baseline, prototypes, threshold) changes only between blocks counted from the
series' first reading; every score of the window comes from one model version.

Shapes: M readings of a piece, N of the window, T tails.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.baseline import ARBaseline
from ingest.conformal import HIGH, LOW, Features, RankHistory, Ranks, Tail
from ingest.detection_settings import BLOCK, TAIL_SHARE, DetectorSettings
from ingest.prototypes import WIDTH, Prototypes
from ingest.scorer import Residuals, Scorer, Windows
from ingest.windows import Floats, Normaliser, Point, SeriesKey, SeriesWindow

RESIDUAL, VALUE, MEAN, DEVIATION, DISTANCE = range(5)
NUM_FEATURES = 5
SMOOTHING = WIDTH
"""Readings of the moving mean and deviation."""

TAILS = ((RESIDUAL, HIGH), (VALUE, HIGH), (VALUE, LOW), (MEAN, HIGH), (MEAN, LOW), (DEVIATION, HIGH), (DISTANCE, HIGH))
TAIL_TEXTS = (
    "harder to predict",
    "higher",
    "lower",
    f"higher on average over {SMOOTHING} readings",
    f"lower on average over {SMOOTHING} readings",
    f"less steady over {SMOOTHING} readings",
    f"farther over {SMOOTHING} readings from all before",
)

IMMATURE = 100
"""First scores of a series, left out of its threshold: ranks among so few readings are small."""

MAX_FIT_STEP = 512
"""Most readings between two fits of the baseline."""


Indices = NDArray[np.intp]
"""Places in a series' window."""

NOTHING_WAITS: Indices = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Piece:
    """Readings that were just put into a window and wait to be judged."""

    indices: Indices
    """Shape (M,)."""
    windows: Windows
    """Normalised windows of the last ``len(windows)`` of them; the first ones may lack a past."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came out for one piece."""

    indices: Indices
    """Shape (M,)."""
    scores: NDArray[np.float64]
    """Shape (M,)."""
    ranks: Ranks
    """Shape (T, M)."""
    threshold: float | None
    """That they are held against; None until the series is warm."""
    tail: Tail | None
    """That the threshold came from."""


class Series:
    """State of one series; the detector puts readings in and gets scores."""

    def __init__(self, key: SeriesKey, settings: DetectorSettings) -> None:
        self.key = key
        self.window = SeriesWindow(settings.history_size)
        self.tail: Tail | None = None
        self.scored_by: Scorer | None = None
        """The trained model whose scores the window holds; None: the series' own baseline."""
        self.baseline: ARBaseline | None = None
        self.level: float | None = None
        """Score that people's verdicts want the threshold to reach; None: they say nothing."""
        self._settings = settings
        self._ranks = RankHistory(TAILS, settings.history_size)
        self._normaliser: Normaliser | None = None
        self._prototypes: Prototypes | None = None
        self._next_fit = BLOCK
        self._origin: float | None = None

    @property
    def room(self) -> int:
        """Readings that the next ``take`` may bring."""
        return self._ranks.room

    @property
    def threshold(self) -> float | None:
        """Score above which a reading may raise an alert; None until the series is warm."""
        if self.tail is None:
            return None
        rate = self._settings.exceedance_rate
        threshold = max(self.tail.threshold(rate), self._settings.min_threshold)
        if self.level is None:
            return threshold
        return max(threshold, min(self.level, self.tail.threshold(rate / self._settings.verdict_rarity)))

    def take(self, points: list[Point]) -> Piece | None:
        """Put newer points at the end, or one late point in its place.

        Args:
            points: sorted, at most ``room``; either all newer than the window, or a single one.

        Returns:
            What to judge; None for a point that is already there or too old.
        """
        if self.window.is_newer(points[0]):
            self.window.append(points)
            indices_M = np.arange(len(self.window) - len(points), len(self.window))
        else:
            index = self.window.insert(points[0])
            if index is None:
                return None
            indices_M = np.array([index])
        return self.cut(indices_M)

    def cut(self, indices_M: Indices) -> Piece:
        """Return the piece of readings that were taken and not judged, for the model in use now."""
        context = self.scored_by.context if self.scored_by is not None else self._settings.context
        return Piece(indices_M, self._normalised(indices_M, context))

    def judge(self, piece: Piece, residuals: Residuals | None) -> Judged:
        """Score a piece that ``take`` returned, before the next ``take``.

        Args:
            piece: readings to judge.
            residuals: the trained model's answer for ``piece.windows``; None: ask the baseline.
        """
        if residuals is None and self.baseline is not None:
            residuals = self.baseline.residuals(piece.windows)
        features = self._features(piece.indices, residuals)
        self.window.distance[piece.indices] = features[DISTANCE]
        ranks_TM = self._ranks.judge(features)
        scores_M = _summed(ranks_TM)
        threshold, tail = self.threshold, self.tail
        self.window.score[piece.indices] = scores_M
        if self._ranks.room == BLOCK:
            self._end_block()
        return Judged(piece.indices, scores_M, ranks_TM, threshold, tail)

    def history_windows(self, scorer: Scorer | None, waiting_M: Indices) -> Windows:
        """Return the windows of the judged history, for ``adopt``; empty before the first fit."""
        context = scorer.context if scorer is not None else self._settings.context
        return self._normalised(self._judged(waiting_M), context)

    def adopt(self, scorer: Scorer | None, residuals: Residuals | None, waiting_M: Indices) -> None:
        """Go over to another model: the past is scored anew, so its ranks and the next ones agree.

        Args:
            scorer: the trained model; None: the baseline.
            residuals: its answer for ``history_windows(scorer, waiting_M)``; None: ask the baseline.
            waiting_M: readings taken and not judged yet; they stay so (see ``cut``).
        """
        self.scored_by = scorer
        if residuals is None and self.baseline is not None:
            residuals = self.baseline.residuals(self.history_windows(None, waiting_M))
        judged = self._judged(waiting_M)
        if len(judged) == 0:
            return
        # Distances as they were when the readings came: the prototypes of now have seen them.
        features = self._features(judged, residuals, self.window.distance[judged])
        ranks = self._ranks.refill(features, unsorted=BLOCK - self._ranks.room)
        self.window.score[judged] = _summed(ranks)
        self._fit_tail()

    def _judged(self, waiting_M: Indices) -> Indices:
        return np.setdiff1d(np.arange(len(self.window)), waiting_M)

    def _normalised(self, indices_M: Indices, context: int) -> Windows:
        judgeable = indices_M[indices_M >= context]
        if self._normaliser is None or len(judgeable) == 0:
            return np.empty((0, context + 1), dtype=np.float32)
        return self._normaliser.apply(self.window.windows(judgeable, context + 1))

    def _features(self, indices_M: Indices, residuals: Residuals | None, distances_M: Floats | None = None) -> Features:
        """Return what is ranked of each reading; None for the distances: they are measured now."""
        features = np.full((NUM_FEATURES, len(indices_M)), np.nan, dtype=np.float32)
        if residuals is not None and len(residuals):
            features[RESIDUAL, -len(residuals) :] = residuals
        # Freed of the first value: float32 would lose the variation of a value such as 1e9 + 0.1.
        if self._origin is None:
            self._origin = float(self.window.value[0])
        centre = self._origin
        features[VALUE] = self.window.value[indices_M] - centre
        smooth_M = indices_M[indices_M >= SMOOTHING - 1]
        if len(smooth_M):
            recent = self.window.windows(smooth_M, SMOOTHING) - centre
            if distances_M is None and self._prototypes is not None:
                features[DISTANCE, -len(smooth_M) :] = self._prototypes.distances(recent)
            # reduce and not mean/std: with one reading a call, numpy's Python layer was half of the cost.
            mean_M = np.add.reduce(recent, axis=1) / SMOOTHING
            recent -= mean_M[:, None]
            deviation_M = np.sqrt(np.add.reduce(recent * recent, axis=1) / SMOOTHING)
            # Rounding noise of a constant stretch is zero, not a rank.
            deviation_M[deviation_M < 1e-9 * (1.0 + abs(centre))] = 0.0
            features[MEAN, -len(smooth_M) :] = mean_M
            features[DEVIATION, -len(smooth_M) :] = deviation_M
        if distances_M is not None:
            features[DISTANCE] = distances_M
        return features

    def _end_block(self) -> None:
        total = self.window.total
        if total >= self._next_fit and len(self.window) > 2 * self._settings.context:
            self._normaliser = Normaliser.of(self.window.value)
            self.baseline = ARBaseline.fit(
                self._normaliser.apply(self.window.value),
                context=self._settings.context,
                ridge=self._settings.ridge,
            )
            if len(self.window) > 2 * WIDTH and self._origin is not None:
                self._prototypes = Prototypes.fit(self.window.value - self._origin)
            self._next_fit = total + max(BLOCK // 2, min(total // 4, MAX_FIT_STEP))
        self._fit_tail()

    def _fit_tail(self) -> None:
        if self.window.total >= self._settings.warm_up_readings:
            immature = max(0, IMMATURE - (self.window.total - len(self.window)))
            self.tail = Tail.fit(self.window.score[immature:], TAIL_SHARE)


def _summed(ranks_TM: Ranks) -> NDArray[np.float64]:
    """Return the sum over tails, added up in the same order for any number of readings (numpy's own is not)."""
    scores_M: NDArray[np.float64] = ranks_TM[0].copy()
    for ranks_M in ranks_TM[1:]:
        scores_M += ranks_M
    return scores_M


def explain(ranks_T: NDArray[np.float64]) -> str:
    """Return in words what made a reading rare, the strongest part first."""
    strongest = np.argsort(ranks_T)[::-1][:2]
    parts = [
        f"{TAIL_TEXTS[tail]} than {_share(ranks_T[tail])} of its history" for tail in strongest if ranks_T[tail] > 1
    ]
    return "; ".join(parts) or "unusual in several ways at once"


def _share(rank: float) -> str:
    return f"{100 * (1 - 10**-rank):.4g} %"
