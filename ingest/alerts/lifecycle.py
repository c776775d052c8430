"""What may happen to an alert, as pure functions: the alert before, the alert after.

Knows no clock, no SQL and no channel. Condition, handling, suppression and verdict move
independently, except that a problem which grows worse asks for attention again. Invariant: every change
raises ``version`` by one, and a step that would change nothing returns None instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ingest.alerts.model import Action, Alert, Condition, Handling, Severity, SourceKind, Suppression, Verdict, iso

SYSTEM = "watchfloor"
"""Who acts where no person and no source does."""
MUTED_BY = "muted_by"
"""Key of an event's data: why nobody is told of it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step of an alert."""

    before: Alert | None
    after: Alert
    action: Action
    at: float
    actor: str
    reason: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A source says, once more, that the problem is there."""

    at: float
    actor: str
    severity: Severity
    text: str
    count: int = 1
    """Readings this sighting stands for."""
    value: float | None = None
    score: float | None = None
    threshold: float | None = None
    model: str | None = None
    model_version: str | None = None
    recorded_at: str | None = None
    details: Mapping[str, Any] | None = None
    """What else the source says; kept as it is."""

    def data(self) -> dict[str, Any]:
        """Return what the history keeps of it."""
        kept = {
            "severity": str(self.severity),
            "value": self.value,
            "score": self.score,
            "threshold": self.threshold,
            "model": self.model,
            "model_version": self.model_version,
            "recorded_at": self.recorded_at,
            "text": self.text,
            "details": self.details,
        }
        return {name: value for name, value in kept.items() if value is not None}


def status(alert: Alert) -> str:
    """Return all axes in one word, as the history shows them."""
    return _status(alert.condition, alert.handling, alert.verdict, bool(alert.suppressed_by))


@lru_cache
def _status(condition: Condition, handling: Handling, verdict: Verdict | None, is_suppressed: bool) -> str:
    axes = [condition.value, handling.value]
    if verdict is not None:
        axes.append(verdict.value)
    if is_suppressed:
        axes.append("suppressed")
    return "/".join(axes)


def is_over(alert: Alert, at: float, reopen_window_s: float) -> bool:
    """Tell whether a sighting at ``at`` belongs to a new occurrence instead of ``alert``.

    A closed alert is over. A cleared or stale one is over after the window. A device's own
    alert is a moment, not a state: it is over when it was not repeated for that long.
    """
    if alert.handling is Handling.CLOSED:
        return True
    if alert.condition is Condition.CLEARED:
        return at - (alert.cleared_at or alert.last_seen_at) > reopen_window_s
    if alert.condition is Condition.STALE or alert.source_kind is SourceKind.DEVICE:
        return at - alert.last_seen_at > reopen_window_s
    return False


def is_by_another_model(alert: Alert, sighting: Sighting) -> bool:
    """Tell whether a problem that had ended is now seen by another model version.

    That is an occurrence of its own, however soon: every alert is traceable to the one
    version that raised it, and people see at once what the new version finds.
    """
    has_ended = alert.condition is not Condition.FIRING
    return has_ended and (sighting.model, sighting.model_version) != (alert.model, alert.model_version)


def raised(alert: Alert, sighting: Sighting) -> Change:
    """Begin an occurrence; ``alert`` carries version 1."""
    return Change(None, alert, Action.RAISED, sighting.at, sighting.actor, None, sighting.data() | _muted(alert))


def seen_again(alert: Alert, sighting: Sighting, now: float | None = None) -> Change:
    """Take a further sighting into the same occurrence.

    Args:
        now: the writer's time, from which people are waited for; None: the sighting's.
    """
    now = sighting.at if now is None else now
    is_late = alert.condition is Condition.CLEARED and sighting.at <= (alert.cleared_at or sighting.at)
    reopens = alert.condition is not Condition.FIRING and not is_late
    escalates = sighting.severity.rank > alert.severity.rank
    changes: dict[str, Any] = {
        "count": alert.count + sighting.count,
        "last_seen_at": max(alert.last_seen_at, sighting.at),
        "starts_at": min(alert.starts_at, sighting.at),
        "version": alert.version + 1,
    }
    if sighting.score is None or sighting.score >= (alert.score or 0.0):
        # A detector's alert shows its rarest reading, a device's its latest.
        shown = ("value", "score", "threshold", "model", "model_version", "text")
        changes |= {name: getattr(sighting, name) for name in shown}
    if reopens:
        changes |= {"condition": Condition.FIRING, "cleared_at": None}
    if escalates:
        changes["severity"] = sighting.severity
    ack_ended = alert.ack_expires_at is not None and alert.ack_expires_at <= now
    if alert.handling is Handling.ACKED and (escalates or (reopens and ack_ended)):
        # Who acknowledged saw a smaller problem, or an earlier one.
        changes |= _UNACKED
    if (escalates or reopens) and alert.handling is not Handling.CLOSED:
        changes |= _waiting(now)
    after = alert.but(**changes)
    action = Action.ESCALATED if escalates else Action.REOPENED if reopens else Action.REPEATED
    data = sighting.data() if action is Action.REPEATED else sighting.data() | _muted(after)
    return Change(alert, after, action, sighting.at, sighting.actor, None, data)


def cleared(alert: Alert, at: float, actor: str, reason: str | None = None) -> Change | None:
    """The source says that the problem is gone."""
    if alert.condition is Condition.CLEARED:
        return None
    after = alert.but(condition=Condition.CLEARED, cleared_at=at, version=alert.version + 1)
    return Change(alert, after, Action.CLEARED, at, actor, reason)


def went_stale(alert: Alert, at: float, actor: str, reason: str) -> Change | None:
    """The source fell silent: whether the problem is still there is unknown."""
    if alert.condition is not Condition.FIRING:
        return None
    after = alert.but(condition=Condition.STALE, version=alert.version + 1)
    return Change(alert, after, Action.WENT_STALE, at, actor, reason)


def acknowledged(
    alert: Alert, at: float, user_id: str, expires_at: float | None = None, *, renews: bool = False
) -> Change | None:
    """Somebody takes care of it.

    Args:
        expires_at: when it ends by itself; None: with the occurrence.
        renews: one who acknowledges an acknowledged alert takes it over, with this end.
    """
    if alert.handling is Handling.CLOSED or (alert.handling is Handling.ACKED and not renews):
        return None
    after = alert.but(
        handling=Handling.ACKED,
        acked_by=user_id,
        acked_at=at,
        ack_expires_at=expires_at,
        waiting_since=None,
        version=alert.version + 1,
    )
    data = {} if expires_at is None else {"expires_at": iso(expires_at)}
    return Change(alert, after, Action.ACKNOWLEDGED, at, user_id, None, data)


def unacknowledged(alert: Alert, at: float, user_id: str) -> Change | None:
    """Nobody takes care of it after all."""
    if alert.handling is not Handling.ACKED:
        return None
    after = alert.but(version=alert.version + 1, **_UNACKED, **_waiting(at))
    return Change(alert, after, Action.UNACKNOWLEDGED, at, user_id)


def ack_expired(alert: Alert, at: float) -> Change | None:
    """Who took care of it did not finish in time: it waits for somebody again, if it is still there."""
    if alert.handling is not Handling.ACKED or alert.ack_expires_at is None or alert.ack_expires_at > at:
        return None
    if alert.condition is Condition.CLEARED:
        return None
    reason = f"acknowledged by {alert.acked_by} until {iso(alert.ack_expires_at)}"
    after = alert.but(version=alert.version + 1, **_UNACKED, **_waiting(at))
    return Change(alert, after, Action.ACK_EXPIRED, at, SYSTEM, reason, _muted(after))


def escalated_to(alert: Alert, at: float, level: int, audience: str | None, waited_s: float) -> Change | None:
    """Nobody acknowledged in time: ``audience`` is told, once per level.

    Args:
        level: 1 for the first step of the policy.
        audience: ``user:<id>`` or ``group:<name>``; None: the policy names a supervisor and the device has none.
        waited_s: how long it waited.
    """
    is_due = alert.handling is Handling.NEW and alert.condition is not Condition.CLEARED and not alert.suppressed_by
    if not is_due or alert.escalation_level >= level:
        return None
    after = alert.but(escalation_level=level, escalated_to=audience or alert.escalated_to, version=alert.version + 1)
    reason = f"not acknowledged for {waited_s:.0f} s" + ("" if audience else "; the device has no supervisor")
    return Change(alert, after, Action.ESCALATED_TO, at, SYSTEM, reason, {"level": level, "to": audience})


def suppressed(alert: Alert, at: float, actor: str, by: Suppression) -> Change | None:
    """Nobody is told of it from now on, for one more reason or under changed terms."""
    if by in alert.suppressed_by or alert.handling is Handling.CLOSED:
        return None
    others = tuple(one for one in alert.suppressed_by if one.ref != by.ref)
    after = alert.but(suppressed_by=(*others, by), version=alert.version + 1)
    data = {"kind": by.kind.value, "ref": by.ref, "until": iso(by.until)}
    return Change(alert, after, Action.SUPPRESSED, at, actor, by.reason, data)


def unsuppressed(alert: Alert, at: float, actor: str, ref: str, reason: str) -> Change | None:
    """One reason for silence is gone; with the last one people are told again, if anybody has to act."""
    left = tuple(one for one in alert.suppressed_by if one.ref != ref)
    if len(left) == len(alert.suppressed_by):
        return None
    changes: dict[str, Any] = {"suppressed_by": left, "version": alert.version + 1}
    if not left and alert.handling is Handling.NEW:
        changes |= _waiting(at)
    after = alert.but(**changes)
    return Change(alert, after, Action.UNSUPPRESSED, at, actor, reason, {"ref": ref} | _muted(after, is_reminder=True))


def closed(
    alert: Alert, at: float, user_id: str, verdict: Verdict | None = None, reason: str | None = None
) -> Change | None:
    """People are done with it, and perhaps say what it was."""
    if alert.handling is Handling.CLOSED:
        return None
    after = alert.but(
        handling=Handling.CLOSED,
        closed_by=user_id,
        closed_at=at,
        ack_expires_at=None,
        waiting_since=None,
        version=alert.version + 1,
    )
    if verdict is not None:
        after = after.but(verdict=verdict, verdict_by=user_id, verdict_at=at)
    return Change(alert, after, Action.CLOSED, at, user_id, reason)


def judged(alert: Alert, at: float, user_id: str, verdict: Verdict) -> Change | None:
    """Somebody says what it was; the same person may change their mind, and so may others."""
    if alert.verdict is verdict:
        return None
    after = alert.but(verdict=verdict, verdict_by=user_id, verdict_at=at, version=alert.version + 1)
    return Change(alert, after, Action.VERDICT_GIVEN, at, user_id, None, {"verdict": verdict.value})


def noted(alert: Alert, at: float, user_id: str, note: str) -> Change:
    """Somebody writes something down."""
    return Change(alert, alert.but(version=alert.version + 1), Action.NOTED, at, user_id, None, {"note": note})


_UNACKED: Mapping[str, Any] = {
    "handling": Handling.NEW,
    "acked_by": None,
    "acked_at": None,
    "ack_expires_at": None,
}


def _waiting(since: float) -> dict[str, Any]:
    return {"waiting_since": since, "escalation_level": 0}


def _muted(alert: Alert, *, is_reminder: bool = False) -> dict[str, Any]:
    """Return why nobody is told of an event that leads to ``alert``; empty when people are.

    Args:
        is_reminder: nothing happened to the problem itself, so only one that waits for a person is told again.
    """
    why = [one.kind.value for one in alert.suppressed_by]
    if is_reminder and alert.handling is not Handling.NEW:
        why.append(alert.handling.value)
    if is_reminder and alert.condition is Condition.CLEARED:
        why.append(alert.condition.value)
    return {MUTED_BY: why} if why else {}
