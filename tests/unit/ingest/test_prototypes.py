"""Distance to a series' past: exact in any batch, nought for what was before, in the series' own units."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ingest.prototypes import CLIP, MOST, STEP, UNITS, WIDTH, Prototypes


def past(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sin(np.arange(count) / 9.0) + 0.1 * rng.standard_normal(count)


def test_products_stay_where_float32_knows_every_whole_number() -> None:
    """Else the order of a sum would show, and with it how readings were cut into batches."""
    assert (WIDTH // STEP) * (STEP * CLIP * UNITS) ** 2 <= 2**24


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_window_has_the_same_distance_in_any_batch(size: int) -> None:
    """To the bit, also of values that are cut off."""
    prototypes = Prototypes.fit(past(4000))
    windows = sliding_window_view(past(500, seed=1) * np.linspace(0.1, 30.0, 500), WIDTH)
    whole = prototypes.distances(windows)

    parts = [prototypes.distances(windows[first : first + size]) for first in range(0, len(windows), size)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_what_was_before_is_near_and_what_was_not_is_far() -> None:
    """Each prototype is its own nearest; a stretch that stands still was never seen."""
    history = past(MOST + WIDTH - 1)
    prototypes = Prototypes.fit(history)

    assert not prototypes.distances(sliding_window_view(history, WIDTH)).any()
    again = prototypes.distances(sliding_window_view(past(400, seed=2), WIDTH))
    still = prototypes.distances(np.full((1, WIDTH), 0.9))
    assert still.item() > 10 * np.median(again)


def test_units_do_not_matter() -> None:
    """Twice the scale and another zero: the same distances, up to the rounding of a value."""
    history, windows = past(3000), sliding_window_view(past(300, seed=3), WIDTH)
    plain = Prototypes.fit(history).distances(windows)
    scaled = Prototypes.fit(2.0 * history).distances(2.0 * windows)

    np.testing.assert_array_equal(scaled, plain)


def test_a_constant_past_is_left_at_once() -> None:
    prototypes = Prototypes.fit(np.full(300, 5.0))

    assert prototypes.distances(np.full((1, WIDTH), 5.0)).item() == 0.0
    moved = np.full((1, WIDTH), 5.0)
    moved[0, -1] = 6.0
    assert prototypes.distances(moved).item() > 0.0
