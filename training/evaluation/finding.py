"""The stretches of a data set that people should look at first, where nobody has said anything yet."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.data.snapshots import Series
from training.evaluation.multiscale import HINDSIGHT_SCALES, hindsight

REACH = max(HINDSIGHT_SCALES)
"""Readings around a find in which nothing else is found: they are strange for the same reason."""
SHARE = 0.5
"""A stretch goes on while its readings have this much of its greatest strangeness."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Readings of one series that differ from all others of it."""

    series: str
    """``tenant/device/metric``."""
    from_ts: float
    to_ts: float
    """Times of its first and last reading, seconds since the epoch."""
    peak_ts: float
    """Time of its strangest reading."""
    strangeness: float
    """Of that reading: larger is stranger, to be compared with those of series of about the same length."""


def strangest(series: Iterable[Series], top: int) -> list[Stretch]:
    """Return at most ``top`` stretches of all series, the strangest first; none of a series too short to compare."""
    found = [one for each in series for one in _of_one(each, top)]
    return sorted(found, key=lambda one: -one.strangeness)[:top]


def _of_one(series: Series, top: int) -> list[Stretch]:
    scores_N = hindsight(series.values)
    left_N = scores_N.copy()
    found = []
    for _ in range(top):
        peak = int(np.argmax(left_N)) if len(left_N) else 0
        if len(left_N) == 0 or left_N[peak] <= 0:
            break
        is_low_N = scores_N < SHARE * scores_N[peak]
        before, after = np.flatnonzero(is_low_N[:peak]), np.flatnonzero(is_low_N[peak:])
        first = max(int(before[-1]) + 1 if len(before) else 0, peak - REACH)
        last = min(peak + int(after[0]) - 1 if len(after) else len(scores_N) - 1, peak + REACH)
        begin, end, at = (float(series.ts[place]) for place in (first, last, peak))
        found.append(Stretch(series.key, begin, end, at, round(float(scores_N[peak]), 3)))
        left_N[max(0, first - REACH) : last + REACH + 1] = 0.0
    return found
