"""Heartbeats: who has to report within which time, and who did not.

A device beats by any message of its own, which the directory notes; another system beats
by a call of the API. A beat that is missing is an alert like any other, which clears with
the next one. Invariant: whether an alert was raised is a column that is compared and set
in the alert's own transaction, so two watchers raise it once. Synchronous.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.clock import Clock
from cluster.store import read_transaction, write_transaction
from ingest.alerts.engine import AlertEngine, fingerprint
from ingest.alerts.lifecycle import SYSTEM, Sighting
from ingest.alerts.model import EventRef, JsonObject, Severity, SourceKind, iso
from ingest.alerts.report import AlertReport
from ingest.alerts.tables import heartbeats
from ingest.directory import devices
from ingest.episode import Change
from ingest.errors import HeartbeatNotFoundError, VersionConflictError

RULE = "heartbeat"
MIN_TIMEOUT_S = 1.0
MAX_TIMEOUT_S = 31 * 86_400.0
MAX_TEXT_CHARS = 500
MAX_HEARTBEATS = 10_000
"""Of one tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One promise to report."""

    tenant: str
    name: str
    timeout_s: float
    """Longest time between two beats, in seconds."""
    severity: Severity
    """Of the alert when a beat is missing."""
    text: str
    """What a missing beat means, for who reads the alert."""
    created_by: str
    created_at: float
    device_id: str | None = None
    """The device whose messages are the beats; None: calls of the API are."""
    last_beat_at: float | None = None
    """None: none yet."""
    is_missing: bool = False
    """An alert says so."""
    version: int = 1

    def __post_init__(self) -> None:
        if not MIN_TIMEOUT_S <= self.timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s must be {MIN_TIMEOUT_S:g}-{MAX_TIMEOUT_S:g}, got {self.timeout_s:g}")
        if len(self.text) > MAX_TEXT_CHARS:
            raise ValueError(f"a heartbeat's text has at most {MAX_TEXT_CHARS} characters")

    def late_s(self, now: float, watched_since: float) -> float:
        """Return by how much a beat is late; negative while it is not.

        Args:
            watched_since: nobody could beat before somebody listened.
        """
        return now - max(self.last_beat_at or self.created_at, watched_since) - self.timeout_s


# Of a device the directory knows the last beat; a row of another one has it itself.
_last_beat = case((heartbeats.c.device_id.is_(None), heartbeats.c.last_beat_at), else_=devices.c.last_seen_at)
_OF_DEVICE = and_(devices.c.tenant == heartbeats.c.tenant, devices.c.device == heartbeats.c.device_id)


class HeartbeatStore:
    """Promises in SQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def put(self, heartbeat: Heartbeat, if_version: int | None = None) -> Heartbeat:
        """Make a heartbeat, or change the one of this name; its beats stay.

        Raises:
            VersionConflictError: it is not at ``if_version``.
            ValueError: the tenant has ``MAX_HEARTBEATS`` already.
        """
        now = self._clock.time_s()
        terms: dict[str, Any] = {
            "device_id": heartbeat.device_id,
            "timeout_s": heartbeat.timeout_s,
            "severity": heartbeat.severity.value,
            "text": heartbeat.text,
        }
        with write_transaction(self._engine) as connection:
            before = _find(connection, heartbeat.tenant, heartbeat.name)
            if before is None:
                owned = select(func.count()).where(heartbeats.c.tenant == heartbeat.tenant)
                if connection.execute(owned).scalar_one() >= MAX_HEARTBEATS:
                    raise ValueError(f"a tenant has at most {MAX_HEARTBEATS} heartbeats")
                fresh = dataclasses.replace(heartbeat, created_at=now, last_beat_at=None, is_missing=False, version=1)
                row = dataclasses.asdict(fresh) | {"severity": fresh.severity.value}
                try:
                    connection.execute(insert(heartbeats).values(row))
                except IntegrityError as error:  # PostgreSQL: somebody made it in between
                    raise VersionConflictError("heartbeat", {fresh.name: 0}, {fresh.name: 1}) from error
                return fresh
            if if_version is not None and if_version != before.version:
                raise VersionConflictError("heartbeat", {before.name: if_version}, {before.name: before.version})
            connection.execute(
                update(heartbeats)
                .where(*_is(heartbeat.tenant, heartbeat.name))
                .values(version=heartbeats.c.version + 1, **terms)
            )
            changed = _find(connection, heartbeat.tenant, heartbeat.name)
            assert changed is not None
            return changed

    def beat(self, tenant: str, name: str) -> Heartbeat:
        """Note that somebody reported.

        Raises:
            HeartbeatNotFoundError: nobody promised this.
            ValueError: a device beats by its messages.
        """
        now = self._clock.time_s()
        with write_transaction(self._engine) as connection:
            found = _find(connection, tenant, name)
            if found is None:
                raise HeartbeatNotFoundError(name)
            if found.device_id is not None:
                raise ValueError(f"the beats of {name!r} are the messages of device {found.device_id!r}")
            connection.execute(update(heartbeats).where(*_is(tenant, name)).values(last_beat_at=now))
            return dataclasses.replace(found, last_beat_at=now)

    def remove(self, alerts: AlertEngine, tenant: str, name: str) -> Heartbeat:
        """Take a promise back; an alert that it is broken clears.

        Raises:
            HeartbeatNotFoundError: there is none of this name.
        """
        with write_transaction(self._engine) as connection:
            found = _find(connection, tenant, name)
            if found is None:
                raise HeartbeatNotFoundError(name)
            connection.execute(delete(heartbeats).where(*_is(tenant, name)))
            if found.is_missing:
                alerts.report([report_of(found, self._clock.time_s())], connection)
        return found

    def get(self, tenant: str, name: str) -> Heartbeat:
        """Return one heartbeat.

        Raises:
            HeartbeatNotFoundError: there is none of this name.
        """
        with read_transaction(self._engine) as connection:
            found = _find(connection, tenant, name)
        if found is None:
            raise HeartbeatNotFoundError(name)
        return found

    def list(
        self, tenant: str | None = None, after: tuple[str, str] | None = None, limit: int = 100
    ) -> Sequence[Heartbeat]:
        """Return heartbeats by tenant and name; of all tenants when ``tenant`` is None."""
        query = _query().order_by(heartbeats.c.tenant, heartbeats.c.name).limit(limit)
        if tenant is not None:
            query = query.where(heartbeats.c.tenant == tenant)
        if after is not None:
            tenant_after, name_after = after
            is_same = and_(heartbeats.c.tenant == tenant_after, heartbeats.c.name > name_after)
            query = query.where((heartbeats.c.tenant > tenant_after) | is_same)
        with read_transaction(self._engine) as connection:
            return [_from_row(row) for row in connection.execute(query)]

    def changed(self, now: float, watched_since: float, limit: int = 500) -> Sequence[Heartbeat]:
        """Return those whose alert has to be raised or cleared; for the timer."""
        last = func.coalesce(_last_beat, heartbeats.c.created_at)
        since = case((last < watched_since, watched_since), else_=last)
        is_late = since + heartbeats.c.timeout_s < now
        query = _query().where(is_late != heartbeats.c.is_missing).limit(limit)
        with read_transaction(self._engine) as connection:
            return [_from_row(row) for row in connection.execute(query)]

    def tell(self, alerts: AlertEngine, heartbeat: Heartbeat, now: float) -> Sequence[EventRef]:
        """Raise the alert of a heartbeat that is missing, or clear that of one that is back; once."""
        with write_transaction(self._engine) as connection:
            won = connection.execute(
                update(heartbeats)
                .where(*_is(heartbeat.tenant, heartbeat.name), heartbeats.c.is_missing.is_(heartbeat.is_missing))
                .values(is_missing=not heartbeat.is_missing, version=heartbeats.c.version + 1)
            )
            if won.rowcount != 1:
                return []
            return alerts.report([report_of(heartbeat, now)], connection)


def report_of(heartbeat: Heartbeat, now: float) -> AlertReport:
    """Return what the change of a heartbeat is as a report: raised if it was there so far, else cleared."""
    who = heartbeat.device_id or heartbeat.name
    last = iso(heartbeat.last_beat_at) or "never"
    text = f"no sign of life for more than {heartbeat.timeout_s:g} s, the last one: {last}"
    return AlertReport(
        tenant=heartbeat.tenant,
        device_id=who,
        fingerprint=fingerprint(heartbeat.tenant, SourceKind.HEARTBEAT, RULE, heartbeat.name, None),
        sighting=Sighting(
            at=now,
            actor=SYSTEM,
            severity=heartbeat.severity,
            text=f"{heartbeat.text}: {text}" if heartbeat.text else text,
            threshold=heartbeat.timeout_s,
        ),
        kind=SourceKind.HEARTBEAT,
        rule=RULE,
        title=f"{heartbeat.name} does not report",
        change=Change.CLEAR if heartbeat.is_missing else Change.RAISE,
    )


def heartbeat_to_json(heartbeat: Heartbeat) -> JsonObject:
    """Return a heartbeat as the API shows it."""
    is_waiting = heartbeat.last_beat_at is None and not heartbeat.is_missing
    return {
        "tenant": heartbeat.tenant,
        "name": heartbeat.name,
        "device_id": heartbeat.device_id,
        "timeout_s": heartbeat.timeout_s,
        "severity": heartbeat.severity.value,
        "text": heartbeat.text,
        "state": "missing" if heartbeat.is_missing else "waiting" if is_waiting else "ok",
        "last_beat_at": iso(heartbeat.last_beat_at),
        "created_by": heartbeat.created_by,
        "created_at": iso(heartbeat.created_at),
        "version": heartbeat.version,
    }


def _query() -> Any:
    columns = [column for column in heartbeats.columns if column.name != "last_beat_at"]
    return select(*columns, _last_beat.label("last_beat_at")).outerjoin(devices, _OF_DEVICE)


def _is(tenant: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return heartbeats.c.tenant == tenant, heartbeats.c.name == name


def _find(connection: Connection, tenant: str, name: str) -> Heartbeat | None:
    row = connection.execute(_query().where(*_is(tenant, name))).one_or_none()
    return None if row is None else _from_row(row)


def _from_row(row: Row[Any]) -> Heartbeat:
    return Heartbeat(**(dict(row._mapping) | {"severity": Severity(row.severity)}))
