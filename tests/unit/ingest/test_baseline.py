"""The baseline predicts what is linear in the past, and nothing breaks it."""

import numpy as np
import pytest

from ingest.baseline import ARBaseline
from ingest.scorer import check_scorer


def windows_of(values: np.ndarray, context: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, context + 1).astype(np.float32)


def test_a_sine_is_predicted() -> None:
    """The residual on unseen periods is a small part of the amplitude."""
    values = np.sin(np.arange(600) / 5).astype(np.float32)
    model = ARBaseline.fit(values[:400], context=24, ridge=1e-4)

    residuals = model.residuals(windows_of(values[400:], 24))

    assert residuals.max() < 0.05


def test_a_window_gets_the_same_residual_in_any_batch() -> None:
    """Bitwise: a restart cuts batches differently and must come to the same scores."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=500).astype(np.float32)
    model = ARBaseline.fit(values, context=24, ridge=0.01)
    windows = windows_of(values, 24)

    one_by_one = np.concatenate([model.residuals(windows[i : i + 1]) for i in range(len(windows))])

    assert np.array_equal(one_by_one, model.residuals(windows))


def test_the_fit_is_ridge_regression() -> None:
    """The short cut comes to the coefficients of the textbook's formula."""
    values = np.random.default_rng(4).normal(size=300).astype(np.float32)
    windows = windows_of(values, 24).astype(np.float64)
    lags, target = windows[:, :-1], windows[:, -1]
    textbook = np.linalg.solve(lags.T @ lags + 0.01 * len(lags) * np.eye(24), lags.T @ target)

    residuals = ARBaseline.fit(values, context=24, ridge=0.01).residuals(windows.astype(np.float32))

    np.testing.assert_allclose(residuals, np.abs(target - lags @ textbook), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0])
def test_a_constant_history_can_be_fitted(value: float) -> None:
    """The ridge keeps the equations solvable."""
    model = ARBaseline.fit(np.full(100, value, dtype=np.float32), context=24, ridge=0.01)

    check_scorer(model)
    assert np.isfinite(model.residuals(np.full((3, 25), value, dtype=np.float32))).all()
