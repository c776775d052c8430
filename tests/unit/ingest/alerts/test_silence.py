"""Silences without a store: what they match, and when they are on."""

import time
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ingest.alerts.model import SuppressionKind
from ingest.alerts.silence import Matcher, Repeat
from tests.fakes_alerts import AN_ALERT, START_S, a_silence

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("matcher", "matches"),
    [
        pytest.param(Matcher("device", ("pump-1",)), True, id="equal"),
        pytest.param(Matcher("device", ("pump",)), False, id="not-a-prefix"),
        pytest.param(Matcher("device", ("pump-?",)), True, id="one-sign"),
        pytest.param(Matcher("device", ("*-1",)), True, id="star"),
        pytest.param(Matcher("device", ("door-*", "pump-*")), True, id="any-of"),
        pytest.param(Matcher("device", ("pump-*",), True), False, id="negated"),
        pytest.param(Matcher("severity", ("critical", "high")), True, id="severity"),
        pytest.param(Matcher("label.line", ("4",)), True, id="label"),
        pytest.param(Matcher("label.shift", ("",)), True, id="label-that-is-missing"),
        pytest.param(Matcher("metric", ("",)), True, id="field-that-is-missing"),
        pytest.param(Matcher("site", ("Hall [3]",)), False, id="no-regular-expression"),
        pytest.param(Matcher("rule", ("*a*e_*u*k",)), True, id="many-stars"),
    ],
)
def test_a_matcher(matcher: Matcher, *, matches: bool) -> None:
    """Whole values, two wildcards, everything else is itself."""
    assert matcher.matches(AN_ALERT) is matches


def test_a_hostile_pattern_costs_nothing() -> None:
    """Eight stars against a long text that nearly fits."""
    alert = replace(AN_ALERT, title="a" * 256)
    began_s = time.perf_counter()

    assert not Matcher("title", ("*a*a*a*a*a*a*ab",)).matches(alert)
    assert time.perf_counter() - began_s < 1.0


def test_all_matchers_must_match_and_the_tenant_bounds_them() -> None:
    """One of a tenant never touches another's alerts."""
    both = (Matcher("site", ("Hall 3",)), Matcher("severity", ("high",)))

    assert a_silence(*both).matches(AN_ALERT)
    assert not a_silence(*both, Matcher("rule", ("x",))).matches(AN_ALERT)
    assert not a_silence(*both, tenant="others").matches(AN_ALERT)


def test_a_silence_is_on_between_its_times() -> None:
    """Before, within, after; and not once somebody ended it."""
    silence = a_silence()

    assert silence.window(START_S - 10) == silence.window(START_S + 10) == (START_S, START_S + 3600)
    assert silence.window(START_S + 3600) is None
    assert replace(silence, expired_by="bob").window(START_S + 10) is None


def test_a_weekly_window_keeps_its_time_of_day_over_summer_time() -> None:
    """02:00 in Berlin is 02:00 in Berlin, in March as in April."""
    zone = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 3, 22, 2, 0, tzinfo=zone).timestamp()
    silence = a_silence(starts_at=first, ends_at=first + 3600, repeats=Repeat.WEEKLY, time_zone="Europe/Berlin")
    next_window = silence.window(first + 7.5 * DAY_S)

    assert next_window is not None
    assert datetime.fromtimestamp(next_window[0], zone) == datetime(2026, 4, 5, 2, 0, tzinfo=zone)
    assert silence.window(first + 1800) == (first, first + 3600)


def test_a_repeated_window_ends() -> None:
    """No window begins after ``repeats_until``."""
    silence = a_silence(repeats=Repeat.DAILY, repeats_until=START_S + 2 * DAY_S)

    assert silence.window(START_S + 1.9 * DAY_S) == (START_S + 2 * DAY_S, START_S + 2 * DAY_S + 3600)
    assert silence.window(START_S + 2.5 * DAY_S) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ends_at": START_S}, id="ends-when-it-begins"),
        pytest.param({"ends_at": START_S + 400 * DAY_S}, id="too-long"),
        pytest.param({"comment": ""}, id="no-reason"),
        pytest.param({"time_zone": "Mars/Olympus"}, id="no-such-zone"),
        pytest.param({"repeats_until": START_S + DAY_S}, id="end-of-no-repetition"),
        pytest.param({"repeats": Repeat.DAILY, "ends_at": START_S + 2 * DAY_S}, id="overlaps-itself"),
        pytest.param(
            {"kind": SuppressionKind.MAINTENANCE, "matchers": (Matcher("severity", ("low",)),)},
            id="maintenance-of-no-place",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    """At construction, with the reason."""
    with pytest.raises(ValueError, match=r"\w"):
        a_silence(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["", "label.", "password", "id"])
def test_a_matcher_of_no_field_is_refused(field: str) -> None:
    """The text names the fields that there are."""
    with pytest.raises(ValueError, match="severity"):
        Matcher(field, ("x",))
