"""Scores of whole series, and how rare each is by the series' own past.

A ``SeriesScorer`` is what a report judges: the floor's own detection with one model version in it, or a
baseline. Invariants: every score is causal, a later reading never changes an earlier one's; and what a score
is held against comes from the readings before the held-out part alone.

Shapes: N readings of a series, H of its history, M of its held-out part.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ingest import series as judging
from ingest.baseline import NAME as AR_BASELINE
from ingest.conformal import Tail
from ingest.detection_settings import TAIL_SHARE, DetectorSettings
from ingest.scorer import Scorer
from ingest.windows import MAX_ABS_VALUE, Point, SeriesKey
from training.data.snapshots import Series

Floats = NDArray[np.float64]

CHANCE = "chance"


class SeriesScorer(Protocol):
    """Judges the readings of one series after the other.

    Guarantee: ``scores`` is causal and a pure function of its arguments.
    """

    @property
    def name(self) -> str:
        """What it is called in a report."""
        ...

    def scores(self, series: Series, history: int) -> Floats:
        """Return how strange each reading is, shape (N,), larger is stranger; NaN where it cannot say.

        Args:
            series: in order of time.
            history: readings before the held-out part, which may be learned from.
        """
        ...


@dataclass(frozen=True, slots=True)
class FloorScorer:
    """The floor's own detection, reading by reading, with one model or with each series' own baseline."""

    name: str
    scorer: Scorer | None
    """None: each series' closed-form autoregression, as on a floor where nothing was trained."""
    settings: DetectorSettings

    def scores(self, series: Series, history: int) -> Floats:  # noqa: ARG002 -- it learns as it goes, as it does live
        """Return the scores that a detector would have given live: sums of -log10 tail ranks."""
        state = judging.Series(SeriesKey(*series.key.split("/", 2)), self.settings)
        state.scored_by = self.scorer
        values = np.clip(series.values, -MAX_ABS_VALUE, MAX_ABS_VALUE).tolist()
        points = [
            Point(ts, seq, value, np.nan)
            for seq, (ts, value) in enumerate(zip(series.ts.tolist(), values, strict=True))
        ]
        found = []
        start = 0
        while start < len(points):
            piece = state.take(points[start : start + state.room])
            assert piece is not None, "readings in order are never refused"
            residuals = None
            if self.scorer is not None:
                has = len(piece.windows) > 0
                residuals = self.scorer.residuals(piece.windows) if has else np.empty(0, dtype=np.float32)
            found.append(state.judge(piece, residuals).scores)
            start += len(piece.indices)
        return np.concatenate(found) if found else np.empty(0)


@dataclass(frozen=True, slots=True)
class ChanceScorer:
    """What knowing nothing is worth: seeded noise."""

    seed: int = 0
    name: str = CHANCE

    def scores(self, series: Series, history: int) -> Floats:  # noqa: ARG002
        """Return noise."""
        return np.random.default_rng([self.seed, len(series.ts)]).random(len(series.ts))


def ar_baseline(settings: DetectorSettings) -> FloorScorer:
    """Return what every report prints beside a model: the detection of a floor where nothing was trained."""
    return FloorScorer(AR_BASELINE, None, settings)


def p_values(history_H: Floats, scores_M: Floats) -> Floats:
    """Return the chance of a score at least as large while nothing is wrong, by the scores of the history.

    The rank among the history's scores; in their upper tail the exponential that the detector's thresholds
    come from, because beyond the largest score so far ranks say nothing.

    Args:
        history_H: finite, at least one.
        scores_M: what to judge.

    Returns:
        Shape (M,), above 0 and at most 1; falls as the score rises.
    """
    ordered = np.sort(history_H)
    larger_M = len(ordered) - np.searchsorted(ordered, scores_M, side="left")
    rank_M = (larger_M + 1) / (len(ordered) + 1)
    tail = Tail.fit(history_H, TAIL_SHARE)
    tail_M = tail.share * np.exp(-np.maximum(scores_M - tail.start, 0.0) / tail.mean_excess)
    found: Floats = np.where(scores_M > tail.start, tail_M, np.maximum(rank_M, tail.share))
    return np.maximum(found, np.finfo(np.float64).tiny)
