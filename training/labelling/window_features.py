"""A window of readings as a row of numbers that the classifier can learn from few labels.

Pure numpy. Invariants: the same window gives the same row everywhere, whoever trains or asks; a row
is finite; adding a constant to a window, or scaling it, changes the level and scale columns only, so
that one classifier serves series of any unit.

Shapes: N windows, T readings each, D columns of the result.

References:
    Middlehurst et al., The FreshPRINCE (2022), for summary features as a strong start for time series.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_READINGS = 16
BANDS = 6
"""Parts of the spectrum whose share of the energy is a column each, an octave wide each."""
PIECES = 8
"""Parts of the window whose mean and spread are a column each."""
LAGS = (1, 2, 3, 5, 8)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def window_features(values_NT: Floats) -> Floats:
    """Return one row of shape features a window.

    Args:
        values_NT: finite readings in order; at least ``MIN_READINGS`` of each window.

    Raises:
        ValueError: too few readings, or one is not finite.
    """
    if values_NT.ndim != 2 or values_NT.shape[1] < MIN_READINGS:
        raise ValueError(f"windows of at least {MIN_READINGS} readings are needed, got shape {values_NT.shape}")
    if not np.isfinite(values_NT).all():
        raise ValueError("a reading is not a finite number")
    centre_N1 = np.median(values_NT, axis=1, keepdims=True)
    # Half of the readings lie inside this range, so one spike does not hide the rest of the window.
    low_N, high_N = np.quantile(values_NT, (0.25, 0.75), axis=1)
    spread_N1 = np.maximum((high_N - low_N)[:, None], 0.05 * (values_NT.std(axis=1, keepdims=True) + 1e-9))
    shape_NT = (values_NT - centre_N1) / spread_N1
    steps_NT = np.diff(shape_NT, axis=1)
    columns = [
        np.log1p(np.abs(centre_N1)) * np.sign(centre_N1),
        np.log(spread_N1),
        _squash(np.quantile(shape_NT, QUANTILES, axis=1).T),
        _squash(np.quantile(steps_NT, QUANTILES, axis=1).T),
        _squash(np.abs(steps_NT).mean(axis=1, keepdims=True)),
        _lagged(shape_NT),
        _bands(shape_NT),
        _pieces(shape_NT),
        (np.abs(steps_NT) < 1e-6).mean(axis=1, keepdims=True),
    ]
    return np.concatenate(columns, axis=1)


def _squash(values: Floats) -> Floats:
    # A spike of a thousand spreads is as clear as one of a hundred, and must not set the scale of the column.
    squashed: Floats = np.arcsinh(values)
    return squashed


def _lagged(shape_NT: Floats) -> Floats:
    centred = shape_NT - shape_NT.mean(axis=1, keepdims=True)
    power = np.maximum((centred**2).sum(axis=1), 1e-12)
    return np.stack([(centred[:, lag:] * centred[:, :-lag]).sum(axis=1) / power for lag in LAGS], axis=1)


def _bands(shape_NT: Floats) -> Floats:
    """Return the share of the energy in each octave, from the highest down; the rest is slow."""
    energy = np.abs(np.fft.rfft(shape_NT - shape_NT.mean(axis=1, keepdims=True), axis=1)) ** 2
    total = np.maximum(energy.sum(axis=1), 1e-12)
    shares = []
    high = energy.shape[1]
    for _ in range(BANDS):
        low = high // 2
        shares.append(energy[:, low:high].sum(axis=1) / total)
        high = low
    return np.stack(shares, axis=1)


def _pieces(shape_NT: Floats) -> Floats:
    """Return means and spreads of equal parts, each in order of size, and how far the two halves lie apart."""
    parts = np.array_split(shape_NT, PIECES, axis=1)
    means = np.stack([part.mean(axis=1) for part in parts], axis=1)
    spreads = np.stack([part.std(axis=1) for part in parts], axis=1)
    half = PIECES // 2
    apart = means[:, half:].mean(axis=1, keepdims=True) - means[:, :half].mean(axis=1, keepdims=True)
    # In order of size, not of time: a fault is the same one wherever in the window it begins.
    means, spreads = np.sort(means, axis=1), np.sort(spreads, axis=1)
    return _squash(np.concatenate([means, spreads, apart, np.ptp(means, axis=1, keepdims=True)], axis=1))
