"""Queries over alerts, and what people do to them.

Reads never wait for writers; an action on many alerts is one transaction and, by its
request id, has its effect once. Synchronous: call it off the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, func, select, tuple_

from cluster import metrics
from cluster.clock import Clock
from cluster.store import read_transaction
from ingest.alerts import lifecycle
from ingest.alerts.engine import in_ledger
from ingest.alerts.ledger import ALERT_COLUMNS, EVENT_COLUMNS, Ledger, alert_from_row, event_from_row
from ingest.alerts.model import Alert, AlertEvent, Condition, Handling, Severity, SourceKind, Verdict
from ingest.alerts.settings import AlertSettings
from ingest.alerts.tables import alert_events, alerts
from ingest.errors import AlertNotFoundError, VersionConflictError

MAX_PAGE = 500
MAX_BULK = 10_000
"""Alerts of one action."""
MAX_TEXT = 200
MAX_WORDS = 8
MAX_ACK_S = 7 * 86_400.0
"""Longest time for which an acknowledgement may be given."""
MAX_REQUEST_ID = 64
"""Characters of a request id."""
SEARCHED: ColumnElement[str] = alerts.c.title + " " + alerts.c.device_id + " " + alerts.c.text + " " + alerts.c.rule
for _optional in (alerts.c.site, alerts.c.metric):
    SEARCHED += " " + func.coalesce(_optional, "")
"""What a search looks into, as one text: a row is then read and folded once."""
LABEL_STRATEGY = "manual"
"""A verdict is a label that a person gave unasked."""


class UserAction(StrEnum):
    """What a person can do to an alert."""

    ACKNOWLEDGE = "acknowledge"
    UNACKNOWLEDGE = "unacknowledge"
    CLOSE = "close"
    VERDICT = "verdict"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertQuery:
    """Which alerts a caller wants; None leaves an axis open."""

    tenant: str | None = None
    condition: Condition | None = None
    handling: Handling | None = None
    severities: tuple[Severity, ...] = ()
    """Any of them; empty: all."""
    verdict: Verdict | None = None
    is_suppressed: bool | None = None
    source: SourceKind | None = None
    device_id: str | None = None
    site: str | None = None
    rule: str | None = None
    acked_by: str | None = None
    text: str = ""
    """Words that must all stand in title, text, device, site, metric or rule, whatever their case."""
    since: float | None = None
    until: float | None = None
    """Began in [since, until)."""
    order: str = "newest"
    """``newest`` first or ``worst`` (severity, then newest) first."""
    cursor: str | None = None
    """``next_cursor`` of the page before, of the same query."""
    limit: int = 100

    def __post_init__(self) -> None:
        if self.order not in {"newest", "worst"}:
            raise ValueError(f"order must be newest or worst, got {self.order!r}")
        if not 1 <= self.limit <= MAX_PAGE:
            raise ValueError(f"limit must be 1-{MAX_PAGE}, got {self.limit}")
        if len(self.text) > MAX_TEXT or len(self.text.split()) > MAX_WORDS:
            raise ValueError(f"a search has at most {MAX_WORDS} words and {MAX_TEXT} characters")


@dataclass(frozen=True, slots=True)
class AlertPage:
    """Alerts in the order asked for."""

    items: tuple[Alert, ...]
    next_cursor: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True)
class AlertDetail:
    """An alert with its history, oldest event first, and its evidence (JSON object or None)."""

    alert: Alert
    events: tuple[AlertEvent, ...]
    evidence: dict[str, Any] | None


class AlertStore:
    """What the API asks and orders."""

    def __init__(self, engine: Engine, clock: Clock, settings: AlertSettings | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or AlertSettings()

    def list(self, query: AlertQuery) -> AlertPage:
        """Return one page.

        Raises:
            ValueError: the cursor is not one of ours.
        """
        statement = _ordered(select(*ALERT_COLUMNS).where(*_conditions(query)), query).limit(query.limit + 1)
        with read_transaction(self._engine) as connection:
            found = [alert_from_row(row) for row in connection.execute(statement)]
        items = tuple(found[: query.limit])
        return AlertPage(items, _cursor(items[-1], query) if len(found) > query.limit else None)

    def get(self, alert_id: str, tenant: str | None = None) -> AlertDetail:
        """Return one alert with everything kept about it.

        Raises:
            AlertNotFoundError: no such alert, or (with ``tenant``) it is another tenant's.
        """
        history = select(*EVENT_COLUMNS).where(alert_events.c.alert_id == alert_id).order_by(alert_events.c.seq)
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*ALERT_COLUMNS).where(alerts.c.id == alert_id)).one_or_none()
            if row is None or tenant not in {None, row.tenant}:
                raise AlertNotFoundError(alert_id)
            evidence = connection.scalar(select(alerts.c.evidence).where(alerts.c.id == alert_id))
            events = tuple(event_from_row(event) for event in connection.execute(history))
        return AlertDetail(alert_from_row(row), events, evidence)

    def act(
        self,
        ids: Sequence[str] | AlertQuery,
        action: str,
        user_id: str,
        request_id: str,
        *,
        tenant: str | None = None,
        verdict: str | None = None,
        note: str | None = None,
        ack_s: float | None = None,
        if_version: Mapping[str, int] | None = None,
    ) -> Sequence[Alert]:
        """Do one thing to many alerts: all of them or, on an error, none.

        Args:
            ids: alerts, at most ``MAX_BULK``; or a query, whose page and order play no part.
            action: a ``UserAction``; one that changes nothing (acknowledged already) is no error.
            user_id: who acts, by their token.
            request_id: chosen by the caller; a repeated request changes nothing and answers the same.
            tenant: bounds what the caller may touch; None: the whole floor.
            verdict: a ``Verdict``, required by ``verdict``, optional with ``close``.
            note: text, required by ``note``.
            ack_s: how long an acknowledgement lasts; 0: with the occurrence, None: as the settings say.
            if_version: id -> version that the caller has seen; of the ids that it names.

        Returns:
            The alerts as they are now, in the order of ``ids``.

        Raises:
            AlertNotFoundError: one of them does not exist or is another tenant's.
            VersionConflictError: one is at another version than ``if_version`` says.
            ValueError: unknown action or verdict, or an argument is missing or too long, or the query finds too many.
        """
        if not 0 < len(request_id) <= MAX_REQUEST_ID:
            raise ValueError(f"request_id must have 1-{MAX_REQUEST_ID} characters, got {len(request_id)}")
        if not isinstance(ids, AlertQuery) and len(ids) > MAX_BULK:
            raise ValueError(f"one action takes at most {MAX_BULK} alerts, got {len(ids)}")
        step = _step(action, user_id, self._clock.time_s(), verdict, note, self._ack(ack_s))
        result: list[Alert] = []
        labels: set[str] = set()

        def act(ledger: Ledger, _connection: Connection) -> None:
            labels.clear()
            done = ledger.alerts_of_request(request_id)
            wanted, current = _targets(ledger, ids, done)
            for alert_id in wanted:
                if alert_id not in current or tenant not in {None, current[alert_id].tenant}:
                    raise AlertNotFoundError(alert_id)
            _check_versions(current, if_version or {}, done)
            for alert_id in dict.fromkeys(wanted):
                change = None if alert_id in done else step(current[alert_id])
                if change is not None:
                    if change.after.verdict is not current[alert_id].verdict:
                        labels.add(alert_id)
                    current[alert_id] = ledger.add(change, recorded_at=change.at, request_id=request_id)
            result[:] = [current[alert_id] for alert_id in wanted]

        in_ledger(self._engine, None, act)
        # Only now: a transaction that was rolled back labelled nothing.
        metrics.dataset_samples_labeled.labels(LABEL_STRATEGY).inc(len(labels))
        return result

    def of_ids(self, ids: Sequence[str], tenant: str | None = None) -> Sequence[Alert]:
        """Return those of these alerts that exist (and are the tenant's)."""
        with read_transaction(self._engine) as connection:
            found = Ledger(connection).by_ids(ids)
        return [alert for alert in found.values() if tenant in {None, alert.tenant}]

    def _ack(self, ack_s: float | None) -> _Ack:
        if ack_s is not None and not 0 <= ack_s <= MAX_ACK_S:
            raise ValueError(f"an acknowledgement lasts 0-{MAX_ACK_S:.0f} s, got {ack_s}")
        lasts_s = self._settings.ack_s if ack_s is None else ack_s
        return _Ack(self._clock.time_s() + lasts_s if lasts_s else None, renews=ack_s is not None)

    def counts(self, tenant: str | None = None) -> dict[str, Any]:
        """Return ``{"total", "firing", "suppressed", "unacked": {severity: number}}``.

        Closed ones count in ``total`` only, suppressed ones that are not closed in ``total`` and ``suppressed``.
        """
        axes = (alerts.c.handling, alerts.c.condition, alerts.c.severity, alerts.c.is_suppressed)
        query = select(*axes, func.count().label("number")).group_by(*axes)
        if tenant is not None:
            query = query.where(alerts.c.tenant == tenant)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        open_rows = [row for row in rows if row.handling != Handling.CLOSED]
        told = [row for row in open_rows if not row.is_suppressed]
        unacked = dict.fromkeys((severity.value for severity in Severity), 0)
        for row in told:
            if row.handling == Handling.NEW:
                unacked[row.severity] += row.number
        return {
            "total": sum(row.number for row in rows),
            "firing": sum(row.number for row in told if row.condition == Condition.FIRING),
            "suppressed": sum(row.number for row in open_rows if row.is_suppressed),
            "unacked": unacked,
        }


@dataclass(frozen=True, slots=True)
class _Ack:
    expires_at: float | None
    renews: bool
    """The person said how long, so an acknowledged alert gets a new end."""


def _targets(ledger: Ledger, ids: Sequence[str] | AlertQuery, done: set[str]) -> tuple[Sequence[str], dict[str, Alert]]:
    """Return whom an action is for, and their rows."""
    if not isinstance(ids, AlertQuery):
        return ids, ledger.by_ids(ids)
    if done:  # the request comes again: what it changed need not meet the query any more
        found = ledger.by_ids(sorted(done))
        return list(found), found
    matching = ledger.where(*_conditions(replace(ids, cursor=None)), limit=MAX_BULK + 1)
    if len(matching) > MAX_BULK:
        raise ValueError(f"the filter finds more than {MAX_BULK} alerts: narrow it, or act in parts")
    return [alert.id for alert in matching], {alert.id: alert for alert in matching}


def _check_versions(current: Mapping[str, Alert], expected: Mapping[str, int], done: set[str]) -> None:
    differing = {
        alert_id: version
        for alert_id, version in expected.items()
        if alert_id in current and alert_id not in done and current[alert_id].version != version
    }
    if differing:
        raise VersionConflictError("alert", differing, {alert_id: current[alert_id].version for alert_id in differing})


def _step(
    action: str, user_id: str, at: float, verdict: str | None, note: str | None, ack: _Ack
) -> Callable[[Alert], lifecycle.Change | None]:
    """Return the life cycle's step for a person's action, its arguments checked."""
    given = None if verdict is None else Verdict(verdict)
    match UserAction(action):
        case UserAction.ACKNOWLEDGE:
            return lambda alert: lifecycle.acknowledged(alert, at, user_id, ack.expires_at, renews=ack.renews)
        case UserAction.UNACKNOWLEDGE:
            return lambda alert: lifecycle.unacknowledged(alert, at, user_id)
        case UserAction.CLOSE:
            return lambda alert: lifecycle.closed(alert, at, user_id, given)
        case UserAction.VERDICT:
            if given is None:
                raise ValueError("the action verdict needs a verdict")
            return lambda alert: lifecycle.judged(alert, at, user_id, given)
        case UserAction.NOTE:
            if not note:
                raise ValueError("the action note needs a text")
            return lambda alert: lifecycle.noted(alert, at, user_id, note)


def _conditions(query: AlertQuery) -> Sequence[ColumnElement[bool]]:
    wanted = {
        alerts.c.tenant: query.tenant,
        alerts.c.condition: query.condition,
        alerts.c.handling: query.handling,
        alerts.c.verdict: query.verdict,
        alerts.c.source_kind: query.source,
        alerts.c.device_id: query.device_id,
        alerts.c.site: query.site,
        alerts.c.rule: query.rule,
        alerts.c.acked_by: query.acked_by,
    }
    conditions: list[ColumnElement[bool]] = [
        column == str(value) for column, value in wanted.items() if value is not None
    ]
    if query.severities:
        conditions.append(alerts.c.severity.in_([severity.value for severity in query.severities]))
    if query.is_suppressed is not None:
        conditions.append(alerts.c.is_suppressed.is_(query.is_suppressed))
    if query.since is not None:
        conditions.append(alerts.c.starts_at >= query.since)
    if query.until is not None:
        conditions.append(alerts.c.starts_at < query.until)
    conditions += [SEARCHED.icontains(word, autoescape=True) for word in query.text.split()]
    if query.cursor is not None:
        rank, alert_id = _read_cursor(query.cursor)
        if query.order == "worst":
            # One comparison of rows, which both databases answer from the index of the order.
            conditions.append(tuple_(alerts.c.severity_rank, alerts.c.id) < tuple_(rank, alert_id))
        else:
            conditions.append(alerts.c.id < alert_id)
    return conditions


def _ordered(statement: Select[Any], query: AlertQuery) -> Select[Any]:
    if query.order == "worst":
        return statement.order_by(alerts.c.severity_rank.desc(), alerts.c.id.desc())
    return statement.order_by(alerts.c.id.desc())


def _cursor(last: Alert, query: AlertQuery) -> str:
    return f"{last.severity.rank if query.order == 'worst' else 0}-{last.id}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    rank, dash, alert_id = cursor.partition("-")
    if not dash or rank not in {"0", "1", "2", "3", "4", "5"}:
        raise ValueError(f"not a cursor of a list of alerts: {cursor!r}")
    return int(rank), alert_id
