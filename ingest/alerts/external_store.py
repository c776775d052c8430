"""Takes in what other systems report, again and again, and writes what is new of it.

A Prometheus repeats a firing alert every minute. A repetition moves the time until which the
alert holds and is no event. Invariants: the same report twice changes nothing; an alert that
is not repeated in time goes stale, never "resolved": only its source can say that it is over.
Synchronous: call it off the event loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Counter
from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from cluster.clock import Clock
from cluster.metrics import REGISTRY
from cluster.store import read_transaction
from ingest.alerts.engine import AlertEngine, in_ledger
from ingest.alerts.external import ExternalAlert
from ingest.alerts.ledger import CHUNK, Ledger
from ingest.alerts.lifecycle import Sighting, went_stale
from ingest.alerts.model import Alert, Condition, EventRef, Handling, SourceKind
from ingest.alerts.report import AlertReport
from ingest.alerts.tables import external_alerts
from ingest.episode import Change

STALE_REASON = "its source did not repeat it in time"
EXPIRE_BATCH = 1000

external_received = Counter(
    "watchfloor_external_alerts",
    "Alerts that other systems sent, by what they changed.",
    ["outcome"],
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAlertSettings:
    """Alerts that other systems send to ``POST /api/v2/alerts``."""

    tenant: str = "external"
    """Tenant of alerts that name none, sent with a token that belongs to none."""
    resolve_s: float = 300.0
    """How long an alert holds whose sender does not say until when, in seconds."""

    def __post_init__(self) -> None:
        if not self.tenant:
            raise ValueError("tenant must not be empty")
        if self.resolve_s <= 0:
            raise ValueError(f"resolve_s must be positive, got {self.resolve_s}")


class ExternalAlerts:
    """The alerts of other systems in the alert table."""

    def __init__(self, engine: Engine, alerts: AlertEngine, clock: Clock) -> None:
        self._engine = engine
        self._alerts = alerts
        self._clock = clock

    def receive(self, reported: Sequence[tuple[str, ExternalAlert]], actor: str) -> list[EventRef]:
        """Write what is new.

        Args:
            reported: (tenant, alert), in the order they came.
            actor: user id of the token that brought them.

        Returns:
            The events written; none for mere repetitions.
        """
        now = self._clock.time_s()
        refs: list[EventRef] = []

        def step(ledger: Ledger, connection: Connection) -> None:
            refs.clear()
            # Of several reports of one problem in one call the last one counts.
            latest_report = {alert.fingerprint(tenant): (tenant, alert) for tenant, alert in reported}
            known = ledger.latest(latest_report)
            reports, until = [], {}
            for fingerprint, (tenant, alert) in latest_report.items():
                is_over = alert.ends_at <= now
                until[fingerprint] = None if is_over else alert.ends_at
                change = _change(known.get(fingerprint), alert, is_over=is_over)
                external_received.labels("repeated" if change is None else change.value).inc()
                if change is not None:
                    version = known[fingerprint].version if fingerprint in known else 0
                    reports.append(_report(tenant, alert, change, actor, version))
            refs.extend(self._alerts.report(reports, connection))
            _keep(connection, until)

        in_ledger(self._engine, None, step)
        return refs

    def expire(self, now: float) -> int:
        """Let go stale what was not repeated in time; return how many alerts changed."""
        due = select(external_alerts.c.fingerprint).where(external_alerts.c.ends_at <= now).limit(EXPIRE_BATCH)
        # Read first: nearly always nothing is due, and then nobody waits for the right to write.
        with read_transaction(self._engine) as connection:
            if not connection.scalars(due).all():
                return 0

        def step(ledger: Ledger, connection: Connection) -> None:
            fingerprints = connection.scalars(due).all()
            for alert in ledger.latest(fingerprints).values():
                change = went_stale(alert, now, "watchfloor", STALE_REASON)
                if change is not None:
                    ledger.add(change, recorded_at=now)
            _keep(connection, dict.fromkeys(fingerprints))

        return len(in_ledger(self._engine, None, step))


def _change(known: Alert | None, alert: ExternalAlert, *, is_over: bool) -> Change | None:
    """Return what a report changes; None: it says what is known."""
    if is_over:
        return None if known is None or known.condition is Condition.CLEARED else Change.CLEAR
    if known is None:
        return Change.RAISE
    if known.handling is Handling.CLOSED:
        # People are done with it; only a start after that is another problem.
        return Change.RAISE if alert.starts_at > (known.closed_at or known.last_seen_at) else None
    if known.condition is Condition.CLEARED:
        return Change.RAISE if alert.starts_at > (known.cleared_at or known.last_seen_at) else None
    return Change.RAISE if known.condition is Condition.STALE else None


def _report(tenant: str, alert: ExternalAlert, change: Change, actor: str, version: int) -> AlertReport:
    fingerprint = alert.fingerprint(tenant)
    sighting = Sighting(
        at=alert.ends_at if change is Change.CLEAR else alert.starts_at,
        actor=actor,
        severity=alert.severity,
        text=alert.text,
        value=alert.value,
    )
    return AlertReport(
        tenant=tenant,
        device_id=alert.device_id,
        fingerprint=fingerprint,
        sighting=sighting,
        kind=SourceKind.EXTERNAL,
        rule=alert.rule,
        title=alert.title,
        change=change,
        metric=alert.metric,
        labels={**alert.labels, **alert.links},
        # Of two gateways that are told the same at once, one writes it.
        reading_key=f"external:{change.value}:{fingerprint}:{version}",
    )


def _keep(connection: Connection, until: Mapping[str, float | None]) -> None:
    """Note until when alerts hold; None: it does not matter any more."""
    over = [fingerprint for fingerprint, ends_at in until.items() if ends_at is None]
    for start in range(0, len(over), CHUNK):
        part = over[start : start + CHUNK]
        connection.execute(delete(external_alerts).where(external_alerts.c.fingerprint.in_(part)))
    rows = [{"fingerprint": name, "ends_at": ends_at} for name, ends_at in sorted(until.items()) if ends_at is not None]
    if rows:
        # Both databases speak the same ON CONFLICT; SQLAlchemy has it per dialect only.
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        statement = insert(external_alerts)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["fingerprint"], set_={"ends_at": statement.excluded.ends_at}
            ),
            rows,
        )
