"""How far a stretch of readings is from everything that the same series did before.

Pure numpy. A few hundred windows of the past stand for all of it, each as ten sums of five rounded
values, so a reading costs microseconds. Invariants: fitted ``Prototypes`` never change, a refit is a new
object; and a window has the same distance in any batch, because all products are whole numbers that
float32 holds exactly, in whatever order they are added.

Shapes: B windows, R prototypes, W = WIDTH values of a window, S = WIDTH / STEP sums.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ingest.windows import Floats, Normaliser

WIDTH = 50
"""Readings of a window."""
STEP = 5
"""Neighbouring values that are added up."""
MOST = 512
"""Prototypes of a series, evenly spread over its history; 20 KiB."""

UNITS = 32
CLIP = 8.0
"""Values are rounded to a 32nd of the series' scale and cut off at 8 scales: then S products of sums of STEP
values stay below 2**24, up to which float32 knows every whole number."""

Distances = NDArray[np.float32]


class Prototypes:
    """Windows of a series' past."""

    def __init__(self, normaliser: Normaliser, sums_RS: NDArray[np.float32]) -> None:
        self._normaliser = normaliser
        self._doubled_SR = np.ascontiguousarray(2.0 * sums_RS.T)
        self._squares_R = np.add.reduce(sums_RS * sums_RS, axis=1)

    @classmethod
    def fit(cls, values: Floats) -> "Prototypes":
        """Take windows of one series.

        Args:
            values: its history, oldest first, at least ``WIDTH`` of them.
        """
        normaliser = Normaliser.of(values)
        windows = sliding_window_view(_rounded(normaliser, values), WIDTH)
        if len(windows) > MOST:
            windows = windows[np.linspace(0, len(windows) - 1, MOST).astype(np.intp)]
        return cls(normaliser, _sums(windows))

    def distances(self, windows_BW: Floats) -> Distances:
        """Return the squared distance of each window to the nearest prototype, shape (B,), in the units of the sums."""
        sums_BS = _sums(_rounded(self._normaliser, windows_BW))
        near_BR = self._squares_R - sums_BS @ self._doubled_SR
        nearest_B: Distances = np.minimum.reduce(near_BR, axis=1)
        nearest_B += np.add.reduce(sums_BS * sums_BS, axis=1)
        return np.maximum(nearest_B, 0.0)


def _rounded(normaliser: Normaliser, values: Floats) -> NDArray[np.float32]:
    scaled = (values - normaliser.centre) * (UNITS / normaliser.scale)
    # Not np.clip: its Python layer costs more than the work when a call brings one window.
    return np.rint(np.minimum(np.maximum(scaled, -CLIP * UNITS), CLIP * UNITS)).astype(np.float32)


def _sums(rounded_BW: NDArray[np.float32]) -> NDArray[np.float32]:
    sums_BS: NDArray[np.float32] = np.add.reduce(rounded_BW.reshape(len(rounded_BW), WIDTH // STEP, STEP), axis=2)
    return sums_BS
