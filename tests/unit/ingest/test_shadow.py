"""A challenger beside the champion: same readings, no effect."""

from ingest.detection_settings import DetectorSettings
from ingest.detector import Detector
from ingest.episode import Change
from ingest.model_trial import Trial, TrialState
from ingest.shadow import Shadow
from tests.fakes_alerts import START_S, LastDifference, readings
from tests.signals import SHIFT, a_day_with_faults

SETTINGS = DetectorSettings(min_threshold=7.0)
TRIAL = Trial(
    "t", "anomaly_detector", "v2", "file:///x", "run", "ada", "v1", TrialState.RUNNING, "", START_S, None, 0, 0, 0
)
TELEMETRY = readings(a_day_with_faults(5))


def test_the_same_model_raises_the_same_alerts_and_the_champion_is_undisturbed() -> None:
    """Both have the past that the champion had when the trial began."""
    alone, champion = Detector(SETTINGS), Detector(SETTINGS)
    for detector in (alone, champion):
        detector.swap(LastDifference("v1"))
        detector.observe(TELEMETRY[:SHIFT])
    shadow = Shadow(TRIAL, LastDifference("v2"), champion)

    for start in range(SHIFT, len(TELEMETRY), 100):
        batch = TELEMETRY[start : start + 100]
        decided = champion.observe(batch)
        shadow.observe(batch, decided)
        assert decided == alone.observe(batch)

    assert shadow.readings == len(TELEMETRY) - SHIFT
    assert shadow.champion_alerts == shadow.challenger_alerts > 0
    assert champion.model_version == "v1"


def test_a_challenger_that_fails_says_so_and_nothing_else_happens() -> None:
    champion = Detector(SETTINGS)
    champion.observe(TELEMETRY[:SHIFT])
    broken = LastDifference("v2")
    shadow = Shadow(TRIAL, broken, champion)
    broken.fails = True

    decided = champion.observe(TELEMETRY[SHIFT:])
    shadow.observe(TELEMETRY[SHIFT:], decided)

    assert shadow.failure is not None
    assert "weights are gone" in shadow.failure
    assert champion.failure is None
    assert champion.model_version == "1"


def test_a_challenger_that_wins_scores_every_series_at_once() -> None:
    """What it made of the past goes with it: from the next reading on it decides as it would have all the time."""
    champion, always = Detector(SETTINGS, LastDifference("v1")), Detector(SETTINGS, LastDifference("v2"))
    for detector in (champion, always):
        detector.observe(TELEMETRY[:SHIFT])
    winner = LastDifference("v2")
    shadow = Shadow(TRIAL, winner, champion)
    batch = TELEMETRY[SHIFT : SHIFT + 5]
    shadow.observe(batch, champion.observe(batch))
    always.observe(batch)
    seen = winner.windows_seen

    shadow.hand_over(champion)
    assert champion.num_behind == 0
    champion.catch_up()
    assert not champion.is_behind
    assert winner.windows_seen == seen, "nothing was scored a second time"
    decided = champion.observe(TELEMETRY[SHIFT + 5 :])

    assert champion.model_version == "v2"
    assert {decision.model_version for decision in decided} == {"v2"}
    expected = always.observe(TELEMETRY[SHIFT + 5 :])
    # The past was ranked in hindsight when the trial began, so an alert may clear a little sooner or later.
    assert [d.change for d in decided] == [d.change for d in expected]
    assert [d.ts for d in decided if d.change is Change.RAISE] == [d.ts for d in expected if d.change is Change.RAISE]
