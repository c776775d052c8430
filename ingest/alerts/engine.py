"""Turns what devices and detectors report into alerts and events, in one transaction.

Decides which occurrence a report belongs to; the steps themselves are ``lifecycle.py``.
Invariants: when a call returns, alerts and events are committed (or wait for the commit of
the connection that was passed in) and every event has ``broadcast_at`` NULL; a reading
that is brought again changes nothing. Synchronous: call it off the event loop.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.exc import IntegrityError

from cluster.clock import Clock
from cluster.ids import new_id
from cluster.store import read_transaction, write_transaction
from ingest.alerts.ledger import CHUNK, Ledger
from ingest.alerts.lifecycle import Sighting, cleared, is_by_another_model, is_over, raised, seen_again, went_stale
from ingest.alerts.model import Alert, Condition, EventRef, Evidence, Handling, SourceKind
from ingest.alerts.tables import alerts
from ingest.detector import Decision
from ingest.directory import DeviceEntry, devices
from ingest.episode import Change
from ingest.errors import AlertConflictError
from ingest.payload import DeviceAlert
from ingest.windows import SeriesKey

DETECTOR_RULE = "anomaly"
MAX_ATTEMPTS = 4
"""Tries of a transaction whose alerts others change at the same time (PostgreSQL only: SQLite serialises writers)."""
TITLE_CHARS = 256

Step = Callable[[Ledger, Connection], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """When two reports are one problem."""

    reopen_window_s: float = 600.0
    """Seconds after its end (or a device's last report) in which a problem that comes back is the same occurrence."""

    def __post_init__(self) -> None:
        if self.reopen_window_s < 0:
            raise ValueError(f"reopen_window_s must not be negative, got {self.reopen_window_s}")


@dataclass(frozen=True, slots=True)
class _Report:
    """One report of a source in the engine's own words."""

    tenant: str
    device_id: str
    fingerprint: str
    reading_key: str | None
    sighting: Sighting
    kind: SourceKind
    rule: str
    title: str
    metric: str | None
    labels: dict[str, str]
    evidence: Evidence | None
    change: Change
    """A device's own alert always raises."""


class AlertEngine:
    """Writes what sources report."""

    def __init__(self, engine: Engine, clock: Clock, settings: AlertSettings | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or AlertSettings()

    def raise_device_alerts(
        self, alerts: Sequence[DeviceAlert], connection: Connection | None = None
    ) -> list[EventRef]:
        """Write alerts that devices sent.

        Args:
            alerts: in the order they came; one without a key (``DeviceAlert.key``) counts every time.
            connection: an open ``write_transaction`` to join; None: one of its own. A caller
                with its own connection repeats the whole transaction on a conflict.

        Returns:
            The events written; none for a redelivered alert.

        Raises:
            AlertConflictError: others kept changing the same alerts.
        """
        return self._write([_device_report(alert) for alert in alerts], connection)

    def raise_detector_alerts(
        self, decisions: Sequence[Decision], connection: Connection | None = None
    ) -> list[EventRef]:
        """Write what the detector decided: alerts that begin, grow or clear.

        Args:
            decisions: in the order they were made; one that was written before changes nothing.
            connection: as in ``raise_device_alerts``.
        """
        return self._write([_detector_report(decision) for decision in decisions], connection)

    def mark_stale(
        self,
        tenant: str,
        device_id: str,
        reason: str,
        metric: str | None = None,
        connection: Connection | None = None,
    ) -> list[EventRef]:
        """Note that a device (or one metric of it) fell silent: its firing alerts become stale, never resolved."""

        def step(ledger: Ledger, _joined: Connection) -> None:
            now = self._clock.time_s()
            for alert in ledger.firing_of(tenant, device_id, metric):
                change = went_stale(alert, now, "watchfloor", reason)
                if change is not None:
                    ledger.add(change, recorded_at=now)

        return in_ledger(self._engine, connection, step)

    def firing_series(self) -> dict[SeriesKey, tuple[float, float]]:
        """Return which series a detector has firing alerts for, with start and score, for its restart."""
        query = select(alerts).where(
            alerts.c.source_kind == SourceKind.MODEL.value, alerts.c.condition != Condition.CLEARED.value
        )
        with read_transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(alerts.c.id)).all()
        return {
            SeriesKey(row.tenant, row.device_id, row.metric): (row.starts_at, row.score or 0.0)
            for row in rows
            if row.metric is not None
        }

    def _write(self, reports: Sequence[_Report], connection: Connection | None) -> list[EventRef]:
        if not reports:
            return []

        return in_ledger(self._engine, connection, lambda ledger, joined: self._apply(ledger, joined, reports))

    def _apply(self, ledger: Ledger, connection: Connection, reports: Sequence[_Report]) -> None:
        known = ledger.known_reading_keys(report.reading_key for report in reports if report.reading_key)
        latest = ledger.latest(report.fingerprint for report in reports)
        owners = _owners(connection, {(report.tenant, report.device_id) for report in reports})
        now = self._clock.time_s()
        for report in reports:
            if report.reading_key in known:
                continue
            if report.reading_key is not None:
                known.add(report.reading_key)
            after = self._apply_one(ledger, report, latest.get(report.fingerprint), owners, now)
            if after is not None:
                latest[report.fingerprint] = after

    def _apply_one(
        self,
        ledger: Ledger,
        report: _Report,
        alert: Alert | None,
        owners: dict[tuple[str, str], DeviceEntry],
        now: float,
    ) -> Alert | None:
        sighting = report.sighting
        if report.change is not Change.RAISE:
            return self._continue(ledger, report, alert, now)
        if (
            alert is not None
            and not is_over(alert, sighting.at, self._settings.reopen_window_s)
            and not is_by_another_model(alert, sighting)
        ):
            change = seen_again(alert, sighting)
            evidence = _evidence_of(report, change.after)
            return ledger.add(change, recorded_at=now, reading_key=report.reading_key, evidence=evidence)
        if alert is not None and alert.condition is not Condition.CLEARED:
            reason = f"not repeated for {self._settings.reopen_window_s:g} s"
            ended = cleared(alert, alert.last_seen_at, "watchfloor", reason)
            if ended is not None and alert.handling is not Handling.CLOSED:
                ledger.add(ended, recorded_at=now)
        begun = _begin(report, alert, owners)
        return ledger.add(
            raised(begun, sighting), recorded_at=now, reading_key=report.reading_key, evidence=report.evidence
        )

    def _continue(self, ledger: Ledger, report: _Report, alert: Alert | None, now: float) -> Alert | None:
        """Apply an update or a clear; without its alert, or after people closed it, an update has no effect."""
        if alert is None:
            return None
        if report.change is Change.CLEAR:
            change = cleared(alert, report.sighting.at, report.sighting.actor)
        elif alert.handling is Handling.CLOSED:
            change = None
        else:
            change = seen_again(alert, report.sighting)
        if change is None:
            return None
        evidence = _evidence_of(report, change.after)
        return ledger.add(change, recorded_at=now, reading_key=report.reading_key, evidence=evidence)


def in_ledger(engine: Engine, connection: Connection | None, step: Step) -> list[EventRef]:
    """Run ``step`` on a ledger and write it, again from the start while others are in the way.

    Raises:
        AlertConflictError: after ``MAX_ATTEMPTS``; with a connection of the caller's: at once.
        sqlalchemy.exc.IntegrityError: the same, from a connection of the caller's.
    """
    if connection is not None:
        return _run(connection, step)
    conflict: Exception | None = None
    for _ in range(MAX_ATTEMPTS):
        try:
            with write_transaction(engine) as own:
                return _run(own, step)
        except (AlertConflictError, IntegrityError) as error:
            conflict = error
    raise AlertConflictError(MAX_ATTEMPTS) from conflict


def _run(connection: Connection, step: Step) -> list[EventRef]:
    ledger = Ledger(connection)
    step(ledger, connection)
    return ledger.flush()


def fingerprint(tenant: str, kind: SourceKind, rule: str, device_id: str, metric: str | None) -> str:
    """Return the name of a problem: the same in every process and for every model version."""
    text = "|".join((tenant, kind.value, rule, device_id, metric or ""))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _evidence_of(report: _Report, alert: Alert) -> Evidence | None:
    """Return the report's evidence if the reading that the alert shows is in it; None keeps what the alert has.

    A later, smaller episode of the same occurrence must not leave figures beside a chart they are not in.
    """
    if report.evidence is None or not any(score == alert.score for _, _, score, _ in report.evidence.points):
        return None
    return report.evidence


def _device_report(alert: DeviceAlert) -> _Report:
    sighting = Sighting(
        at=alert.ts,
        actor="device",
        severity=alert.severity,
        text=alert.message,
        value=alert.value,
        threshold=alert.threshold,
        recorded_at=alert.recorded_at,
    )
    return _Report(
        tenant=alert.tenant,
        device_id=alert.device,
        fingerprint=fingerprint(alert.tenant, SourceKind.DEVICE, alert.alert_type, alert.device, alert.metric),
        reading_key=alert.key,
        sighting=sighting,
        kind=SourceKind.DEVICE,
        rule=alert.alert_type,
        title=alert.alert_type.replace("_", " ").capitalize()[:TITLE_CHARS],
        metric=alert.metric,
        labels=dict(alert.labels),
        evidence=None,
        change=Change.RAISE,
    )


def _detector_report(decision: Decision) -> _Report:
    key = decision.key
    sighting = Sighting(
        at=decision.ts,
        actor="detector",
        severity=decision.severity,
        text=decision.text,
        value=decision.value,
        score=decision.score,
        threshold=decision.threshold,
        model=decision.model,
        model_version=decision.model_version,
        recorded_at=decision.recorded_at,
    )
    return _Report(
        tenant=key.tenant,
        device_id=key.device,
        fingerprint=fingerprint(key.tenant, SourceKind.MODEL, DETECTOR_RULE, key.device, key.metric),
        reading_key=decision.reading_key,
        sighting=sighting,
        kind=SourceKind.MODEL,
        rule=DETECTOR_RULE,
        title=f"Unusual {key.metric}"[:TITLE_CHARS],
        metric=key.metric,
        labels={},
        evidence=decision.evidence,
        change=decision.change,
    )


def _begin(report: _Report, last: Alert | None, owners: dict[tuple[str, str], DeviceEntry]) -> Alert:
    sighting = report.sighting
    owner = owners.get((report.tenant, report.device_id))
    return Alert(
        id=new_id(),
        tenant=report.tenant,
        device_id=report.device_id,
        client_id=owner.client_id if owner else None,
        site=owner.site if owner else None,
        supervisor_id=owner.supervisor_id if owner else None,
        fingerprint=report.fingerprint,
        occurrence=1 if last is None else last.occurrence + 1,
        source_kind=report.kind,
        rule=report.rule,
        model=sighting.model,
        model_version=sighting.model_version,
        score=sighting.score,
        threshold=sighting.threshold,
        metric=report.metric,
        severity=sighting.severity,
        condition=Condition.FIRING,
        handling=Handling.NEW,
        title=report.title,
        text=sighting.text,
        value=sighting.value,
        labels=report.labels,
        starts_at=sighting.at,
        last_seen_at=sighting.at,
        recorded_at=sighting.recorded_at,
        version=1,
    )


def _owners(connection: Connection, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], DeviceEntry]:
    """Return the directory's entries: who must hear of a device's alerts."""
    found: dict[tuple[str, str], DeviceEntry] = {}
    for part in _parts(sorted(wanted)):
        query = select(devices.c.tenant, devices.c.device, devices.c.client_id, devices.c.site, devices.c.supervisor_id)
        for row in connection.execute(query.where(tuple_(devices.c.tenant, devices.c.device).in_(part))):
            found[row.tenant, row.device] = DeviceEntry(**row._mapping)
    return found


def _parts(pairs: list[tuple[str, str]]) -> Iterable[list[tuple[str, str]]]:
    return (pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK))
