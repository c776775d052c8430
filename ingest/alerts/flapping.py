"""When a problem comes and goes so often that its news are no news.

Nagios' idea on changes instead of checks: recent changes weigh more than old ones, and the
weight that starts flapping is far above the one that ends it. Pure: times in, a step of
the alert out. While it flaps, its changes are stored and shown and nobody is told; people
hear that it started, and that it stopped.
"""

from collections.abc import Sequence
from typing import Any

from ingest.alerts.lifecycle import MUTED_BY, SYSTEM, Change
from ingest.alerts.model import Action, Alert, Handling, Suppression, SuppressionKind
from ingest.alerts.settings import NEW_WEIGHT, OLD_WEIGHT, AlertSettings


def with_change(flaps: Sequence[float], at: float, settings: AlertSettings) -> tuple[float, ...]:
    """Return the times of the last changes with one more."""
    return (*flaps, at)[-settings.flap_changes :] if settings.flap_window_s else ()


def weight(flaps: Sequence[float], now: float, settings: AlertSettings) -> float:
    """Return what the changes inside the window weigh together."""
    ages = [max(0.0, now - at) / settings.flap_window_s for at in flaps] if settings.flap_window_s else []
    return sum(NEW_WEIGHT - (NEW_WEIGHT - OLD_WEIGHT) * age for age in ages if age <= 1)


def flapped(alert: Alert, now: float, settings: AlertSettings) -> Change | None:
    """Start or stop flapping when the changes of ``alert`` say so."""
    score = weight(alert.flaps, now, settings)
    if not alert.is_flapping and score >= settings.flap_high and alert.handling is not Handling.CLOSED:
        recent = sum(1 for at in alert.flaps if now - at <= settings.flap_window_s)
        reason = f"{recent} changes in {settings.flap_window_s / 60:.0f} min"
        why = Suppression(SuppressionKind.FLAPPING, alert.fingerprint, reason, SYSTEM)
        after = alert.but(suppressed_by=(*alert.suppressed_by, why), version=alert.version + 1)
        # Told although it is suppressed from now on: that it flaps is the news.
        data = {MUTED_BY: [one.kind.value for one in alert.suppressed_by]} if alert.suppressed_by else {}
        return Change(alert, after, Action.FLAPPING_STARTED, now, SYSTEM, reason, {"score": round(score, 2), **data})
    if alert.is_flapping and score < settings.flap_low:
        left = tuple(one for one in alert.suppressed_by if one.kind is not SuppressionKind.FLAPPING)
        waiting: dict[str, Any] = (
            {"waiting_since": now, "escalation_level": 0} if alert.handling is Handling.NEW else {}
        )
        after = alert.but(suppressed_by=left, version=alert.version + 1, **waiting)
        data = {MUTED_BY: [one.kind.value for one in left]} if left else {}
        reason = f"steady: {alert.condition}"
        return Change(alert, after, Action.FLAPPING_STOPPED, now, SYSTEM, reason, {"score": round(score, 2), **data})
    return None
