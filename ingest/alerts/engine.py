"""Turns what devices and detectors report into alerts and events, in one transaction.

Decides which occurrence a report belongs to; the steps themselves are ``lifecycle.py``.
Invariants: when a call returns, alerts and events are committed (or wait for the commit of
the connection that was passed in) and every event has ``broadcast_at`` NULL; a reading
that is brought again changes nothing. Synchronous: call it off the event loop.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from cluster.clock import Clock
from cluster.ids import new_id
from cluster.store import in_write, read_transaction
from ingest.alerts import lifecycle
from ingest.alerts.active_silences import ActiveSilences
from ingest.alerts.flapping import flapped, with_change
from ingest.alerts.ledger import Ledger, Told, refs_of
from ingest.alerts.lifecycle import Sighting, cleared, is_by_another_model, is_over, raised, seen_again, went_stale
from ingest.alerts.model import (
    Action,
    Alert,
    Condition,
    EventRef,
    Evidence,
    Handling,
    SourceKind,
    Suppression,
    SuppressionKind,
)
from ingest.alerts.owners import Owners
from ingest.alerts.recent_alerts import RecentAlerts
from ingest.alerts.report import AlertReport
from ingest.alerts.settings import AlertSettings
from ingest.alerts.tables import alerts
from ingest.detector import Decision
from ingest.episode import Change
from ingest.errors import AlertConflictError
from ingest.payload import DeviceAlert
from ingest.windows import SeriesKey

DETECTOR_RULE = "anomaly"
MAX_ATTEMPTS = 4
"""Tries of a transaction whose alerts others change at the same time (PostgreSQL only: SQLite serialises writers)."""
TITLE_CHARS = 256
FINGERPRINTS = 8192
"""Fingerprints remembered: devices say the same again."""
STATE_CHANGES = frozenset({Action.RAISED, Action.REOPENED, Action.CLEARED})
"""What counts as flapping. A device's own alert is a moment and cannot flap; its repeats are counted."""

Step = Callable[[Ledger, Connection], None]


class Outbox(Protocol):
    """Who tells of what an engine commits, in its process; the table holds it for all others."""

    def write_marks(self, connection: Connection) -> None:
        """Mark, in a transaction that is about to be committed, the events that the dashboards have."""
        ...

    def tell(self, events: Sequence[Told]) -> None:
        """Take events that were just committed, without waiting for anybody."""
        ...


class AlertEngine:
    """Writes what sources report."""

    def __init__(
        self, engine: Engine, clock: Clock, settings: AlertSettings | None = None, outbox: Outbox | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or AlertSettings()
        self._outbox = outbox
        self._recent = RecentAlerts()

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

    def report(self, reports: Sequence[AlertReport], connection: Connection | None = None) -> list[EventRef]:
        """Write what any further source says: rules, other systems, the floor itself.

        Args:
            reports: in the order they were made; one whose reading key was written before changes nothing.
            connection: as in ``raise_device_alerts``.
        """
        return self._write(reports, connection)

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
                if change is not None and not _says_silence(alert):
                    ledger.add(change, recorded_at=now)

        return in_ledger(self._engine, connection, step, self._outbox)

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

    def _write(self, reports: Sequence[AlertReport], connection: Connection | None) -> list[EventRef]:
        if not reports:
            return []
        # Nearly always nobody else changed these alerts, and no report came before. What always
        # writes can be written in that hope: version, occurrence and reading key refuse it otherwise.
        if connection is None and all(report.change is Change.RAISE for report in reports):
            try:
                return self._write_hopefully(reports)
            except (AlertConflictError, IntegrityError):
                self._recent.forget(report.fingerprint for report in reports)

        def step(ledger: Ledger, joined: Connection) -> None:
            known = ledger.known_reading_keys(report.reading_key for report in reports if report.reading_key)
            self._apply(ledger, joined, reports, known, ledger.latest(report.fingerprint for report in reports))

        return in_ledger(self._engine, connection, step, self._outbox)

    def _write_hopefully(self, reports: Sequence[AlertReport]) -> list[EventRef]:
        left: dict[str, Alert] = {}

        def step(ledger: Ledger, connection: Connection) -> None:
            left.clear()  # of a transaction that collided with another
            wanted = {report.fingerprint for report in reports}
            left.update(self._recent.of(wanted))
            ledger.adopt(left.values())
            left.update(ledger.latest(wanted - left.keys()))
            self._apply(ledger, connection, reports, set(), left)

        refs = _commit(self._engine, step, self._outbox)
        self._recent.keep(left)
        return refs

    def _apply(
        self,
        ledger: Ledger,
        connection: Connection,
        reports: Sequence[AlertReport],
        known: set[str],
        latest: dict[str, Alert],
    ) -> None:
        owners = Owners(connection, ((report.tenant, report.device_id) for report in reports))
        now = self._clock.time_s()
        silences = ActiveSilences(connection, now)
        for report in reports:
            if report.reading_key in known:
                continue
            if report.reading_key is not None:
                known.add(report.reading_key)
            after = self._apply_one(ledger, report, latest.get(report.fingerprint), owners, silences, now)
            if after is not None:
                latest[report.fingerprint] = after

    def _apply_one(
        self,
        ledger: Ledger,
        report: AlertReport,
        alert: Alert | None,
        owners: Owners,
        silences: ActiveSilences,
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
            return self._add(ledger, report, seen_again(alert, sighting, now), now)
        if alert is not None and alert.condition is not Condition.CLEARED:
            reason = f"not repeated for {self._settings.reopen_window_s:g} s"
            ended = cleared(alert, alert.last_seen_at, "watchfloor", reason)
            if ended is not None and alert.handling is not Handling.CLOSED:
                ledger.add(ended, recorded_at=now)
        begun = silences.applied_to(_begin(report, alert, owners, now))
        return self._add(ledger, report, raised(begun, sighting), now)

    def _continue(self, ledger: Ledger, report: AlertReport, alert: Alert | None, now: float) -> Alert | None:
        """Apply an update or a clear; without its alert, or after people closed it, an update has no effect."""
        if alert is None:
            return None
        if report.change is Change.CLEAR:
            change = cleared(alert, report.sighting.at, report.sighting.actor)
        elif alert.handling is Handling.CLOSED:
            change = None
        else:
            change = seen_again(alert, report.sighting, now)
        return None if change is None else self._add(ledger, report, change, now)

    def _add(self, ledger: Ledger, report: AlertReport, change: lifecycle.Change, now: float) -> Alert:
        """Take a change in, and what it says about flapping."""
        # A recording is replayed faster than life: how often its problems come and go says nothing.
        is_live = report.kind is not SourceKind.DEVICE and report.sighting.recorded_at is None
        changes_state = is_live and change.action in STATE_CHANGES
        if changes_state:
            flaps = with_change(change.after.flaps, now, self._settings)
            change = replace(change, after=change.after.but(flaps=flaps))
        evidence = report.evidence if change.before is None else _evidence_of(report, change.after)
        after = ledger.add(change, recorded_at=now, reading_key=report.reading_key, evidence=evidence)
        flapping = flapped(after, now, self._settings) if changes_state else None
        return after if flapping is None else ledger.add(flapping, recorded_at=now)


def in_ledger(
    engine: Engine, connection: Connection | None, step: Step, outbox: Outbox | None = None
) -> list[EventRef]:
    """Run ``step`` on a ledger and write it, again from the start while others are in the way.

    Args:
        engine: where to begin a transaction.
        connection: a transaction of the caller's to join; its events are left to the table.
        step: what to do.
        outbox: hears of the events once they are committed.

    Raises:
        AlertConflictError: after ``MAX_ATTEMPTS``; with a connection of the caller's: at once.
        sqlalchemy.exc.IntegrityError: the same, from a connection of the caller's.
    """
    if connection is not None:
        return refs_of(_run(connection, step))
    conflict: Exception | None = None
    for _ in range(MAX_ATTEMPTS):
        try:
            return _commit(engine, step, outbox)
        except (AlertConflictError, IntegrityError) as error:
            conflict = error
    raise AlertConflictError(MAX_ATTEMPTS) from conflict


def _commit(engine: Engine, step: Step, outbox: Outbox | None) -> list[EventRef]:
    def write(own: Connection) -> list[Told]:
        events = _run(own, step)
        if outbox is not None:
            outbox.write_marks(own)
        return events

    events = in_write(engine, write)
    if outbox is not None:
        outbox.tell(events)
    return refs_of(events)


def _run(connection: Connection, step: Step) -> list[Told]:
    ledger = Ledger(connection)
    step(ledger, connection)
    return ledger.flush()


def _says_silence(alert: Alert) -> bool:
    """Tell whether the alert is about silence, which silence makes no less certain; absence rules compare no value."""
    return alert.source_kind is SourceKind.HEARTBEAT or (alert.source_kind is SourceKind.RULE and alert.value is None)


@lru_cache(maxsize=FINGERPRINTS)
def fingerprint(tenant: str, kind: SourceKind, rule: str, device_id: str, metric: str | None) -> str:
    """Return the name of a problem: the same in every process and for every model version."""
    text = "|".join((tenant, kind.value, rule, device_id, metric or ""))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _evidence_of(report: AlertReport, alert: Alert) -> Evidence | None:
    """Return the report's evidence if the reading that the alert shows is in it; None keeps what the alert has.

    A later, smaller episode of the same occurrence must not leave figures beside a chart they are not in.
    """
    if report.evidence is None or not any(score == alert.score for _, _, score, _ in report.evidence.points):
        return None
    return report.evidence


def _device_report(alert: DeviceAlert) -> AlertReport:
    sighting = Sighting(
        at=alert.ts,
        actor="device",
        severity=alert.severity,
        text=alert.message,
        value=alert.value,
        threshold=alert.threshold,
        recorded_at=alert.recorded_at,
        details=alert.details,
    )
    return AlertReport(
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


def _detector_report(decision: Decision) -> AlertReport:
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
    return AlertReport(
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


def _begin(report: AlertReport, last: Alert | None, owners: Owners, now: float) -> Alert:
    sighting = report.sighting
    owner = owners.of(report.tenant, report.device_id)
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
        labels=dict(report.labels),
        starts_at=sighting.at,
        last_seen_at=sighting.at,
        recorded_at=sighting.recorded_at,
        waiting_since=now,
        # That a problem flaps outlives its occurrences.
        flaps=() if last is None else last.flaps,
        suppressed_by=() if last is None else _flapping(last),
        version=1,
    )


def _flapping(last: Alert) -> tuple[Suppression, ...]:
    return tuple(one for one in last.suppressed_by if one.kind is SuppressionKind.FLAPPING)
