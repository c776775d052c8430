"""A window as a row of numbers: the shape counts, not the unit."""

import numpy as np
import pytest

from training.labelling.window_features import window_features


def waves(count: int = 5, readings: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.sin(np.arange(readings) / 5) + rng.normal(0, 0.2, (count, readings))


def test_unit_and_level_stand_in_columns_of_their_own() -> None:
    """Celsius or Fahrenheit: all but level and scale stay as they are."""
    celsius = window_features(waves())
    fahrenheit = window_features(32.0 + 1.8 * waves())

    assert fahrenheit[:, 2:] == pytest.approx(celsius[:, 2:])
    assert fahrenheit[:, 1] - celsius[:, 1] == pytest.approx(np.full(5, np.log(1.8)))


def test_what_differs_in_shape_differs_in_its_row() -> None:
    calm, spike, stuck = waves(1), waves(1), waves(1)
    spike[0, 30] += 8.0
    stuck[0, 20:50] = stuck[0, 20]
    rows = window_features(np.concatenate([calm, spike, stuck]))

    assert np.abs(rows[1] - rows[0]).max() > 0.5
    assert np.abs(rows[2] - rows[0]).max() > 0.4


def test_a_constant_window_and_a_huge_one_give_finite_rows() -> None:
    values = np.stack([np.full(16, 7.0), np.zeros(16), 1e9 * np.arange(16.0)])

    assert np.isfinite(window_features(values)).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(np.zeros((1, 15)), "at least 16", id="short"),
        pytest.param(np.zeros(64), "got shape", id="one-dimension"),
        pytest.param(np.full((1, 16), np.nan), "not a finite", id="nan"),
    ],
)
def test_what_is_no_window_is_refused(values: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        window_features(values)
