"""One set of parameters for all series: none is tuned to a device.

Chosen with all shipped series in view, so figures on these are not blind; docs/adr/0050 and
0095 have them, and the variants that were left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """When a series is judged, against what, and when that becomes an alert."""

    exceedance_rate: float = 0.004
    """Share of readings whose score may pass the threshold while nothing is wrong; neighbours make one alert."""
    warm_up_readings: int = 256
    """Readings of a series before its first alert."""
    history_size: int = 4096
    """Readings a series is compared with; older ones leave. About 0.45 MiB of memory per series at the default."""
    max_series: int = 1000
    """Series (tenant, device, metric) kept; beyond it the one longest silent leaves and starts anew later."""
    min_threshold: float = 5.0
    """No score below this raises an alert, however quiet the series was (a sum of -log10 tail ranks)."""
    recent_readings: int = 200
    """An alert needs a score above all of the last so many readings (or ``recent_share``, whichever is more)."""
    recent_share: float = 0.05
    """Same, as a share of the history."""
    clear_ratio: float = 0.6
    """An alert clears when the score stays below this part of the threshold ..."""
    quiet_readings: int = 50
    """... for so many readings in a row."""
    update_step: float = 1.0
    """A firing alert reports again when its score has grown by this much (one decade of rarity)."""
    context: int = 24
    """Values the AR baseline predicts from."""
    ridge: float = 0.01
    """Penalty of the AR baseline, per window."""
    batch_readings: int = 4000
    """Most readings taken from the stream in one turn."""
    rebuild_readings: int = 100_000
    """Most readings of the stream that a restarted detector fills its windows from."""
    verdict_rarity: float = 2.0
    """How many times rarer than ``exceedance_rate`` verdicts of false alarms may make alarms; 1: not at all."""
    verdict_days: float = 30.0
    """Days for which a verdict counts."""
    evidence_before: int = 100
    """Readings before the alert that are kept as its evidence."""
    evidence_max: int = 400
    """Readings an alert's evidence may grow to while it fires."""

    def __post_init__(self) -> None:
        if not 0 < self.exceedance_rate < TAIL_SHARE:
            raise ValueError(f"exceedance_rate must be between 0 and {TAIL_SHARE}, got {self.exceedance_rate}")
        if self.warm_up_readings < BLOCK:
            raise ValueError(f"warm_up_readings must be at least {BLOCK}, got {self.warm_up_readings}")
        if self.history_size < max(2 * BLOCK, self.warm_up_readings):
            raise ValueError(f"history_size must be at least {2 * BLOCK} and warm_up_readings, got {self.history_size}")
        for name in ("max_series", "batch_readings", "rebuild_readings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.context < BLOCK:
            raise ValueError(f"context must be 1-{BLOCK - 1}, got {self.context}")
        if not 0 < self.clear_ratio <= 1:
            raise ValueError(f"clear_ratio must be in (0, 1], got {self.clear_ratio}")
        if self.verdict_rarity < 1:
            raise ValueError(f"verdict_rarity must be at least 1, got {self.verdict_rarity}")
        if self.verdict_days <= 0:
            raise ValueError(f"verdict_days must be positive, got {self.verdict_days}")
        if not 1 <= self.evidence_before < self.evidence_max:
            raise ValueError(f"evidence_before must be 1-{self.evidence_max - 1}, got {self.evidence_before}")


BLOCK = 64
"""Readings after which a series is refitted and its sorted history merged. Blocks are counted
from the first reading of the series, so results do not depend on how readings were batched."""

TAIL_SHARE = 0.05
"""Share of the scores that the threshold's tail is fitted to."""
