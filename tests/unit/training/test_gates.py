"""The gates: figures, trials, verdicts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.registry.gates import (
    PromotionSettings,
    Verdicts,
    chance_of_more,
    judge_trial,
    refuse_figures,
    refuse_promotion,
)

SETTINGS = PromotionSettings(trial_readings=1000, trial_s=30.0, max_alert_ratio=1.5, alert_slack=3, rollback_verdicts=5)


@pytest.mark.parametrize(
    ("metrics", "passes"),
    [
        ({"skill_vs_ar": 0.1}, True),
        ({"skill_vs_ar": -0.05}, True),
        ({"skill_vs_ar": -0.06}, False),
        ({"skill_vs_ar": math.nan}, False),
        ({"accuracy": 0.2}, True),
    ],
    ids=["better", "at the gate", "worse", "no number", "of other figures"],
)
def test_figures(metrics: dict[str, float], passes: bool) -> None:
    assert (refuse_figures(metrics, SETTINGS) is None) is passes


@pytest.mark.parametrize(
    ("readings", "champion", "challenger", "age_s", "is_won"),
    [
        (999, 0, 0, 29.0, None),
        (1000, 4, 9, 1.0, True),
        (1000, 4, 10, 1.0, False),
        (10, 0, 3, 30.0, True),
        (10, 0, 4, 30.0, False),
        (0, 0, 0, 30.0, True),
    ],
)
def test_trials(readings: int, champion: int, challenger: int, age_s: float, is_won: bool | None) -> None:
    """4 alerts of the champion allow 1.5 x 4 + 3 = 9."""
    ruling = judge_trial(readings, champion, challenger, age_s, SETTINGS)
    assert (None if ruling is None else ruling.is_won) is is_won


def test_the_exact_test() -> None:
    """Fisher's tea: 4 of 4 right where half are, 1/70; and 3 or more of 4, 17/70."""
    assert chance_of_more(Verdicts(4, 0), Verdicts(0, 4)) == pytest.approx(1 / 70)
    assert chance_of_more(Verdicts(3, 1), Verdicts(1, 3)) == pytest.approx(17 / 70)


@given(*[st.integers(0, 40)] * 4)
def test_a_chance_is_a_chance(a: int, b: int, c: int, d: int) -> None:
    assert 0.0 <= chance_of_more(Verdicts(a, b), Verdicts(c, d)) <= 1.0 + 1e-12


@pytest.mark.parametrize(
    ("now", "before", "is_refused"),
    [
        (Verdicts(4, 0), Verdicts(0, 50), False),
        (Verdicts(6, 0), Verdicts(5, 15), True),
        (Verdicts(6, 14), Verdicts(5, 15), False),
        (Verdicts(8, 0), Verdicts(0, 0), False),
        (Verdicts(30, 5), Verdicts(2, 30), True),
    ],
    ids=["too few", "clearly worse", "as before", "nothing to compare with", "many"],
)
def test_promotions_are_taken_back(now: Verdicts, before: Verdicts, is_refused: bool) -> None:
    assert (refuse_promotion(now, before, SETTINGS) is not None) is is_refused


def test_it_can_be_switched_off() -> None:
    assert refuse_promotion(Verdicts(90, 0), Verdicts(0, 90), PromotionSettings(rollback_verdicts=0)) is None


@pytest.mark.parametrize(
    "wrong",
    [{"trial_readings": 0}, {"trial_s": 0}, {"max_alert_ratio": 0.9}, {"alert_slack": -1}, {"rollback_p": 1.0}],
    ids=str,
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PromotionSettings(**wrong)  # type: ignore[arg-type]
