"""The Numenta Anomaly Benchmark's score, standard profile, rebuilt from its paper.

A window earns for its first detection, the earlier the more; a detection outside costs, close behind a window
less. One threshold for all series, chosen on them, as the benchmark's own rules have it.

References:
    Lavin and Ahmad, Evaluating Real-time Anomaly Detection Algorithms (ICMLA 2015).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Windows = Sequence[tuple[int, int]]
"""First and last reading of each window, both inside."""

FALSE_ALARM = 0.11
PROBATION = 0.15
"""Share of a series, of its first 5,000 readings at most, in which nothing counts."""
THRESHOLDS = 200


def nab_score(series: Sequence[tuple[Floats, Windows]]) -> float:
    """Return the score of the best threshold: 0 for a detector that says nothing, 100 for a perfect one.

    Args:
        series: the score of each reading, larger is stranger, and the windows.
    """
    total = sum(len(windows) for _, windows in series)
    every = np.sort(np.unique(np.concatenate([scores for scores, _ in series])))[::-1]
    places = np.unique(np.geomspace(1, len(every), THRESHOLDS).astype(int)) - 1
    best = -float(total)  # of saying nothing
    for threshold in every[places]:
        best = max(
            best, sum(_score(np.flatnonzero(scores >= threshold), len(scores), windows) for scores, windows in series)
        )
    return 100.0 * (best + total) / (2.0 * total)


def fresh_maxima(scores_N: Floats, recent: int = 200, share: float = 0.05) -> Floats:
    """Return the scores that are above all recent ones, and zero for the others: what would be told to a person."""
    reach = max(recent, int(share * len(scores_N)))
    found = np.zeros(len(scores_N))
    waiting: list[int] = []  # places of falling scores: the first is the largest within reach
    for place, score in enumerate(scores_N):
        while waiting and waiting[0] < place - reach:
            waiting.pop(0)
        if not waiting or score > scores_N[waiting[0]]:
            found[place] = score
        while waiting and scores_N[waiting[-1]] <= score:
            waiting.pop()
        waiting.append(place)
    return found


def _score(detections: NDArray[np.intp], count: int, windows: Windows) -> float:
    total = 0.0
    detections = detections[detections >= int(PROBATION * min(count, 5000))]
    outside = np.ones(len(detections), dtype=bool)
    for first, last in windows:
        inside = (detections >= first) & (detections <= last)
        outside &= ~inside
        if inside.any():
            place = (int(detections[inside][0]) - last) / max(last - first, 1) - 1e-9
            total += _reward(place) / _reward(-1.0)
        else:
            total -= 1.0
    for detection in detections[outside]:
        passed = [(first, last) for first, last in windows if last < detection]
        first, last = passed[-1] if passed else (0, 0)
        total += FALSE_ALARM * (_reward((int(detection) - last) / max(last - first, 1)) if passed else -1.0)
    return total


def _reward(place: float) -> float:
    """Return the sigmoid of a place relative to a window's end: 1 at its beginning, 0 at its end, -1 far behind it."""
    return -1.0 if place > 3.0 else 2.0 / (1.0 + float(np.exp(5.0 * place))) - 1.0
