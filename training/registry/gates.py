"""When a version may be tried, when a trial is won, and when a promotion is taken back.

Pure: figures in, a word and its reason out. Invariant: nothing is promoted without a reason
that names the figures, and nothing is refused without one either.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionSettings:
    """The gates between a trained version and the alerts that people see."""

    max_skill_loss: float = 0.05
    """A version is refused when its held-out error is larger than its own closed form's by more than this share."""
    trial_readings: int = 2000
    """Readings that a challenger judges silently beside the champion before it may take over."""
    trial_s: float = 30.0
    """A trial is decided after so long, in seconds, also when fewer readings came."""
    max_alert_ratio: float = 1.5
    """A challenger is refused when it would have raised more than so many times the champion's alerts ..."""
    alert_slack: int = 3
    """... and so many more, which a few readings may bring by chance."""
    rollback_verdicts: int = 5
    """False alarms that people must have named before a promotion is taken back; 0: never by itself."""
    rollback_p: float = 0.05
    """Taken back when the share of false alarms rose by less chance than this (Fisher's exact test, one-sided)."""
    rollback_s: float = 604_800.0
    """How long a promotion is watched, in seconds."""

    def __post_init__(self) -> None:
        if self.trial_readings < 1 or self.trial_s <= 0:
            raise ValueError(
                f"trial_readings must be at least 1 and trial_s positive, got {self.trial_readings}, {self.trial_s}"
            )
        if self.max_alert_ratio < 1 or self.alert_slack < 0:
            raise ValueError(
                f"max_alert_ratio must be at least 1 and alert_slack not negative, "
                f"got {self.max_alert_ratio}, {self.alert_slack}"
            )
        if self.max_skill_loss < 0 or self.rollback_verdicts < 0:
            raise ValueError("max_skill_loss and rollback_verdicts must not be negative")
        if not 0 < self.rollback_p < 1:
            raise ValueError(f"rollback_p must be above 0 and below 1, got {self.rollback_p}")


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What people said of one version's alerts."""

    false: int
    """False alarms."""
    others: int
    """True, or expected."""

    @property
    def total(self) -> int:
        """Verdicts that count; ``unsure`` does not."""
        return self.false + self.others


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a trial."""

    is_won: bool
    reason: str


def refuse_figures(metrics: dict[str, float], settings: PromotionSettings) -> str | None:
    """Return why a version must not even be tried, by its held-out figures; None: it may."""
    skill = metrics.get("skill_vs_ar")
    if skill is None:
        return None  # a model of somebody's own: it has other figures
    if not math.isfinite(skill) or skill < -settings.max_skill_loss:
        return (
            f"its held-out error is {-skill:.1%} larger than its closed form's, "
            f"{settings.max_skill_loss:.1%} at most are let pass"
        )
    return None


def judge_trial(
    readings: int, champion_alerts: int, challenger_alerts: int, age_s: float, settings: PromotionSettings
) -> Ruling | None:
    """Say how a trial ended; None while it goes on.

    Without any reading in its time a challenger wins by its held-out figures: nothing speaks against it.
    """
    allowed = settings.max_alert_ratio * champion_alerts + settings.alert_slack
    seen = f"{challenger_alerts} alerts on {readings} readings where the champion raised {champion_alerts}"
    # More readings can only bring more alerts, and the champion's share of them is bounded by what it raised so far.
    if readings < settings.trial_readings and age_s < settings.trial_s:
        return None
    if challenger_alerts > allowed:
        return Ruling(False, f"it would have raised {seen}; {allowed:g} at most are let pass")
    return Ruling(True, f"it would have raised {seen}" if readings else "no reading came in the time of its trial")


def refuse_promotion(now: Verdicts, before: Verdicts, settings: PromotionSettings) -> str | None:
    """Return why a promotion is taken back, by what people said of its alerts; None: it stands.

    Args:
        now: of the champion since its promotion.
        before: of the version before it.
    """
    if not settings.rollback_verdicts or now.false < settings.rollback_verdicts:
        return None
    chance = chance_of_more(now, before)
    if chance >= settings.rollback_p:
        return None
    return (
        f"{now.false} of {now.total} verdicts on its alerts are false alarms, {before.false} of {before.total} "
        f"were before it; by chance that happens in {chance:.2%} of cases"
    )


def chance_of_more(now: Verdicts, before: Verdicts) -> float:
    """Return the chance of at least ``now.false`` false alarms among ``now.total`` if nothing had changed.

    Without any verdict from before, one false alarm in two is taken as what people bear.

    References:
        Fisher, The Design of Experiments (1935): the exact test of a 2 x 2 table.
    """
    if before.total == 0:
        before = Verdicts(1, 1)
    total, false = now.total + before.total, now.false + before.false
    most = min(false, now.total)
    ways = math.comb(total, now.total)
    tail = sum(math.comb(false, k) * math.comb(total - false, now.total - k) for k in range(now.false, most + 1))
    return tail / ways
