"""Alerts of other systems in the form of Alertmanager's API v2, turned into our own words.

Pure: one JSON object in, one checked alert out, and what the floor makes of its labels. The
fingerprint is of the tenant and all labels, as at an Alertmanager, because these are what a Prometheus names
a problem by. Invariant: a checked alert holds only text that every store takes.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.alerts.model import Severity, SourceKind

MAX_LABELS = 64
MAX_NAME_CHARS = 128
MAX_VALUE_CHARS = 1024
MAX_ANNOTATION_CHARS = 4096
MAX_TITLE_CHARS = 256
MAX_TEXT_CHARS = 2000
FUTURE_S = 300.0
"""A start further ahead than this is somebody's wrong clock: it begins now."""
MAX_HOLD_S = 7 * 86_400.0
"""Longest time for which an alert is believed without being repeated."""
OLDEST_S = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
"""A time before this one says that there is none: Go's zero time is of the year 1."""

SEVERITIES: Mapping[str, Severity] = {
    **{severity.value: severity for severity in Severity},
    "page": Severity.CRITICAL,
    "emergency": Severity.CRITICAL,
    "fatal": Severity.CRITICAL,
    "error": Severity.HIGH,
    "major": Severity.HIGH,
    "warn": Severity.WARNING,
    "minor": Severity.LOW,
    "information": Severity.INFO,
    "informational": Severity.INFO,
    "none": Severity.INFO,
}
"""Label ``severity`` -> ours; any other word is a warning."""
DEVICE_LABELS = ("device", "device_id", "instance")
"""The first that is there names the device."""
NO_DEVICE = "external"

_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:.-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_LINK = re.compile(r"https?://[!-~]{1,1000}")
_NO_LEVEL = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAlert:
    """One alert of another system, checked."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    links: Mapping[str, str]
    """Where to read more: ``generator_url``, ``runbook_url``."""
    starts_at: float
    ends_at: float
    """Until when it holds; in the past: it has ended."""

    def fingerprint(self, tenant: str) -> str:
        """Name of the problem: a hash of the tenant and all labels, so that nobody names another tenant's."""
        text = "\x00".join(f"{name}\x01{value}" for name, value in sorted(self.labels.items()))
        return hashlib.sha256(f"{tenant}\x00{SourceKind.EXTERNAL.value}\x00{text}".encode()).hexdigest()[:16]

    @property
    def rule(self) -> str:
        """``alertname``, as nearly everybody has it."""
        return self.labels.get("alertname", "unnamed")[:MAX_NAME_CHARS]

    @property
    def severity(self) -> Severity:
        return SEVERITIES.get(self.labels.get("severity", "").lower(), Severity.WARNING)

    @property
    def device_id(self) -> str:
        return _level(next((self.labels[name] for name in DEVICE_LABELS if self.labels.get(name)), NO_DEVICE))

    @property
    def metric(self) -> str | None:
        return self.labels.get("metric", "")[:MAX_NAME_CHARS] or None

    @property
    def title(self) -> str:
        return (self.annotations.get("summary") or self.annotations.get("title") or self.rule)[:MAX_TITLE_CHARS]

    @property
    def text(self) -> str:
        texts = (self.annotations.get(name) for name in ("description", "message", "summary"))
        return next(filter(None, texts), self.rule)[:MAX_TEXT_CHARS]

    @property
    def value(self) -> float | None:
        """Annotation ``value``, where it is a number."""
        try:
            value = float(self.annotations.get("value", ""))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def tenant(self, default: str) -> str:
        """Return the label ``tenant``, or ``default`` without one."""
        return _level(self.labels["tenant"]) if self.labels.get("tenant") else default


def parse_alert(item: object, now: float, resolve_s: float) -> ExternalAlert:
    """Check one alert of a request.

    Args:
        item: what JSON made of it.
        now: time of arrival.
        resolve_s: how long an alert holds that does not say when it ends.

    Raises:
        ValueError: it cannot be used; the text says why.
    """
    if not isinstance(item, dict):
        raise ValueError("must be an object")  # noqa: TRY004 -- one kind of error for the caller
    labels = _texts(item.get("labels"), "labels", MAX_VALUE_CHARS)
    if not labels:
        raise ValueError("needs at least one label")
    annotations = _texts(item.get("annotations"), "annotations", MAX_ANNOTATION_CHARS)
    starts_at, ends_at = _time(item.get("startsAt"), "startsAt"), _time(item.get("endsAt"), "endsAt")
    if starts_at is None or starts_at > now + FUTURE_S:
        starts_at = now if ends_at is None else min(now, ends_at)
    if ends_at is None:
        ends_at = now + resolve_s
    if ends_at < starts_at:
        raise ValueError("ends before it starts")
    ends_at = min(ends_at, now + MAX_HOLD_S)
    links = {"generator_url": item.get("generatorURL"), "runbook_url": annotations.get("runbook_url")}
    return ExternalAlert(
        labels=labels,
        annotations=annotations,
        links={name: url for name, url in links.items() if isinstance(url, str) and _LINK.fullmatch(url)},
        starts_at=starts_at,
        ends_at=ends_at,
    )


def _texts(value: Any, what: str, limit: int) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object of texts")  # noqa: TRY004
    if len(value) > MAX_LABELS:
        raise ValueError(f"has {len(value)} {what}; at most {MAX_LABELS} are allowed")
    found = {}
    for name, text in value.items():
        if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
            raise ValueError(f"{what} has a name that is not 1-{MAX_NAME_CHARS} of [A-Za-z0-9_:.-]")
        if not isinstance(text, str):
            raise ValueError(f"{what}.{name} must be text")  # noqa: TRY004
        if len(text) > limit:
            raise ValueError(f"{what}.{name} has {len(text)} characters; at most {limit} are allowed")
        # An empty label is no label, there as here.
        if text := _UNPRINTABLE.sub(" ", text):
            found[name] = text
    return found


def _time(value: Any, what: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        at = datetime.fromisoformat(value)
        seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} must be a time such as 2026-11-23T18:30:00Z") from None
    return seconds if seconds >= OLDEST_S else None


def _level(text: str) -> str:
    """Return a text as tenants and devices are named: ``host:9100`` becomes ``host-9100``."""
    return _NO_LEVEL.sub("-", text).strip("-")[:64] or NO_DEVICE
