"""The working copy of one write transaction: alerts in, changes on top, rows out at the end.

Everything that changes alerts goes through here, so an alert and the event that changed it
are always written together. Invariants: within one ledger every change builds on the one
before it; an alert that another writer changed in between fails the whole transaction
with ``AlertConflictError`` or an integrity error, and the caller starts over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, bindparam, func, select, update

from cluster.bulk_insert import BulkInsert
from cluster.ids import new_id
from ingest.alerts.lifecycle import Change, status
from ingest.alerts.model import (
    Action,
    Alert,
    AlertEvent,
    Condition,
    EventRef,
    Evidence,
    Handling,
    Severity,
    SourceKind,
    Suppression,
    SuppressionKind,
    Verdict,
)
from ingest.alerts.tables import alert_events, alerts
from ingest.errors import AlertConflictError

CHUNK = 500
"""Values of one IN list: far below SQLite's limit of bound parameters."""

ALERT_FIELDS = tuple(field.name for field in fields(Alert))
ENUM_FIELDS = ("source_kind", "severity", "condition", "handling", "verdict")
TUPLE_FIELDS = ("suppressed_by", "flaps")
EVENT_FIELDS = tuple(field.name for field in fields(AlertEvent))
DERIVED_COLUMNS = {"severity_rank": "severity", "is_suppressed": "suppressed_by"}
"""Columns that follow from a field, for indexes."""
SHARED = 10
"""So many alerts that became the same are written by one statement."""
ALERT_COLUMNS = tuple(alerts.c[name] for name in ALERT_FIELDS)
EVENT_COLUMNS = tuple(alert_events.c[name] for name in EVENT_FIELDS)

# Statements are made once: building one costs several times what carrying it out does.
_newest = (
    select(alerts.c.fingerprint, func.max(alerts.c.occurrence).label("occurrence"))
    .where(alerts.c.fingerprint.in_(bindparam("fingerprints", expanding=True)))
    .group_by(alerts.c.fingerprint)
    .subquery()
)
_LATEST = select(*ALERT_COLUMNS).join(
    _newest, (alerts.c.fingerprint == _newest.c.fingerprint) & (alerts.c.occurrence == _newest.c.occurrence)
)
_KNOWN_KEYS = select(alert_events.c.reading_key).where(
    alert_events.c.reading_key.in_(bindparam("keys", expanding=True))
)
_INSERT_ALERTS = BulkInsert(alerts)
_INSERT_EVENTS = BulkInsert(alert_events)

_values = attrgetter(*ALERT_FIELDS)

Told = tuple[AlertEvent, Alert]
"""An event, and its alert as the event left it."""


class Ledger:
    """Alerts as one transaction sees and changes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._current: dict[str, Alert] = {}
        self._stored: dict[str, Alert] = {}
        self._created: set[str] = set()
        self._evidence: dict[str, Evidence] = {}
        self._events: list[Told] = []

    def by_ids(self, ids: Sequence[str]) -> dict[str, Alert]:
        """Load alerts; ids that do not exist are missing in the answer."""
        return {alert.id: alert for alert in self._load(alerts.c.id, ids)}

    def latest(self, fingerprints: Iterable[str]) -> dict[str, Alert]:
        """Load the latest occurrence of each problem that ever occurred."""
        found: dict[str, Alert] = {}
        for part in _chunks(sorted(set(fingerprints))):
            for alert in self._remember(self._connection.execute(_LATEST, {"fingerprints": part})):
                found[alert.fingerprint] = alert
        return found

    def where(self, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Alert]:
        """Load the alerts that meet all conditions, oldest first."""
        query = select(*ALERT_COLUMNS).where(*conditions).order_by(alerts.c.id).limit(limit)
        return self._remember(self._connection.execute(query))

    def adopt(self, recent: Iterable[Alert]) -> None:
        """Take alerts for loaded that were current a moment ago; if one is not any more, ``flush`` fails."""
        for alert in recent:
            self._current.setdefault(alert.id, alert)
            self._stored.setdefault(alert.id, alert)

    def firing_of(self, tenant: str, device_id: str, metric: str | None = None) -> list[Alert]:
        """Load the firing alerts of a device, or of one of its metrics."""
        query = select(*ALERT_COLUMNS).where(
            alerts.c.tenant == tenant, alerts.c.device_id == device_id, alerts.c.condition == Condition.FIRING.value
        )
        if metric is not None:
            query = query.where(alerts.c.metric == metric)
        return self._remember(self._connection.execute(query))

    def known_reading_keys(self, keys: Iterable[str]) -> set[str]:
        """Return which of these readings have already had their effect."""
        found: set[str] = set()
        for part in _chunks(sorted(set(keys))):
            found.update(self._connection.scalars(_KNOWN_KEYS, {"keys": part}).all())
        return found

    def alerts_of_request(self, request_id: str) -> set[str]:
        """Return the alerts that this request has already changed."""
        query = select(alert_events.c.alert_id).where(alert_events.c.request_id == request_id)
        return set(self._connection.scalars(query).all())

    def add(
        self,
        change: Change,
        *,
        recorded_at: float,
        reading_key: str | None = None,
        request_id: str | None = None,
        evidence: Evidence | None = None,
    ) -> Alert:
        """Take a change in; written by ``flush``.

        Args:
            change: built on what this ledger returned last for the alert.
            recorded_at: the writer's time, which orders the history; ``change.at`` may be a device's.
            reading_key: of the reading that caused it.
            request_id: of the user's request that caused it.
            evidence: replaces what the alert has; None keeps it.
        """
        after = change.after
        if change.before is None:
            self._created.add(after.id)
        self._current[after.id] = after
        if evidence is not None:
            self._evidence[after.id] = evidence
        event = AlertEvent(
            id=new_id(),
            alert_id=after.id,
            seq=after.version,
            at=recorded_at,
            actor=change.actor,
            action=change.action,
            from_=None if change.before is None else status(change.before),
            to=status(after),
            reason=change.reason,
            request_id=request_id,
            reading_key=reading_key,
            data=change.data,
        )
        self._events.append((event, after))
        return after

    def flush(self) -> list[Told]:
        """Write all changes and return their events, in order.

        Raises:
            AlertConflictError: another transaction changed one of the alerts since it was loaded.
            sqlalchemy.exc.IntegrityError: another transaction created the same occurrence, or
                brought the same reading or request.
        """
        changed = {event.alert_id for event, _ in self._events}
        created = [
            _alert_row(self._current[alert_id], self._evidence.get(alert_id))
            for alert_id in sorted(changed & self._created)
        ]
        if created:
            _INSERT_ALERTS.run(self._connection, created)
        self._update(sorted(changed - self._created))
        if self._events:
            _INSERT_EVENTS.run(self._connection, [_event_row(event) for event, _ in self._events])
        events, self._events = self._events, []
        return events

    def _update(self, alert_ids: list[str]) -> None:
        """Write what differs; alerts that became the same share a statement, else those that changed alike."""
        same: dict[tuple[Any, ...], list[str]] = {}
        for alert_id in alert_ids:
            before, after = self._stored[alert_id], self._current[alert_id]
            pairs = zip(ALERT_FIELDS, _values(before), _values(after), strict=True)
            changed = [(name, new) for name, old, new in pairs if old is not new and old != new]
            columns = tuple(name for name, _ in changed)
            own = alert_id if alert_id in self._evidence else None
            same.setdefault((columns, before.version, own, *(new for _, new in changed)), []).append(alert_id)
        alike: dict[tuple[str, ...], list[str]] = {}
        for (columns, version, *_), ids in same.items():
            written = columns + self._derived(columns, ids[0])
            if len(ids) < SHARED:
                alike.setdefault(written, []).extend(ids)
            else:
                self._write_same(written, version, ids)
        for columns, ids in alike.items():
            self._write_alike(columns, ids)

    def _derived(self, columns: tuple[str, ...], alert_id: str) -> tuple[str, ...]:
        derived = tuple(one for one, source in DERIVED_COLUMNS.items() if source in columns)
        return (*derived, "evidence") if alert_id in self._evidence else derived

    def _write_same(self, columns: tuple[str, ...], version: int, ids: list[str]) -> None:
        values = {name: self._value(ids[0], name) for name in columns}
        for part in _chunks(ids):
            statement = update(alerts).where(alerts.c.id.in_(part), alerts.c.version == version).values(values)
            if self._connection.execute(statement).rowcount != len(part):
                raise AlertConflictError(1)

    def _write_alike(self, columns: tuple[str, ...], ids: list[str]) -> None:
        parameters = [
            {"of_id": alert_id, "of_version": self._stored[alert_id].version}
            | {f"new_{name}": self._value(alert_id, name) for name in columns}
            for alert_id in ids
        ]
        if self._connection.execute(_update_of(columns), parameters).rowcount != len(ids):
            raise AlertConflictError(1)

    def _value(self, alert_id: str, column: str) -> Any:
        if column == "evidence":
            evidence = self._evidence.get(alert_id)
            return None if evidence is None else evidence.to_json()
        return _stored_value(self._current[alert_id], column)

    def _load(self, column: Any, values: Sequence[str]) -> list[Alert]:
        loaded: list[Alert] = []
        for part in _chunks(list(dict.fromkeys(values))):
            loaded += self._remember(self._connection.execute(select(*ALERT_COLUMNS).where(column.in_(part))))
        return loaded

    def _remember(self, rows: Iterable[Row[Any]]) -> list[Alert]:
        loaded = []
        for row in rows:
            alert = alert_from_row(row)
            # What this transaction has already changed wins over what is stored.
            loaded.append(self._current.setdefault(alert.id, alert))
            self._stored.setdefault(alert.id, alert)
        return loaded


@lru_cache(maxsize=64)
def _update_of(columns: tuple[str, ...]) -> Update:
    return (
        update(alerts)
        .where(alerts.c.id == bindparam("of_id"), alerts.c.version == bindparam("of_version"))
        .values({name: bindparam(f"new_{name}") for name in columns})
    )


def _alert_row(alert: Alert, evidence: Evidence | None) -> dict[str, Any]:
    row = dict(zip(ALERT_FIELDS, _values(alert), strict=True))
    for name in (*ENUM_FIELDS, *TUPLE_FIELDS, *DERIVED_COLUMNS):
        row[name] = _stored_value(alert, name)
    row["evidence"] = None if evidence is None else evidence.to_json()
    return row


def _stored_value(alert: Alert, column: str) -> Any:
    if column == "severity_rank":
        return alert.severity.rank
    value = getattr(alert, column)
    if isinstance(value, tuple):
        return [_stored(one) if isinstance(one, Suppression) else one for one in value] or None
    # Enums as their text: drivers other than sqlite3 refuse str subclasses.
    return value.value if isinstance(value, StrEnum) else value


def _event_row(event: AlertEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "alert_id": event.alert_id,
        "seq": event.seq,
        "at": event.at,
        "actor": event.actor,
        "action": str(event.action),
        "from_": event.from_,
        "to": event.to,
        "reason": event.reason,
        "request_id": event.request_id,
        "reading_key": event.reading_key,
        "data": event.data,
        "broadcast_at": None,
    }


def refs_of(events: Iterable[Told]) -> list[EventRef]:
    """Return the names of events."""
    return [EventRef(event.id, event.alert_id, event.action) for event, _ in events]


def alert_from_row(row: Row[Any]) -> Alert:
    """Return the alert of a row of ``ALERT_COLUMNS``."""
    values = dict(zip(ALERT_FIELDS, row, strict=True))
    values["source_kind"] = SourceKind(values["source_kind"])
    values["severity"] = Severity(values["severity"])
    values["condition"] = Condition(values["condition"])
    values["handling"] = Handling(values["handling"])
    values["verdict"] = None if values["verdict"] is None else Verdict(values["verdict"])
    values["suppressed_by"] = tuple(_suppression(one) for one in values["suppressed_by"] or ())
    values["flaps"] = tuple(values["flaps"] or ())
    return Alert(**values)


def event_from_row(row: Row[Any]) -> AlertEvent:
    """Return the event of a row of ``EVENT_COLUMNS``."""
    values = dict(zip(EVENT_FIELDS, row, strict=True))
    values["action"] = Action(values["action"])
    return AlertEvent(**values)


def _stored(one: Suppression) -> dict[str, Any]:
    return {"kind": one.kind.value, "ref": one.ref, "reason": one.reason, "by": one.by, "until": one.until}


def _suppression(stored: dict[str, Any]) -> Suppression:
    return Suppression(**(stored | {"kind": SuppressionKind(stored["kind"])}))


def _chunks(values: list[str]) -> Iterable[list[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
