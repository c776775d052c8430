"""What an alert is: its axes, its row, its history, and its JSON form.

Condition (what the source says), handling (what people did), suppression (why nobody is
told) and verdict (what people think) are separate: an alert can be cleared and still
unseen. One function makes the JSON, so the API and every message show the same object. Times are seconds since the
Unix epoch here and ISO-8601 UTC in JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

JsonObject = dict[str, Any]


class Condition(StrEnum):
    """What the source says about the problem."""

    FIRING = "firing"
    CLEARED = "cleared"
    STALE = "stale"
    """The source fell silent: nobody knows, so it is never shown as resolved."""


class Handling(StrEnum):
    """How far people are with it."""

    NEW = "new"
    ACKED = "acked"
    CLOSED = "closed"


class SuppressionKind(StrEnum):
    """Why nobody is told of an alert, although it is stored and counted."""

    SILENCE = "silence"
    MAINTENANCE = "maintenance"
    FLAPPING = "flapping"


class Verdict(StrEnum):
    """What a person says it was; the label that training learns from."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    EXPECTED = "expected"
    UNSURE = "unsure"


class Severity(StrEnum):
    """How bad it is, by the words that devices use."""

    CRITICAL = "critical"
    HIGH = "high"
    WARNING = "warning"
    LOW = "low"
    INFO = "info"

    @property
    def rank(self) -> int:
        """5 for critical down to 1 for info."""
        return _RANKS[self]


_RANKS = {Severity.CRITICAL: 5, Severity.HIGH: 4, Severity.WARNING: 3, Severity.LOW: 2, Severity.INFO: 1}


class Action(StrEnum):
    """What an event of an alert's history did."""

    RAISED = "raised"
    REPEATED = "repeated"
    REOPENED = "reopened"
    ESCALATED = "escalated"
    CLEARED = "cleared"
    WENT_STALE = "went_stale"
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    CLOSED = "closed"
    VERDICT_GIVEN = "verdict_given"
    NOTED = "noted"
    ACK_EXPIRED = "ack_expired"
    ESCALATED_TO = "escalated_to"
    """Nobody acknowledged in time, so somebody else is told; ``escalated`` is the severity's."""
    SUPPRESSED = "suppressed"
    UNSUPPRESSED = "unsuppressed"
    FLAPPING_STARTED = "flapping_started"
    FLAPPING_STOPPED = "flapping_stopped"


class SourceKind(StrEnum):
    """Who says that there is a problem."""

    DEVICE = "device"
    MODEL = "model"
    RULE = "rule"
    EXTERNAL = "external"
    """Another system, over the API."""
    HEARTBEAT = "heartbeat"
    """Nobody reported in time."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The readings around an alert as they were judged, kept with it."""

    metric: str
    points: tuple[tuple[float, float, float | None, str | None], ...]
    """(ts, value, score, recorded_at), oldest first; score None before the detector was warm."""
    threshold: float | None
    """Of the scores; None where nothing was scored."""
    window_start: float
    """Time of the first point."""
    window_end: float
    """Time of the last point."""

    def to_json(self) -> JsonObject:
        """Return the form stored in SQL and sent to the page."""
        return {
            "metric": self.metric,
            "points": [list(point) for point in self.points],
            "threshold": self.threshold,
            "window_start": self.window_start,
            "window_end": self.window_end,
        }


@dataclass(frozen=True, slots=True)
class Suppression:
    """One reason for which nobody is told of an alert."""

    kind: SuppressionKind
    ref: str
    """Id of the silence; for flapping the fingerprint."""
    reason: str
    by: str
    until: float | None = None
    """None: nobody knows yet."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One occurrence of one problem; field for field a row of ``alerts`` without its evidence.

    Without slots, so that ``but`` can copy all fields at once.
    """

    id: str
    tenant: str
    device_id: str
    fingerprint: str
    """Same problem, same fingerprint: a hash of tenant, source, rule, device and metric."""
    occurrence: int
    """1 for the first time the problem was seen; counts on when it comes back later."""
    source_kind: SourceKind
    rule: str
    """The device's own alert type, or the detector's rule."""
    severity: Severity
    condition: Condition
    handling: Handling
    title: str
    text: str
    starts_at: float
    last_seen_at: float
    version: int
    """Number of events so far; compare-and-set and "which is newer" both use it."""
    count: int = 1
    """Readings that said so during this occurrence."""
    client_id: str | None = None
    site: str | None = None
    supervisor_id: str | None = None
    metric: str | None = None
    model: str | None = None
    model_version: str | None = None
    score: float | None = None
    threshold: float | None = None
    verdict: Verdict | None = None
    value: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cleared_at: float | None = None
    acked_by: str | None = None
    acked_at: float | None = None
    closed_by: str | None = None
    closed_at: float | None = None
    verdict_by: str | None = None
    verdict_at: float | None = None
    recorded_at: str | None = None
    """Original time of the reading, where it was replayed from a recording."""
    suppressed_by: tuple[Suppression, ...] = ()
    """Every reason for which nobody is told; empty: people are."""
    flaps: tuple[float, ...] = ()
    """Times of the problem's last changes between firing and cleared, occurrences before this one included."""
    ack_expires_at: float | None = None
    """When the acknowledgement ends by itself; None: with the occurrence."""
    waiting_since: float | None = None
    """Since when it waits for a person; what escalation counts from."""
    escalation_level: int = 0
    """Steps of the escalation policy taken since then."""
    escalated_to: str | None = None
    """Who was told last because nobody acknowledged."""

    def but(self, **changes: Any) -> "Alert":
        """Return a copy with these fields changed: ``dataclasses.replace`` in a tenth of its time."""
        assert changes.keys() <= self.__dict__.keys(), f"no such field: {changes.keys() - self.__dict__.keys()}"
        copy = object.__new__(Alert)
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    @property
    def is_suppressed(self) -> bool:
        return bool(self.suppressed_by)

    @property
    def is_flapping(self) -> bool:
        return any(one.kind is SuppressionKind.FLAPPING for one in self.suppressed_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent:
    """One entry of an alert's history."""

    id: str
    alert_id: str
    seq: int
    """The alert's version after this event."""
    at: float
    actor: str
    """User id, or ``device``, ``detector`` or ``rules``."""
    action: Action
    from_: str | None
    """``condition/handling`` before; None for the first event."""
    to: str
    reason: str | None = None
    request_id: str | None = None
    reading_key: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    broadcast_at: float | None = None


@dataclass(frozen=True, slots=True)
class EventRef:
    """Names an event that was just committed."""

    event_id: str
    alert_id: str
    action: Action


def alert_to_json(alert: Alert) -> JsonObject:
    """Return the alert as the API and every message show it (without its evidence)."""
    # str, because an enum's ``value`` takes four times as long, and a message asks for five of them.
    return {
        "id": alert.id,
        "tenant": alert.tenant,
        "device_id": alert.device_id,
        "client_id": alert.client_id,
        "site": alert.site,
        "fingerprint": alert.fingerprint,
        "occurrence": alert.occurrence,
        "source": {
            "kind": str(alert.source_kind),
            "rule": alert.rule,
            "model": alert.model,
            "model_version": alert.model_version,
            "score": alert.score,
            "threshold": alert.threshold,
        },
        "metric": alert.metric,
        "severity": str(alert.severity),
        "condition": str(alert.condition),
        "handling": str(alert.handling),
        "verdict": None if alert.verdict is None else str(alert.verdict),
        "verdict_by": alert.verdict_by,
        "title": alert.title,
        "text": alert.text,
        "value": alert.value,
        "count": alert.count,
        "labels": dict(alert.labels),
        "starts_at": iso(alert.starts_at),
        "last_seen_at": iso(alert.last_seen_at),
        "cleared_at": iso(alert.cleared_at),
        "acked_by": alert.acked_by,
        "acked_at": iso(alert.acked_at),
        "closed_by": alert.closed_by,
        "closed_at": iso(alert.closed_at),
        "recorded_at": alert.recorded_at,
        "suppressed_by": [suppression_to_json(one) for one in alert.suppressed_by],
        "ack_expires_at": iso(alert.ack_expires_at),
        "escalation_level": alert.escalation_level,
        "escalated_to": alert.escalated_to,
        "version": alert.version,
    }


def suppression_to_json(one: Suppression) -> JsonObject:
    """Return a reason of an alert's suppression as the API and every message show it."""
    return {"kind": one.kind.value, "ref": one.ref, "reason": one.reason, "by": one.by, "until": iso(one.until)}


def event_to_json(event: AlertEvent) -> JsonObject:
    """Return an event of the history as the API shows it."""
    return {
        "id": event.id,
        "alert_id": event.alert_id,
        "seq": event.seq,
        "at": iso(event.at),
        "actor": event.actor,
        "action": event.action.value,
        "from": event.from_,
        "to": event.to,
        "reason": event.reason,
        "data": dict(event.data),
    }


def iso(at: float | None) -> str | None:
    """Return ``at`` as ISO-8601 UTC with milliseconds and a Z; None stays None."""
    if at is None:
        return None
    second, microsecond = divmod(round(at * 1e6), 1_000_000)
    return f"{_iso_second(second)}.{microsecond // 1000:03d}Z"


@lru_cache(maxsize=1024)
def _iso_second(second: int) -> str:
    # Remembered: a message has half a dozen times, and most of them were in the message before.
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]
