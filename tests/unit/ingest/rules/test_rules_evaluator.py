"""When rules fire and clear: hysteresis, durations, rates, silence, clocks, reloads."""

from collections.abc import Sequence

import pytest

from ingest.episode import Change
from ingest.payload import Reading
from ingest.rules.evaluator import RuleChange, RuleEvaluator
from ingest.rules.parse import parse_rules
from ingest.windows import SeriesKey

KEY = SeriesKey("t", "d", "m")
START = 1_700_000_000.0


def evaluator(body: str, **settings: float) -> RuleEvaluator:
    """Return the one rule ``r`` on metric ``m``."""
    return RuleEvaluator(parse_rules(f"rules:\n  - name: r\n    metric: m\n{body}"), **settings)  # type: ignore[arg-type]


def reading(at: float, value: float, *, arrived: float | None = None, device: str = "d", metric: str = "m") -> Reading:
    """Return a reading of ``START + at``."""
    ts = START + at
    return Reading("t", device, "boot", int(at), ts, {metric: value}, None, ts if arrived is None else START + arrived)


def told(changes: Sequence[RuleChange]) -> list[tuple[str, float]]:
    """Return what changed, in seconds after the start."""
    return [(change.change.value, change.at - START) for change in changes]


HYSTERESIS = "    threshold: {above: 80, clear_below: 75}\n"


def test_between_the_levels_nothing_changes() -> None:
    """Raised above 80, cleared below 75: a value that dances around 80 makes one alert."""
    values = [79, 81, 79, 81, 76, 75, 74.9, 79, 80, 80.1]

    changes = evaluator(HYSTERESIS).observe([reading(at, value) for at, value in enumerate(values)])

    assert told(changes) == [("raise", 1), ("clear", 6), ("raise", 9)]
    assert [change.value for change in changes] == [81, 74.9, 80.1]


def test_without_hysteresis_the_level_itself_is_good() -> None:
    """Above 80 is bad, 80 is not; below a floor the other way round."""
    rows = [reading(at, value) for at, value in enumerate([80, 81, 80])]
    assert told(evaluator("    threshold: {above: 80}\n").observe(rows)) == [("raise", 1), ("clear", 2)]
    rows = [reading(at, value) for at, value in enumerate([5, 4, 5])]
    assert told(evaluator("    threshold: {below: 5}\n").observe(rows)) == [("raise", 1), ("clear", 2)]


def test_for_and_clear_for_need_an_unbroken_stretch() -> None:
    """One good reading starts the wait anew, and so does one bad one on the way out."""
    rule = evaluator(HYSTERESIS + "    for: 60s\n    clear_for: 30s\n")
    rows = [(0, 90), (50, 90), (55, 70), (60, 90), (119, 90), (120, 90), (130, 70), (150, 78), (155, 70), (185, 70)]

    changes = rule.observe([reading(at, value) for at, value in rows])

    assert told(changes) == [("raise", 120), ("clear", 185)]
    assert changes[0].since == START + 60


def test_a_rate_is_the_slope_over_its_stretch() -> None:
    """Per minute, over five; too short a past has no slope."""
    rule = evaluator("    rate: {above: 2, clear_below: 1, per: 1m, over: 5m}\n")
    rows = [(minute * 60.0, 10.0 + max(0, minute - 10) * 3.0) for minute in range(20)]

    changes = rule.observe([reading(at, value) for at, value in rows])

    # After n minutes of +3 the slope over five is 3 n / 5: it passes 2 with the fourth.
    assert told(changes) == [("raise", 14 * 60)]
    assert changes[0].value == pytest.approx(12 / 5)


def test_a_rate_keeps_few_points() -> None:
    """A thousand readings a second need no thousand points a second."""
    rule = evaluator("    rate: {above: 1000, over: 5m}\n")
    rule.observe([reading(at / 10, at) for at in range(6_000)])

    series = rule._series.get(KEY)
    assert series is not None
    assert len(series.trackers[0].points) <= 66


def test_redelivered_and_late_readings_change_nothing() -> None:
    """Same for one that comes twice and for an old one that comes after newer ones."""
    rule = evaluator(HYSTERESIS)
    assert told(rule.observe([reading(10, 90)])) == [("raise", 10)]

    assert rule.observe([reading(10, 90), reading(5, 70, arrived=11)]) == []
    assert told(rule.observe([reading(12, 70)])) == [("clear", 12)]


def test_a_clock_set_back_is_followed_after_a_minute() -> None:
    """Until then its readings pass for late ones; a rule is not deaf for an hour."""
    rule = evaluator(HYSTERESIS)
    rule.observe([reading(3600, 70, arrived=0)])

    back = [reading(second, 90, arrived=second) for second in range(1, 100, 10)]

    assert told(rule.observe(back)) == [("raise", 61)]


ABSENCE = "    absence: {after: 10m}\n"


def test_silence_is_told_at_its_deadline_and_ends_with_a_reading() -> None:
    """By arrival: a device's clock says nothing about it."""
    rule = evaluator(ABSENCE)
    rule.observe([reading(-5000, 1, arrived=0)])

    assert rule.advance(START + 599) == []
    assert told(rule.advance(START + 605)) == [("raise", 600)]
    assert rule.advance(START + 5000) == []
    assert told(rule.observe([reading(-100, 1, arrived=6000)])) == [("clear", 6000)]


def test_a_silence_that_ended_before_anybody_looked_is_told_with_both_ends() -> None:
    """A detector that catches up finds the same as one that was there."""
    changes = evaluator(ABSENCE).observe([reading(0, 1), reading(900, 1)])

    assert told(changes) == [("raise", 600), ("clear", 900)]


def test_after_a_start_the_cut_off_may_come_back_first() -> None:
    """A floor that was down for an hour does not call all its devices silent at once."""
    rule = evaluator(ABSENCE, watched_since=START + 3600)
    rule.observe([reading(0, 1)])

    assert rule.advance(START + 3659) == []
    assert told(rule.advance(START + 3661)) == [("raise", 3660)]


def test_a_device_rule_takes_any_metric_for_a_sign_of_life() -> None:
    """And a device that only the directory remembers is watched too."""
    rule = RuleEvaluator(parse_rules("rules:\n  - name: r\n    absence: {after: 10m}\n"))
    rule.saw("t", "gone", START - 100)
    rule.observe([reading(0, 1, metric="a"), reading(500, 1, metric="b")])

    changes = rule.advance(START + 700)

    assert [(change.key, change.at - START) for change in changes] == [(SeriesKey("t", "gone", ""), 500)]


def test_reading_keys_are_of_the_reading_and_fit_their_column() -> None:
    """The same readings give the same keys in every process; another reading gives another."""
    rows = [reading(at, value) for at, value in enumerate([90, 70, 90])]
    first, second = (evaluator(HYSTERESIS).observe(rows) for _ in range(2))

    assert [change.reading_key for change in first] == [change.reading_key for change in second]
    assert len({change.reading_key for change in first}) == 3
    assert max(len(change.reading_key) for change in first) < 64


def test_how_readings_are_cut_into_batches_changes_nothing() -> None:
    """One by one or all at once."""
    rows = [reading(at, 70 + 15 * ((at * 7919) % 3)) for at in range(200)]
    whole = evaluator(HYSTERESIS).observe(rows)
    one_by_one = evaluator(HYSTERESIS)

    assert whole == [change for row in rows for change in one_by_one.observe([row])]
    assert len(whole) > 10


def test_a_rule_that_goes_away_ends_its_alerts() -> None:
    """Other words keep them; another level judges anew from the next reading."""
    rule = evaluator(HYSTERESIS)
    rule.observe([reading(0, 90)])

    assert (
        rule.use(parse_rules("rules:\n  - name: r\n    metric: m\n" + HYSTERESIS + "    severity: low\n"), START) == []
    )
    assert rule.use(parse_rules("rules:\n  - name: r\n    metric: m\n    threshold: {above: 95}\n"), START) == []
    assert told(rule.observe([reading(1, 90)])) == [("clear", 1)]
    rule.observe([reading(2, 99)])
    assert [change.change for change in rule.use((), START + 3)] == [Change.CLEAR]
    assert rule.num_firing == 0


def test_a_device_that_moves_leaves_the_rules_of_its_site() -> None:
    """Where devices stand comes from the directory."""
    rule = evaluator(HYSTERESIS + "    site: hall-1\n")
    assert rule.observe([reading(0, 90)]) == []
    rule.set_sites({("t", "d"): "hall-1"}, START)
    assert told(rule.observe([reading(1, 90)])) == [("raise", 1)]

    assert told(rule.set_sites({("t", "d"): "hall-2"}, START + 2)) == [("clear", 2)]


def test_after_a_restart_the_store_says_what_fires() -> None:
    """What it does not know is not firing, and what has no rule any more ends."""
    rule = evaluator(HYSTERESIS)
    rule.observe([reading(0, 90)])
    other = SeriesKey("t", "other", "m")

    ended = rule.set_firing({("r", other): START - 5, ("gone", KEY): START - 9}, START + 1)

    assert [(change.rule.name, change.key, change.change) for change in ended] == [("gone", KEY, Change.CLEAR)]
    assert told(rule.observe([reading(1, 90)])) == [("raise", 1)]
    assert told(rule.observe([reading(2, 70, device="other")])) == [("clear", 2)]


def test_what_is_kept_is_bounded() -> None:
    """The series longest silent leaves, and its alert is not forgotten."""
    rule = evaluator(HYSTERESIS, max_series=3)
    rule.observe([reading(0, 90, device=f"d{number}") for number in range(5)])

    assert rule.take_lost() == [("r", SeriesKey("t", "d0", "m")), ("r", SeriesKey("t", "d1", "m"))]
    assert rule.take_lost() == []
