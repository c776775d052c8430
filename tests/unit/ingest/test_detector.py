"""The same readings give the same decisions, however they arrive and whatever restarts."""

import math
from dataclasses import replace

import pytest

from ingest.baseline import NAME
from ingest.detection_settings import DetectorSettings
from ingest.detector import Decision, Detector
from ingest.episode import Change
from ingest.payload import Reading
from ingest.windows import SeriesKey
from tests.fakes_alerts import START_S, LastDifference, readings
from tests.signals import BURST, COUNT, SHIFT, a_day_with_faults

SETTINGS = DetectorSettings(min_threshold=7.0)
PUMP = SeriesKey("demo", "pump-1", "temperature")


def observe(detector: Detector, stream: list[Reading], size: int = 100) -> list[Decision]:
    return [
        decision for start in range(0, len(stream), size) for decision in detector.observe(stream[start : start + size])
    ]


def test_faults_become_alerts_and_clear() -> None:
    """One alert per fault, at the reading where it begins, and an end for each."""
    decisions = observe(Detector(SETTINGS), readings(a_day_with_faults()))

    raised = [round(d.ts - START_S) for d in decisions if d.change is Change.RAISE]
    assert len(raised) == 2
    assert BURST <= raised[0] < BURST + 10
    assert SHIFT <= raised[1] < SHIFT + 60
    assert [d.change for d in decisions].count(Change.CLEAR) == len(raised)


def test_a_decision_explains_itself() -> None:
    """Key, model, words and the readings before it, as they were judged."""
    decision = next(d for d in observe(Detector(SETTINGS), readings(a_day_with_faults())) if d.ts >= START_S + SHIFT)

    assert decision.key == PUMP
    assert decision.reading_key == f"{decision.change}:demo/pump-1/temperature:boot/{round(decision.ts - START_S)}"
    assert (decision.model, decision.model_version) == (NAME, "1")
    assert decision.score >= decision.threshold
    assert "lower" in decision.text or "predict" in decision.text
    points = decision.evidence.points
    assert points[-1][:3] == (decision.ts, decision.value, decision.score)
    assert [ts for ts, *_ in points] == sorted(ts for ts, *_ in points)
    assert len(points) == 101


@pytest.mark.parametrize("size", [1, 7, 64, COUNT])
def test_batches_make_no_difference(size: int) -> None:
    """Bitwise the same decisions for readings one by one and all at once."""
    stream = readings(a_day_with_faults())

    assert observe(Detector(SETTINGS), stream, size) == observe(Detector(SETTINGS), stream, 100)


@pytest.mark.parametrize("cut", [300, BURST + 1, 1250, SHIFT + 9, 2050])
def test_a_restart_makes_no_difference(cut: int) -> None:
    """Windows rebuilt from the stream, firing series from the store: the same decisions follow."""
    stream = readings(a_day_with_faults())
    whole = observe(Detector(SETTINGS), stream)
    before = [d for d in whole if d.ts < START_S + cut]

    restarted = Detector(SETTINGS)
    observe(restarted, stream[:cut], size=64)
    firing = {PUMP: (before[-1].ts, before[-1].score)} if before and before[-1].change is not Change.CLEAR else {}
    restarted.set_firing(firing)

    assert observe(restarted, stream[cut:]) == [d for d in whole if d.ts >= START_S + cut]


def test_the_store_decides_what_is_firing() -> None:
    """An episode whose alert was never committed is raised again."""
    stream = readings(a_day_with_faults())
    detector = Detector(SETTINGS)
    lost = observe(detector, stream[: SHIFT + 9])
    assert lost[-1].change is not Change.CLEAR

    detector.set_firing({})
    again = observe(detector, stream[SHIFT + 9 :])

    assert Change.RAISE in [d.change for d in again]


def test_a_redelivered_reading_is_judged_in_its_place() -> None:
    """A spike that arrives after newer readings still raises, and a second copy changes nothing."""
    stream = readings(a_day_with_faults())
    late = [stream.pop(number) for number in (BURST + 2, BURST + 1, BURST)]
    detector = Detector(SETTINGS)
    observe(detector, stream[: BURST - 3])

    decisions = observe(detector, stream[BURST - 3 : BURST + 2] + late, size=4)

    assert decisions[0].change is Change.RAISE
    assert detector.observe(late) == []
    assert detector.ignored_total == 3


def test_series_are_independent() -> None:
    """Interleaved devices come to the decisions that each comes to alone."""
    one = readings(a_day_with_faults(1), device="pump-1")
    two = readings(a_day_with_faults(2), device="pump-2")
    both = [reading for pair in zip(one, two, strict=True) for reading in pair]

    together = observe(Detector(SETTINGS), both, size=150)

    assert [d for d in together if d.key.device == "pump-1"] == observe(Detector(SETTINGS), one)
    assert [d for d in together if d.key.device == "pump-2"] == observe(Detector(SETTINGS), two)


def test_a_swapped_model_scores_the_past_anew() -> None:
    """From the next reading on every score, also those of the evidence, is the new version's."""
    stream = readings(a_day_with_faults())
    swapped, always = Detector(SETTINGS), Detector(SETTINGS, LastDifference("v2"))
    observe(swapped, stream[:SHIFT])
    observe(always, stream[:SHIFT])

    swapped.swap(LastDifference("v2"))
    decision = next(d for d in observe(swapped, stream[SHIFT:]) if d.change is Change.RAISE)
    expected = next(d for d in observe(always, stream[SHIFT:]) if d.change is Change.RAISE)

    assert (decision.model, decision.model_version) == ("last_difference", "v2")
    assert decision.ts == expected.ts
    # Ranked in hindsight the past scores a little differently, never by an order of magnitude.
    assert decision.score == pytest.approx(expected.score, abs=1.0)


def test_series_that_nobody_reports_for_go_over_to_the_new_model_between_readings() -> None:
    """A few a call; when all have, there is nothing left to do."""
    detector, stream = Detector(SETTINGS), a_day_with_faults()
    for number in range(6):
        observe(detector, readings(stream[:SHIFT], device=f"pump-{number}"))
    assert not detector.is_behind

    detector.swap(LastDifference("v2"))
    left = []
    while detector.is_behind:
        left.append(detector.num_behind)
        detector.catch_up()

    assert left[0] == 6
    assert len(left) > 1
    assert left == sorted(set(left), reverse=True)
    assert detector.num_behind == 0


def test_a_model_that_fails_while_quiet_series_go_over_to_it_is_put_back() -> None:
    """All of them score by the one before again, and none waits for ever."""
    detector, bad = Detector(SETTINGS), LastDifference("bad")
    for number in range(6):
        observe(detector, readings(a_day_with_faults()[:SHIFT], device=f"pump-{number}"))
    detector.swap(bad)
    detector.catch_up()
    bad.fails = True
    for _ in range(10):
        detector.catch_up()

    assert (detector.model, detector.is_behind, detector.num_behind) == (NAME, False, 0)
    assert detector.failure == "model last_difference@bad cannot be used: RuntimeError: weights are gone"


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_failing_model_is_put_back(when: str, caplog: pytest.LogCaptureFixture) -> None:
    """Detection goes on as if it had never been promoted, says why, and logs it once."""
    stream = readings(a_day_with_faults())
    bad = LastDifference("bad")
    detector = Detector(SETTINGS)
    decisions = observe(detector, stream[:1500])
    detector.swap(bad)
    if when == "later":
        decisions += observe(detector, stream[1500:1600])
    bad.fails = True
    decisions += observe(detector, stream[1500 if when == "at once" else 1600 :])

    assert (detector.model, detector.model_version) == (NAME, "1")
    assert detector.failure == "model last_difference@bad cannot be used: RuntimeError: weights are gone"
    assert len(caplog.records) == 1
    raised = [d for d in decisions if d.change is Change.RAISE and d.ts >= START_S + SHIFT]
    assert [d.model for d in raised][:1] == [NAME]


def test_a_model_with_a_longer_context_waits_for_it() -> None:
    """Until a series has that many values its other features judge alone."""
    scorer = LastDifference()
    scorer.context = 300
    detector = Detector(SETTINGS, scorer)
    observe(detector, readings(a_day_with_faults()[:600]))

    assert scorer.windows_seen == 300


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e308])
def test_a_monstrous_value_harms_nobody(value: float) -> None:
    """It is clipped, raises, and the series goes on being judged."""
    values = a_day_with_faults(count=1000)
    values[600] = value
    decisions = observe(Detector(SETTINGS), readings(values))

    assert any(d.ts == START_S + 600 and d.change is Change.RAISE for d in decisions)
    assert all(math.isfinite(d.score) and math.isfinite(d.value) for d in decisions)


def test_a_silent_series_that_had_to_leave_is_reported() -> None:
    """Its alert will never clear by itself, so its owner must hear of it."""
    detector = Detector(replace(SETTINGS, max_series=1))
    observe(detector, readings(a_day_with_faults(count=SHIFT + 20)))
    detector.observe(readings([1.0], device="pump-2"))

    assert detector.take_lost() == [PUMP]
    assert detector.take_lost() == []
