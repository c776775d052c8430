"""When a run of scores becomes one alert, grows, and is over.

Hysteresis: it starts at a score above the threshold that is also the highest of the recent
past, and ends after a quiet stretch well below the threshold. Pure state, one per series.
"""

from dataclasses import dataclass
from enum import StrEnum

from ingest.detection_settings import DetectorSettings


class Change(StrEnum):
    """What a reading did to its series' alert."""

    RAISE = "raise"
    UPDATE = "update"
    CLEAR = "clear"


@dataclass(slots=True)
class Episode:
    """Whether a series is firing, and since when."""

    is_firing: bool = False
    started_ts: float = 0.0
    """Time of the reading that raised it."""
    peak: float = 0.0
    """Highest score that was reported."""
    exceeding: int = 0
    """Readings above the threshold so far."""
    quiet: int = 0
    """Readings in a row below the clear level."""

    def step(
        self, ts: float, score: float, threshold: float, recent_max: float, settings: DetectorSettings
    ) -> Change | None:
        """Take in one reading.

        Args:
            ts: its time.
            score: its score.
            threshold: of its series now.
            recent_max: highest score of the recent past, this reading left out; only looked
                at when a new alert is possible.
            settings: the hysteresis.
        """
        if not self.is_firing:
            if score < threshold or score < recent_max:
                return None
            self.is_firing, self.started_ts, self.peak, self.exceeding, self.quiet = True, ts, score, 1, 0
            return Change.RAISE
        if score < settings.clear_ratio * threshold:
            self.quiet += 1
            if self.quiet < settings.quiet_readings:
                return None
            self.is_firing = False
            return Change.CLEAR
        self.quiet = 0
        self.exceeding += score >= threshold
        if score < self.peak + settings.update_step:
            return None
        self.peak = score
        return Change.UPDATE
