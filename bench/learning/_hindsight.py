"""Opponents that see the whole series before they judge any of it, rebuilt from their descriptions in numpy.

Each returns a score per reading, larger is stranger, of the window around it. None of them could run on a floor:
a reading's score depends on later ones.

Shapes: N readings, W values of a window, R = N - W + 1 windows.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROWS = 1024
"""Windows compared at a time."""


def sub_pca(values_N: Floats, width: int) -> Floats:
    """Return the distances to the components, each by how little it explains (Sub-PCA of TSB-AD, by PyOD's formula)."""
    windows_RW = sliding_window_view(_standard(values_N), width)
    spread_W = windows_RW.std(axis=0)
    windows_RW = (windows_RW - windows_RW.mean(axis=0)) / np.where(spread_W > 0, spread_W, 1.0)
    values_W, vectors_WW = np.linalg.eigh(windows_RW.T @ windows_RW)
    weight_W = np.maximum(values_W / values_W.sum(), 1e-12)
    squared_R1 = (windows_RW**2).sum(axis=1, keepdims=True)
    distance_RW = np.sqrt(np.maximum(squared_R1 + 1.0 - 2.0 * windows_RW @ vectors_WW, 0.0))
    return _centred((distance_RW / weight_W).sum(axis=1), len(values_N), width)


def poly(values_N: Floats, width: int, degree: int = 4, reach: int = 10) -> Floats:
    """Return how far each window is from the polynomial through its neighbourhood without it (POLY of TSB-UAD)."""
    near = min(reach * width, len(values_N) // 2)
    place = np.linspace(-1.0, 1.0, near)
    first = (near - width) // 2
    inside = np.arange(first, first + width)
    outside = np.setdiff1d(np.arange(near), inside)
    powers = np.vander(place, degree + 1)
    hat = powers[inside] @ np.linalg.pinv(powers[outside])
    windows = sliding_window_view(_standard(values_N), near)
    rest = windows[:, inside] - windows[:, outside] @ hat.T
    scores_R = (rest * rest).mean(axis=1)
    # Where a neighbourhood would reach beyond an end, the nearest whole one speaks.
    before = first
    scores_R = np.concatenate([np.full(before, scores_R[0]), scores_R, np.full(near - width - before, scores_R[-1])])
    return _centred(scores_R, len(values_N), width)


def discord(values_N: Floats, width: int, *, is_shape: bool) -> Floats:
    """Return each window's distance to the nearest other that it does not overlap: the matrix profile.

    Args:
        values_N: of one series.
        width: of a window.
        is_shape: each window is freed of its own level and scale first, as the matrix profile has it.
    """
    windows_RW = sliding_window_view(_standard(values_N), width).astype(np.float32)
    if is_shape:
        windows_RW = windows_RW - windows_RW.mean(axis=1, keepdims=True)
        windows_RW = windows_RW / np.maximum(windows_RW.std(axis=1, keepdims=True), 0.05)
    squared_R = (windows_RW * windows_RW).sum(axis=1)
    found_R = np.empty(len(windows_RW))
    for first in range(0, len(windows_RW), ROWS):
        block = windows_RW[first : first + ROWS]
        distance = squared_R - 2.0 * (block @ windows_RW.T)
        for row in range(len(block)):
            at = first + row
            distance[row, max(0, at - width + 1) : at + width] = np.inf
        found_R[first : first + len(block)] = distance.min(axis=1)
    return _centred(np.sqrt(np.maximum(found_R + squared_R, 0.0)), len(values_N), width)


def _standard(values_N: Floats) -> Floats:
    standard: Floats = (values_N - values_N.mean()) / (float(values_N.std()) or 1.0)
    return standard


def _centred(scores_R: Floats, count: int, width: int) -> Floats:
    """Return a window's score at its middle."""
    before = (width - 1) // 2
    return np.concatenate(
        [np.full(before, scores_R[0]), scores_R, np.full(count - len(scores_R) - before, scores_R[-1])]
    )
