"""Which windows a person should look at next: those whose verdict the detector is least sure of.

Pure: a data set and a scorer in, windows out; who labels them is not known here. Scores
are made by the detector's own ``ingest.series``, in hindsight and by one model version, so
what is chosen is what that version would be unsure of on this floor. Invariant: windows of
a series do not overlap, so no reading is asked about twice in one choice.

Shapes: N windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest import series as judging
from ingest.alerts.model import iso
from ingest.detection_settings import DetectorSettings
from ingest.scorer import Scorer
from ingest.windows import MAX_ABS_VALUE, Point, SeriesKey
from training.data.snapshots import Dataset, Series
from training.errors import NotEnoughDataError
from training.labelling.labels import Question

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

STRATEGY = "least_confidence"
ANOMALOUS, NORMAL = "anomalous", "normal"
"""What a window can be."""
WINDOW_READINGS = 64
"""Readings of a window: what a person sees at a glance."""
MAX_CHOSEN = 200
"""Windows of one choice at most; more than a shift of people can judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One window of a series, judged as a whole."""

    key: SeriesKey
    from_ts: float
    """Device time of its first reading, seconds since the Unix epoch."""
    to_ts: float
    """Device time of its last reading."""
    score: float
    """Its strangest reading's: a sum of -log10 tail ranks."""
    threshold: float
    """Above it the reading could raise an alert."""
    points: tuple[tuple[float, float], ...] = ()
    """Its readings, (device time, value), for whoever is asked about it."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a task's result shows it; times are ISO 8601 in UTC."""
        return {
            **self.key._asdict(),
            "from": iso(self.from_ts),
            "to": iso(self.to_ts),
            "score": round(self.score, 3),
            "threshold": round(self.threshold, 3),
        }

    def to_question(self, model_id: str, strategy: str) -> Question:
        """Return what a person is asked; the least sure first, a tenant's own about its own devices."""
        sure = float(confidence(np.array([self.score]), np.array([self.threshold]))[0])
        key = self.key
        return Question(
            subject=window_subject(key, self.from_ts, self.to_ts),
            asked_by=strategy,
            priority=1.0 - sure,
            tenant=key.tenant,
            details=self.to_json() | {"points": [[iso(ts), value] for ts, value in self.points]},
            proposal=ANOMALOUS if self.score >= self.threshold else NORMAL,
            confidence=round(sure, 4),
            model_id=model_id,
        )


def window_subject(key: SeriesKey, from_ts: float, to_ts: float) -> str:
    """Return the name under which a stretch of a series is labelled."""
    return f"window:{key.tenant}/{key.device}/{key.metric}:{from_ts!r}:{to_ts!r}"[:256]


def confidence(scores_N: Floats, thresholds_N: Floats) -> Floats:
    """Return how sure the verdict on each window is: 0.5 on the threshold, towards 1 far from it.

    Scores are sums of -log10 tail ranks, so a margin of one is one decade of rarity in every
    series, whatever its unit; it is read as odds of ten to one. That gives an order and a
    scale between 0.5 and 1, not a calibrated probability.
    """
    certain_N: Floats = 1.0 / (1.0 + 10.0 ** -np.abs(scores_N - thresholds_N))
    return certain_N


def least_confident(confidence_N: Floats, k: int, threshold: float = 1.0) -> Indices:
    """Pick the windows whose verdict is least sure.

    With two classes least confidence, smallest margin and largest entropy are the same choice.

    Args:
        confidence_N: see ``confidence``.
        k: windows wanted, 1 to ``MAX_CHOSEN``; fewer come back when fewer are unsure enough.
        threshold: a window is unsure up to this confidence, above 0.5 and at most 1 (all are).

    Returns:
        Places, least sure first, the earlier window first among equals.

    Raises:
        ValueError: ``k`` or ``threshold`` is out of range.

    References:
        Settles, Active Learning Literature Survey (2009), section 3.1; Lewis and Gale,
        A Sequential Algorithm for Training Text Classifiers (1994).
    """
    if not 1 <= k <= MAX_CHOSEN:
        raise ValueError(f"k must be 1-{MAX_CHOSEN}, got {k}")
    if not 0.5 < threshold <= 1.0:
        raise ValueError(f"threshold must be above 0.5 and at most 1, got {threshold}")
    order: Indices = np.argsort(confidence_N, kind="stable")[:k]
    return order[confidence_N[order] <= threshold]


def choose(
    dataset: Dataset, scorer: Scorer | None, settings: DetectorSettings, k: int, threshold: float
) -> list[Candidate]:
    """Return the windows of ``dataset`` that ``scorer`` is least sure of, least sure first.

    Args:
        dataset: what to choose from; the newest ``settings.history_size`` readings of each series count.
        scorer: the model that judges; None: each series' own baseline.
        settings: how the floor's detector judges.
        k, threshold: see ``least_confident``.

    Raises:
        NotEnoughDataError: no series has enough readings to be judged.
        ValueError: see ``least_confident``.
    """
    pool = [candidate for one in dataset.series for candidate in _judged(one, scorer, settings)]
    if not pool:
        needed = settings.warm_up_readings // WINDOW_READINGS
        raise NotEnoughDataError(dataset.name, "active learning", 0, needed, dataset.num_readings, len(dataset.series))
    scores_N = np.array([candidate.score for candidate in pool])
    thresholds_N = np.array([candidate.threshold for candidate in pool])
    return [pool[place] for place in least_confident(confidence(scores_N, thresholds_N), k, threshold)]


def _judged(data: Series, scorer: Scorer | None, settings: DetectorSettings) -> list[Candidate]:
    """Return the windows of one series; none while it is too short for a threshold."""
    series = judging.Series(SeriesKey(*data.key.split("/", 2)), settings)
    values = np.clip(data.values[-settings.history_size :], -MAX_ABS_VALUE, MAX_ABS_VALUE).tolist()
    times = data.ts[-settings.history_size :].tolist()
    points = [Point(ts, seq, value, np.nan) for seq, (ts, value) in enumerate(zip(times, values, strict=True))]
    while points:
        room = series.room
        piece = series.take(points[:room])
        assert piece is not None, "readings in order are never refused"
        series.judge(piece, None)
        points = points[room:]
    # Fitted by now; one more look, so that all of the past has its score from the one model asked about.
    windows = series.history_windows(scorer, judging.NOTHING_WAITS)
    residuals = scorer.residuals(windows) if scorer is not None and len(windows) else None
    series.adopt(scorer, residuals, judging.NOTHING_WAITS)
    threshold = series.threshold
    if threshold is None:
        return []
    scores = series.window.score
    return [
        Candidate(
            key=series.key,
            from_ts=times[first],
            to_ts=times[first + WINDOW_READINGS - 1],
            score=float(scores[first : first + WINDOW_READINGS].max()),
            threshold=threshold,
            points=tuple(zip(times[first:][:WINDOW_READINGS], values[first:][:WINDOW_READINGS], strict=True)),
        )
        for first in range(0, len(scores) - WINDOW_READINGS + 1, WINDOW_READINGS)
    ]
