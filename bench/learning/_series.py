"""Series with planted events, on which settings are chosen: generated, so that no recording has to be looked at.

Five kinds of signal and five kinds of event, every pairing as the seed has it. Invariant: equal seeds give
equal series.
"""

import numpy as np
from numpy.typing import NDArray

from training.data.snapshots import Series

COUNT = 3000
FIRST_EVENT = 900
EVENTS = 3
STEP_S = 300.0

Labelled = tuple[Series, NDArray[np.bool_]]


def generated(seed: int) -> Labelled:
    """Return a series with three events, and which readings lie in one."""
    rng = np.random.default_rng([7, seed])
    values = _signal(seed % 5, rng)
    labels = np.zeros(COUNT, dtype=bool)
    room = (COUNT - FIRST_EVENT) // EVENTS
    for number in range(EVENTS):
        length = int(rng.integers(40, 200))
        first = FIRST_EVENT + number * room + int(rng.integers(0, room - length - 60))
        span = slice(first, first + length)
        values[span] = _event(int(rng.integers(0, 5)), values[span], float(np.std(values[:FIRST_EVENT])), rng)
        labels[span] = True
    ts = 1_700_000_000.0 + STEP_S * np.arange(COUNT)
    return Series(f"generated/series-{seed}/value", ts, values), labels


def _signal(kind: int, rng: np.random.Generator) -> NDArray[np.float64]:
    place = np.arange(COUNT)
    noise = rng.standard_normal(COUNT)
    period = float(rng.uniform(48, 300))
    if kind == 0:  # a day's course with overtones
        wave = np.sin(2 * np.pi * place / period) + 0.4 * np.sin(4 * np.pi * place / period + 1.0)
        return wave * rng.uniform(0.8, 1.2, COUNT) + 0.1 * noise
    if kind == 1:  # a level that wanders and comes back
        return _smooth(noise, 0.98) * 3 + 0.2 * rng.standard_normal(COUNT)
    if kind == 2:  # load that comes in bursts
        return 0.3 * np.abs(noise) + 2.0 * (rng.random(COUNT) < 0.03) * rng.gamma(2.0, 1.0, COUNT)
    if kind == 3:  # a machine's cycles
        return (place % period) / period + 0.5 * (np.sin(2 * np.pi * place / (period / 7)) > 0) + 0.05 * noise
    return np.where(_smooth(noise, 0.995) > 0, 1.0, 0.0) + 0.15 * rng.standard_normal(COUNT)  # two ways of working


def _event(kind: int, values: NDArray[np.float64], scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    count = len(values)
    sign = float(rng.choice([-1.0, 1.0]))
    if kind == 0:  # another level
        return values + sign * float(rng.uniform(1.5, 4.0)) * scale
    if kind == 1:  # less steady
        return values + float(rng.uniform(0.8, 2.0)) * scale * rng.standard_normal(count)
    if kind == 2:  # stands still
        return values.mean() + 0.02 * scale * rng.standard_normal(count)
    if kind == 3:  # the right values at the wrong time
        return values[::-1] + 0.3 * scale * np.sin(np.arange(count) / 3.0)
    ramp: NDArray[np.float64] = values + sign * np.linspace(0.0, float(rng.uniform(2.0, 5.0)) * scale, count)  # drifts
    return ramp


def _smooth(noise: NDArray[np.float64], keep: float) -> NDArray[np.float64]:
    found = np.empty(len(noise))
    level = 0.0
    for place, value in enumerate(noise):
        level = keep * level + (1 - keep**2) ** 0.5 * value
        found[place] = level
    return found
