"""Queries over alerts, and what people do to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from cluster.clock import Clock
from ingest.alerts.model import Alert, AlertEvent, Condition, Handling, Severity

MAX_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertQuery:
    """Which alerts a caller wants; None leaves an axis open."""

    tenant: str | None = None
    condition: Condition | None = None
    handling: Handling | None = None
    severity: Severity | None = None
    device_id: str | None = None
    order: str = "newest"
    """``newest`` first or ``worst`` (severity, then newest) first."""
    cursor: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts in the order asked for."""

    items: tuple[Alert, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class AlertDetail:
    """An alert with its history and its evidence (JSON object or None)."""

    alert: Alert
    events: tuple[AlertEvent, ...]
    evidence: dict[str, Any] | None


class AlertStore:
    """Interface first; the body follows. Synchronous: call it off the event loop."""

    def __init__(self, engine: Engine, clock: Clock) -> None: ...

    def list(self, query: AlertQuery) -> AlertPage:
        raise NotImplementedError

    def get(self, alert_id: str, tenant: str | None = None) -> AlertDetail:
        """Raises AlertNotFoundError."""
        raise NotImplementedError

    def act(
        self,
        ids: Sequence[str],
        action: str,
        user_id: str,
        request_id: str,
        *,
        tenant: str | None = None,
        verdict: str | None = None,
        note: str | None = None,
    ) -> "list[Alert]":
        """acknowledge | unacknowledge | close | verdict | note, all ids in one transaction, once per request_id.

        Raises AlertNotFoundError (then nothing changes), ValueError for an unknown action or verdict.
        """
        raise NotImplementedError

    def counts(self, tenant: str | None = None) -> dict[str, Any]:
        """{"total", "unacked": {severity: n}, "firing": n}."""
        raise NotImplementedError
