"""What costs nothing and must be beaten: two ways to judge sub-sequences by the same series' own past.

Plain numpy, nothing trained beforehand. Both judge a reading by the values that end with it, block by
block, and learn from the readings before a block alone. Invariants: a later reading never changes an
earlier score; and what is compared was scaled by the past, so a series' unit does not matter.

Shapes: N readings of a series, B windows of a block, R windows of the past, W values of a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from training.data.snapshots import Series

Floats = NDArray[np.float64]

WARM_UP = 256
"""Readings before the first score, as in the detector."""
BLOCK = 256
"""Readings judged by one past."""
MEMORY = 4096
"""Windows of the past at most, evenly spread over all of it."""
FLAT = 0.05
"""Least deviation of a window in units of its series': a flat window's noise is not blown up to a shape."""
SETTLED = 1.25
"""Factor by which the past must have grown for components to be taken anew."""


@dataclass(frozen=True, slots=True)
class PcaScorer:
    """How much of a sub-sequence the main components of the earlier ones leave unexplained.

    References:
        Aggarwal, Outlier Analysis (2017), chapter 3; Liu and Paparrizos, TSB-AD (NeurIPS 2024), whose Sub-PCA
        sees the whole series.
    """

    width: int = 50
    explained: float = 0.9
    """Share of the past's variance that the components kept explain."""
    name: str = "pca"

    def scores(self, series: Series, history: int) -> Floats:  # noqa: ARG002 -- it learns as it goes
        """Return the mean squared rest of each window; NaN before the first past."""
        found = np.full(len(series.values), np.nan)
        fitted, kept_WK = 0, np.empty((self.width, 0))
        for past, ends, windows_BW in _blocks(series.values, self.width):
            if len(past) >= fitted * SETTLED:
                fitted, kept_WK = len(past), self._components(_remembered(past, self.width))
            rest_BW = windows_BW - (windows_BW @ kept_WK) @ kept_WK.T
            found[ends] = np.mean(rest_BW * rest_BW, axis=1)
        return found

    def _components(self, past_RW: Floats) -> Floats:
        values_W, vectors_WW = np.linalg.eigh(past_RW.T @ past_RW)  # the past is centred already
        total = float(values_W.sum())
        # A past that never moved has no components: whatever moves is unexplained.
        count = int(np.searchsorted(np.cumsum(values_W[::-1]), self.explained * total)) + 1 if total > 0 else 0
        kept: Floats = vectors_WW[:, ::-1][:, :count]
        return kept


@dataclass(frozen=True, slots=True)
class NearestScorer:
    """How far a sub-sequence is from the nearest earlier one that it does not overlap: a left discord.

    References:
        Yeh et al., Matrix Profile I (ICDM 2016), of whose profile this is the left part;
        Lu et al., DAMP (KDD 2022).
    """

    width: int = 50
    is_shape: bool = False
    """Each window is freed of its own level and scale first, so that nothing but its shape counts."""
    name: str = "nearest"

    def scores(self, series: Series, history: int) -> Floats:  # noqa: ARG002 -- it learns as it goes
        """Return the distance of each window; NaN before the first past."""
        found = np.full(len(series.values), np.nan)
        for past, ends, windows_BW in _blocks(series.values, self.width):
            # The newest window of the past ends where the block begins: what overlaps would always be near.
            past_RW = _remembered(past[: len(past) - self.width + 1], self.width)
            if self.is_shape:
                past_RW, windows_BW = _shapes(past_RW), _shapes(windows_BW)
            squared_BR = (past_RW * past_RW).sum(axis=1) - 2.0 * (windows_BW @ past_RW.T)
            nearest_B = squared_BR.min(axis=1) + (windows_BW * windows_BW).sum(axis=1)
            found[ends] = np.sqrt(np.maximum(nearest_B, 0.0) / self.width)
        return found


def _blocks(values_N: Floats, width: int) -> Iterator[tuple[Floats, NDArray[np.intp], Floats]]:
    """Yield the past of each block, where its windows end, and the windows, in units of the past's scale."""
    for begin in range(max(WARM_UP, 2 * width), len(values_N), BLOCK):
        end = min(begin + BLOCK, len(values_N))
        past = values_N[:begin]
        middle = float(np.mean(past))
        scale = float(np.std(past)) or 1.0
        windows_BW = (sliding_window_view(values_N[begin - width + 1 : end], width) - middle) / scale
        yield (past - middle) / scale, np.arange(begin, end), windows_BW


def _remembered(past: Floats, width: int) -> Floats:
    windows_RW = sliding_window_view(past, width)
    if len(windows_RW) <= MEMORY:
        return windows_RW
    return windows_RW[np.linspace(0, len(windows_RW) - 1, MEMORY).astype(np.intp)]


def _shapes(windows_BW: Floats) -> Floats:
    centred_BW = windows_BW - windows_BW.mean(axis=1, keepdims=True)
    shapes: Floats = centred_BW / np.maximum(centred_BW.std(axis=1, keepdims=True), FLAT)
    return shapes
