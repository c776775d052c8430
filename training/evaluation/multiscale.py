"""How far a stretch of readings is from all others of its series, on several scales: which stretches to look at first.

An alarm has to come at the first strange reading; the detector's score is made for that. To find and to rank whole
faults is another question, answered here in two ways: ``MultiscaleScorer`` knows no later reading, ``hindsight``
has seen the whole series. Both compare ten averages of a stretch with those of up to ``MEMORY`` others, evenly
spread, and add up the ranks of the scales, so that no scale has to be the right one. Invariants: a later reading
never changes an earlier causal score; a series' unit does not matter.

Shapes: N readings of a series, B stretches of a block, R remembered ones, S = ``MEANS`` averages of one.

References:
    Yeh et al., Matrix Profile I (ICDM 2016): distance to the nearest other stretch, here with the level kept;
    Madrid et al., Matrix Profile XX: MERLIN (ICDM 2020): no length of a discord is the right one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from training.data.snapshots import Series

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

MEANS = 10
SCALES = (10, 20, 50, 100, 200)
"""Readings of a stretch, where no later reading is known."""
HINDSIGHT_SCALES = (30, 100, 200)
"""The same in hindsight."""
MEMORY = 2048
"""Stretches that others are compared with."""
WARM_UP = 256
"""Readings before the first causal score, as in the detector."""
BLOCK = 64
"""Readings judged by one past."""
LEAST_STEP, MOST_STEP = 32, 512
"""Readings after which the past is taken anew: a quarter of it, within these."""
CLIP = 8.0
"""Scales of the series beyond which a value counts as this far: one wild value must not hide the rest."""
EXTREME_WEIGHT = 0.5
"""In hindsight the distance from the series' own mean counts half as much as that from the nearest stretch."""


@dataclass(frozen=True, slots=True)
class MultiscaleScorer:
    """Sum over scales of how rare the distance to the nearest earlier stretch is, by the series' own past."""

    name: str = "multiscale"

    def scores(self, series: Series, history: int) -> Floats:  # noqa: ARG002 -- it learns as it goes
        """Return sums of -log10 ranks; NaN before the first past."""
        count = len(series.values)
        found_N = np.full(count, np.nan)
        found_N[WARM_UP:] = 0.0
        for scale in SCALES:
            distances_N = np.full(count, np.nan)
            for ends, nearest_B in _nearest_earlier(series.values, scale):
                distances_N[ends] = nearest_B
            found_N += _earlier_ranks(distances_N)
        return found_N


def hindsight(values_N: Floats) -> Floats:
    """Return how strange each reading is with the whole series in view, larger is stranger.

    The sum over scales of two ranks of the stretch around a reading: its distance to the nearest other that it does
    not overlap, and, with ``EXTREME_WEIGHT``, its distance from the series' mean.

    Args:
        values_N: one series in the order of time; scales longer than a third of it are left out.

    Returns:
        Shape (N,); zeros for a series too short for any scale.
    """
    found_N = np.zeros(len(values_N))
    if len(values_N) < 3 * min(HINDSIGHT_SCALES):
        return found_N
    scaled_N = np.clip((values_N - values_N.mean()) / (float(values_N.std()) or 1.0), -CLIP, CLIP)
    for scale in HINDSIGHT_SCALES:
        if 3 * scale > len(values_N):
            break
        means_BS = _means(scaled_N, scale)[scale - 1 :]
        ranks_B = _ranks(_nearest_other(means_BS, scale))
        ranks_B += EXTREME_WEIGHT * _ranks((means_BS * means_BS).mean(axis=1))
        before = (scale - 1) // 2
        found_N += np.pad(ranks_B, (before, scale - 1 - before), mode="edge")
    return found_N


def _nearest_earlier(values_N: Floats, scale: int) -> Iterator[tuple[Places, Floats]]:
    """Yield the readings of each block and how far the stretches that end with them are from the nearest before."""
    means_NS = _means(values_N, scale)
    next_fit, count = 0, len(values_N)
    for begin in range(WARM_UP, count, BLOCK):
        ends = np.arange(begin, min(begin + BLOCK, count))
        if begin >= next_fit:
            next_fit = begin + max(LEAST_STEP, min(begin // 4, MOST_STEP))
            past_N = values_N[:begin]
            middle, spread = float(past_N.mean()), float(past_N.std()) or 1.0
            whole_RS = means_NS[scale - 1 : begin]
            past_RS = (whole_RS[_evenly(len(whole_RS))] - middle) / spread
            squares_R = (past_RS * past_RS).sum(axis=1)
        block_BS = np.clip((means_NS[ends] - middle) / spread, -CLIP, CLIP)
        nearest_B = (squares_R - 2.0 * (block_BS @ past_RS.T)).min(axis=1) + (block_BS * block_BS).sum(axis=1)
        yield ends, np.maximum(nearest_B, 0.0)


def _earlier_ranks(distances_N: Floats) -> Floats:
    """Return -log10 of the share of the distances before a block that are at least as large; 0 where there is none."""
    ranks_N = np.zeros(len(distances_N))
    past = np.empty(0)
    begin = WARM_UP
    while begin < len(distances_N):
        # Blocks grow with the past, of which they are a small part: merging them in stays cheap however long it is.
        end = begin + max(BLOCK, begin // BLOCK)
        block_B = distances_N[begin:end]
        larger_B = len(past) - np.searchsorted(past, block_B, side="left")
        ranks_N[begin:end] = np.log10((len(past) + 1) / (larger_B + 1))
        past = np.sort(np.concatenate([past, block_B]), kind="stable")  # which merges two sorted runs
        begin = end
    return ranks_N


def _nearest_other(means_BS: Floats, scale: int) -> Floats:
    """Return the distance of each stretch to the nearest remembered one that it does not overlap."""
    places_R = _evenly(len(means_BS))
    others_RS = means_BS[places_R]
    squares_R = (others_RS * others_RS).sum(axis=1)
    found_B = np.empty(len(means_BS))
    for begin in range(0, len(means_BS), MEMORY):
        block_BS = means_BS[begin : begin + MEMORY]
        distance_BR = squares_R - 2.0 * (block_BS @ others_RS.T)
        places_B = np.arange(begin, begin + len(block_BS))
        distance_BR[np.abs(places_B[:, None] - places_R) < scale] = np.inf
        found_B[places_B] = distance_BR.min(axis=1) + (block_BS * block_BS).sum(axis=1)
    return np.maximum(found_B, 0.0)


def _ranks(values_B: Floats) -> Floats:
    larger_B = len(values_B) - np.searchsorted(np.sort(values_B), values_B, side="left")
    ranks: Floats = np.log10(len(values_B) / larger_B)
    return ranks


def _means(values_N: Floats, scale: int) -> Floats:
    """Return the ``MEANS`` averages of the stretch that ends with each reading; NaN before the first whole one."""
    step = scale // MEANS
    means_NS = np.full((len(values_N), MEANS), np.nan)
    if len(values_N) >= scale:
        averages = sliding_window_view(values_N, step).mean(axis=1)
        means_NS[scale - 1 :] = sliding_window_view(averages, scale - step + 1)[:, ::step]
    return means_NS


def _evenly(count: int) -> Places:
    return np.linspace(0, count - 1, min(count, MEMORY)).astype(np.intp)
