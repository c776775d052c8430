"""A challenger at work beside the champion: the same readings, the same rules, and nobody hears of it.

Holds a twin of the detector as it was when the trial began, so both have the same past.
Invariant: nothing here can change what the champion decides; a challenger that fails ends its
trial and nothing else.
"""

from collections.abc import Mapping, Sequence

from ingest.detector import Decision, Detector
from ingest.episode import Change
from ingest.model_trial import Trial
from ingest.payload import Reading
from ingest.scorer import Scorer
from ingest.windows import SeriesKey


class Shadow:
    """One trial in this detector."""

    def __init__(self, trial: Trial, scorer: Scorer, champion: Detector) -> None:
        """Begin with the champion's windows, scored anew by the challenger as each series is heard of."""
        self.trial = trial
        self.scorer = scorer
        self.readings = 0
        self.champion_alerts = 0
        self.challenger_alerts = 0
        self._detector = champion.twin(scorer)

    @property
    def failure(self) -> str | None:
        """Why the challenger cannot go on; None while it can."""
        return self._detector.failure

    def hand_over(self, champion: Detector) -> None:
        """Make the challenger the champion's model, with every series' past as it is here; the trial is over."""
        champion.take_over(self._detector)

    def set_levels(self, levels: Mapping[SeriesKey, float]) -> None:
        """See ``Detector.set_levels``."""
        self._detector.set_levels(levels)

    def observe(self, readings: Sequence[Reading], decided: Sequence[Decision]) -> None:
        """Judge what the champion has just judged.

        Args:
            readings: the same ones.
            decided: what the champion made of them.
        """
        would_be = self._detector.observe(readings)
        self._detector.take_lost()
        self.readings += len(readings)
        self.champion_alerts += _raised(decided)
        self.challenger_alerts += _raised(would_be)


def _raised(decisions: Sequence[Decision]) -> int:
    return sum(decision.change is Change.RAISE for decision in decisions)
