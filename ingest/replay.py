"""How the simulated devices replay the recorded series: the same way for every series.

Values only, so that whoever starts the simulation can say how without loading it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How the recorded series are replayed."""

    speed: float = 50.0
    """Readings per second and device."""
    start: float = 0.0
    """Where in each series to begin: 0 its first point, 0.5 its middle; the same for all."""
    loops: bool = True
    """Begin again at a series' first point when it ends; otherwise that device falls silent."""
    seed: int = 1
    """Of the alerting devices."""
    has_alerts: bool = True
    """Whether the alerting devices take part."""

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 10_000:
            raise ValueError(f"speed must be above 0 and at most 10000 readings/s, got {self.speed}")
        if not 0 <= self.start < 1:
            raise ValueError(f"start must be at least 0 and below 1, got {self.start}")

    def __str__(self) -> str:
        return f"{self.speed:g} readings/s each, every series from {self.start:.0%} of its length"
