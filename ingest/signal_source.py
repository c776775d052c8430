"""Seeded telemetry: a daily wave, noise with memory, and faults whose places are known.

Pure. For tests and load, where the truth must be known and any length be available; the demo
uses recorded series. Invariant: a seed and a device name determine every value and fault.
"""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What went wrong at a point."""

    SPIKE = "spike"
    SHIFT = "shift"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Point:
    """One value and whether it belongs to a fault."""

    value: float
    fault: Fault | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalShape:
    """What the generated series look like."""

    period: int = 288
    """Points per day of the wave."""
    amplitude: float = 10.0
    """Of the daily wave."""
    noise: float = 1.0
    """Standard deviation of what is added to the noise at each point."""
    memory: float = 0.7
    """Share of the noise that stays from point to point."""
    mean_gap: int = 2000
    """Average number of good points between faults; 0: no faults."""

    def __post_init__(self) -> None:
        if self.period < 1 or self.mean_gap < 0 or not 0 <= self.memory < 1:
            raise ValueError(f"period must be positive, mean_gap not negative, memory in [0, 1), got {self}")


def generate_points(seed: int, device: str, shape: SignalShape) -> Iterator[Point]:
    """Yield one device's points, for ever."""
    rng = random.Random(f"{seed}/{device}")  # noqa: S311  a signal, not a secret
    base = rng.uniform(20.0, 80.0)
    phase = rng.randrange(shape.period)
    noise = 0.0
    next_fault = _gap(rng, shape)
    fault: Fault | None = None
    left = 0
    offset = stuck_at = 0.0
    for index in itertools.count():
        noise = shape.memory * noise + rng.gauss(0.0, shape.noise)
        value = base + shape.amplitude * math.sin(2 * math.pi * (index + phase) / shape.period) + noise
        if fault is None and index == next_fault:
            fault = rng.choice(list(Fault))
            left = {Fault.SPIKE: 1, Fault.SHIFT: 30, Fault.STUCK: 40}[fault]
            offset = rng.choice((-1, 1)) * (10 * shape.noise + shape.amplitude)
            stuck_at = value
        if fault is None:
            yield Point(value, None)
            continue
        yield Point(stuck_at if fault is Fault.STUCK else value + offset, fault)
        left -= 1
        if left == 0:
            fault = None
            next_fault = index + 1 + _gap(rng, shape)


def _gap(rng: random.Random, shape: SignalShape) -> int:
    return -1 if shape.mean_gap == 0 else 1 + int(rng.expovariate(1 / shape.mean_gap))
