"""Seeded telemetry with known faults."""

import numpy as np
from numpy.typing import NDArray

BURST = 1200
"""First of 10 readings that are far too high."""
SHIFT = 2000
"""First of 60 readings at a lower level."""
COUNT = 2300


def a_day_with_faults(seed: int = 5, count: int = COUNT) -> NDArray[np.float64]:
    """A noisy wave with a burst and, much later, a shift."""
    rng = np.random.default_rng(seed)
    values = 20 + 3 * np.sin(np.arange(COUNT) / 12) + rng.normal(0, 0.3, COUNT)
    values[BURST : BURST + 10] += 12
    values[SHIFT : SHIFT + 60] -= 15
    return values[:count]
