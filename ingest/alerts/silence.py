"""Silences and maintenance windows: which alerts they match, and when they are on.

Pure: a silence, an alert and a time in, an answer out. A silence is what a person orders
because of what they see; a maintenance window is announced and may repeat; both only keep
people from being told. Patterns know ``*`` and ``?`` and no regular expressions, so that
nobody's pattern can hold up the alerts of others. Times are seconds since the Unix epoch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from ingest.alerts.model import Alert, JsonObject, Suppression, SuppressionKind, iso

LABEL = "label."
"""Prefix of a field that names a label of the alert."""
FIELDS = ("tenant", "client", "site", "device", "source", "rule", "metric", "severity", "title", "fingerprint")
PLACES = frozenset({"tenant", "client", "site", "device"})
"""Fields of which a maintenance window names at least one."""
MAX_MATCHERS = 20
MAX_VALUES = 50
MAX_VALUE_CHARS = 256
MAX_WILDCARDS = 8
MAX_COMMENT_CHARS = 1000
MAX_LENGTH_S = 366 * 86_400.0


class Repeat(StrEnum):
    """How often a window comes back, at the same time of day in its time zone."""

    NEVER = "never"
    DAILY = "daily"
    WEEKLY = "weekly"


_STEPS = {Repeat.DAILY: timedelta(days=1), Repeat.WEEKLY: timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on an alert: a field has, or has not, one of some values."""

    field: str
    """One of ``FIELDS``, or ``label.<name>``."""
    values: tuple[str, ...]
    """Patterns with ``*`` and ``?``; a field that the alert does not have is the empty text."""
    is_negated: bool = False

    def __post_init__(self) -> None:
        if self.field not in FIELDS and not (self.field.startswith(LABEL) and len(self.field) > len(LABEL)):
            raise ValueError(f"a matcher's field must be one of {', '.join(FIELDS)} or label.NAME, got {self.field!r}")
        if not 1 <= len(self.values) <= MAX_VALUES:
            raise ValueError(f"a matcher has 1-{MAX_VALUES} values, got {len(self.values)}")
        for value in (self.field, *self.values):
            if len(value) > MAX_VALUE_CHARS or value.count("*") + value.count("?") > MAX_WILDCARDS:
                raise ValueError(
                    f"a matcher's value has at most {MAX_VALUE_CHARS} characters and {MAX_WILDCARDS} wildcards"
                )

    def matches(self, alert: Alert) -> bool:
        """Tell whether the alert meets this condition."""
        text = _field_of(alert, self.field)
        return any(_pattern(value).fullmatch(text) is not None for value in self.values) is not self.is_negated

    def to_json(self) -> JsonObject:
        """Return the form of the API and of the table."""
        return {"field": self.field, "values": list(self.values), "is_negated": self.is_negated}


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts of which nobody is told, between two times or again and again."""

    id: str
    kind: SuppressionKind
    """SILENCE or MAINTENANCE."""
    tenant: str | None
    """Whose alerts alone it may match; None: those of all tenants."""
    matchers: tuple[Matcher, ...]
    """All must match."""
    starts_at: float
    ends_at: float
    """End of the first window, where it repeats."""
    comment: str
    created_by: str
    created_at: float
    updated_by: str
    updated_at: float
    repeats: Repeat = Repeat.NEVER
    time_zone: str = "UTC"
    """IANA name; the time of day of a repeated window is this zone's, summer time included."""
    repeats_until: float | None = None
    """No window begins after this; None: for ever."""
    expired_by: str | None = None
    """Who ended it early."""
    version: int = 1

    def __post_init__(self) -> None:
        if self.kind is SuppressionKind.FLAPPING:
            raise ValueError("a silence has the kind silence or maintenance")
        if not 1 <= len(self.matchers) <= MAX_MATCHERS:
            raise ValueError(f"a silence has 1-{MAX_MATCHERS} matchers, got {len(self.matchers)}")
        is_place = any(one.field in PLACES and not one.is_negated for one in self.matchers)
        if self.kind is SuppressionKind.MAINTENANCE and not is_place:
            raise ValueError(f"a maintenance window names one of {', '.join(sorted(PLACES))}")
        if not self.starts_at < self.ends_at <= self.starts_at + MAX_LENGTH_S:
            raise ValueError("a silence ends after it starts, and within a year")
        if not 0 < len(self.comment) <= MAX_COMMENT_CHARS:
            raise ValueError(f"a silence says why, in 1-{MAX_COMMENT_CHARS} characters")
        step = _STEPS.get(self.repeats)
        if step is not None and self.ends_at - self.starts_at > step.total_seconds():
            raise ValueError(f"a window that repeats {self.repeats} is no longer than that")
        if step is None and self.repeats_until is not None:
            raise ValueError("repeats_until belongs to a window that repeats")
        zone_of(self.time_zone)

    def matches(self, alert: Alert) -> bool:
        """Tell whether it is about ``alert``, whether or not it is on."""
        return self.tenant in {None, alert.tenant} and all(one.matches(alert) for one in self.matchers)

    def window(self, now: float) -> tuple[float, float] | None:
        """Return start and end of the window that is on at ``now`` or comes next; None: there is none any more."""
        if self.expired_by is not None:
            return None
        step = _STEPS.get(self.repeats)
        if step is None:
            return (self.starts_at, self.ends_at) if now < self.ends_at else None
        zone = zone_of(self.time_zone)
        length_s = self.ends_at - self.starts_at
        number = max(0, int((now - length_s - self.starts_at) // step.total_seconds()) - 1)
        while True:  # at most three times: an hour of summer time moves a window by less than a step
            start = _later(self.starts_at, step * number, zone)
            if self.repeats_until is not None and start > self.repeats_until:
                return None
            if now < start + length_s:
                return start, start + length_s
            number += 1

    def suppression(self, until: float | None) -> Suppression:
        """Return what stands on an alert that it suppresses."""
        return Suppression(self.kind, self.id, self.comment, self.updated_by, until)


def silence_to_json(silence: Silence, now: float) -> JsonObject:
    """Return a silence as the API and every message show it."""
    window = silence.window(now)
    state = "expired" if window is None else "active" if window[0] <= now else "pending"
    return {
        "id": silence.id,
        "kind": silence.kind.value,
        "state": state,
        "tenant": silence.tenant,
        "matchers": [one.to_json() for one in silence.matchers],
        "starts_at": iso(silence.starts_at),
        "ends_at": iso(silence.ends_at),
        "repeats": silence.repeats.value,
        "time_zone": silence.time_zone,
        "repeats_until": iso(silence.repeats_until),
        "active_from": None if window is None else iso(window[0]),
        "active_until": None if window is None else iso(window[1]),
        "comment": silence.comment,
        "created_by": silence.created_by,
        "created_at": iso(silence.created_at),
        "updated_by": silence.updated_by,
        "updated_at": iso(silence.updated_at),
        "expired_by": silence.expired_by,
        "version": silence.version,
    }


def matchers_from(stored: Sequence[JsonObject]) -> tuple[Matcher, ...]:
    """Return the matchers of their JSON form."""
    return tuple(Matcher(one["field"], tuple(one["values"]), bool(one.get("is_negated"))) for one in stored)


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name.

    Raises:
        ValueError: there is none of this name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name[:64]!r}") from error


def _later(at: float, by: timedelta, zone: tzinfo) -> float:
    """Return the same time of day, ``by`` later on the zone's calendar."""
    wall = datetime.fromtimestamp(at, zone).replace(tzinfo=None) + by
    return wall.replace(tzinfo=zone).timestamp()


def _field_of(alert: Alert, field: str) -> str:
    if field.startswith(LABEL):
        return str(alert.labels.get(field.removeprefix(LABEL), ""))
    values: dict[str, str | None] = {
        "tenant": alert.tenant,
        "client": alert.client_id,
        "site": alert.site,
        "device": alert.device_id,
        "source": alert.source_kind.value,
        "rule": alert.rule,
        "metric": alert.metric,
        "severity": alert.severity.value,
        "title": alert.title,
        "fingerprint": alert.fingerprint,
    }
    return values[field] or ""


@lru_cache(maxsize=2048)
def _pattern(value: str) -> re.Pattern[str]:
    # Atomic groups: no backtracking from one star into the one before it, whatever the text.
    first, *rest = (_literal(part) for part in value.split("*"))
    if not rest:
        return re.compile(first, re.DOTALL)
    *middle, last = rest
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


def _literal(text: str) -> str:
    return "".join("." if sign == "?" else re.escape(sign) for sign in text)
