"""One rule on one series: pending, firing, clear -- as readings and time go by.

Pure state, no clock. Bad and good are told by the rule's level; between its two levels a
firing alert goes on and a quiet one stays quiet. Invariant: ``step`` answers with a change
only when the alert begins or ends, so a value that dances around one level makes one alert.
"""

from collections import deque
from dataclasses import dataclass, field

from ingest.episode import Change
from ingest.rules.model import Absence, Rate, Rule

RATE_POINTS = 64
"""Points kept of the stretch that a rate is measured on; closer ones are left out."""


@dataclass(slots=True)
class Tracker:
    """What one rule knows of one series."""

    rule: Rule
    is_firing: bool = False
    started_at: float = 0.0
    """Device time of the first bad reading of the alert that is firing."""
    bad_since: float | None = None
    """Device time since when readings are bad without a break; None: the last one was not."""
    good_since: float | None = None
    last: float | None = None
    """What was measured last."""
    points: deque[tuple[float, float]] = field(default_factory=deque)
    """(device time, value) of a rate's stretch, oldest first."""

    def measured(self, ts: float, value: float) -> float | None:
        """Return what the rule compares: the value, or its slope; None when too little is known for a slope."""
        condition = self.rule.condition
        return self._slope(ts, value, condition) if isinstance(condition, Rate) else value

    def step(self, ts: float, value: float) -> Change | None:
        """Take in what was measured at ``ts``; times never go back."""
        condition = self.rule.condition
        self.last = value
        if isinstance(condition, Absence):
            raise TypeError("absence is told by time, not by values")
        if condition.level.is_bad(value):
            self.good_since = None
            if self.bad_since is None:
                self.bad_since = ts
            if self.is_firing or ts - self.bad_since < self.rule.for_s:
                return None
            self.is_firing, self.started_at = True, self.bad_since
            return Change.RAISE
        self.bad_since = None
        if not self.is_firing or not condition.level.is_good(value):
            self.good_since = None
            return None
        if self.good_since is None:
            self.good_since = ts
        if ts - self.good_since < self.rule.clear_for_s:
            return None
        self.is_firing, self.good_since = False, None
        return Change.CLEAR

    def restart_time(self) -> None:
        """The device's clock went back: what was measured by the old one is forgotten, a firing alert goes on."""
        self.bad_since = self.good_since = None
        self.points.clear()

    def _slope(self, ts: float, value: float, rate: Rate) -> float | None:
        points = self.points
        # One point at or before the beginning of the stretch stays: the slope spans all of it.
        while len(points) > 1 and points[1][0] <= ts - rate.over_s:
            points.popleft()
        slope = None
        if points and ts - points[0][0] >= rate.over_s / 2:
            then, before = points[0]
            slope = (value - before) / (ts - then) * rate.per_s
        if not points or ts - points[-1][0] >= rate.over_s / RATE_POINTS:
            points.append((ts, value))
        return slope
