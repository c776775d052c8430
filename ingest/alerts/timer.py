"""What happens to alerts because time passes.

Acknowledgements end, silences begin and end, flapping dies down, what nobody took care of
is told to somebody else, heartbeats are missed. ``step`` looks for what is due and changes
it by the steps of ``lifecycle.py``. Invariant: each change is made on the version that was
read, in one transaction, so any number of timers do what one would.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter, Gauge
from sqlalchemy import ColumnElement, Connection, Engine, and_, or_, select

from cluster.clock import Clock, SystemClock
from cluster.ids import first_id_at, new_id
from cluster.metrics import REGISTRY
from cluster.store import read_transaction
from ingest.alerts import lifecycle
from ingest.alerts.engine import AlertEngine, in_ledger
from ingest.alerts.flapping import flapped
from ingest.alerts.heartbeats import HeartbeatStore
from ingest.alerts.ledger import Ledger
from ingest.alerts.model import Alert, Condition, Handling, SourceKind
from ingest.alerts.settings import SUPERVISOR, AlertSettings
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.tables import alerts

logger = logging.getLogger(__name__)

CHUNK = 2000
"""Alerts changed in one transaction."""

timer_changes = Counter(
    "watchfloor_alert_timer_changes", "Changes of alerts because time passed.", ["reason"], registry=REGISTRY
)
timer_step_at = Gauge(
    "watchfloor_alert_timer_step_timestamp_seconds",
    "When time was last looked at, in seconds since the epoch; old: nothing escalates any more.",
    registry=REGISTRY,
)

Decide = Callable[[Alert], lifecycle.Change | None]


class AlertTimer:
    """One process' timer; ``start`` gives it a thread."""

    def __init__(
        self,
        engine: Engine,
        settings: AlertSettings,
        on_events: Callable[[], None],
        clock: Clock | None = None,
        after_step: Callable[[float], None] = lambda _now: None,
    ) -> None:
        """Begin without touching the store.

        Args:
            on_events: called after alerts changed; must not wait.
            after_step: called after each step that found the store there, with the time of the step.
        """
        self._engine = engine
        self._settings = settings
        self._on_events = on_events
        self._clock = clock or SystemClock()
        self._after_step = after_step
        self._alerts = AlertEngine(engine, self._clock, settings)
        self._silences = SilenceStore(engine, self._clock)
        self._heartbeats = HeartbeatStore(engine, self._clock)
        self._watched_since = self._clock.time_s()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name="alert-timer", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """End the thread after the step in progress."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def run(self) -> None:
        """Step until ``close``; whatever fails, the next step tries again."""
        while not self._closed.wait(self._settings.timer_s):
            now = self._clock.time_s()
            try:
                self.step(now)
                self._after_step(now)
            except Exception as error:
                # The thread must outlive any outage of the store: what is due stays due.
                if not self._is_failing:
                    logger.warning("what is due waits: %s", error, exc_info=True)
                self._is_failing = True
            else:
                if self._is_failing:
                    logger.info("what is due is done again")
                self._is_failing = False

    def step(self, now: float) -> int:
        """Do what is due at ``now``.

        Returns:
            Alerts that changed.
        """
        changed = {
            "silence": sum(self._silences.settle(one, now, is_timers=True) for one in self._silences.due(now)),
            "flapping": self._change(self._flapping(), lambda alert: flapped(alert, now, self._settings), now),
            "ack": self._change(self._expired(now), lambda alert: lifecycle.ack_expired(alert, now), now),
            "escalation": self._change(self._waiting(now), lambda alert: self._escalate(alert, now), now),
            "close": self._change(self._over(now), lambda alert: self._close(alert, now), now),
            "forgotten": self._change(self._forgotten(now), lambda alert: self._give_up(alert, now), now),
            "heartbeat": sum(
                len(self._heartbeats.tell(self._alerts, one, now))
                for one in self._heartbeats.changed(now, self._watched_since)
            ),
        }
        for reason, count in changed.items():
            if count:
                timer_changes.labels(reason).inc(count)
        timer_step_at.set(now)
        total = sum(changed.values())
        if total:
            self._on_events()
        return total

    def _change(self, due: Sequence[ColumnElement[bool]], decide: Decide, now: float) -> int:
        """Change the alerts that meet ``due``, as far as ``decide`` still finds them so in the transaction."""
        if not due:
            return 0
        # Read first: nearly always nothing is due, and then nobody waits for the right to write.
        with read_transaction(self._engine) as connection:
            ids = connection.scalars(select(alerts.c.id).where(*due).limit(CHUNK)).all()
            seen = Ledger(connection).by_ids(ids).values() if ids else ()
            if all(decide(alert) is None for alert in seen):
                return 0
        batch = f"timer-{new_id()}"  # one message tells of all of them

        def step(ledger: Ledger, _connection: Connection) -> None:
            for change in _decided(ledger.by_ids(ids).values(), decide):
                ledger.add(change, recorded_at=now, request_id=batch)

        return len(in_ledger(self._engine, None, step))

    def _flapping(self) -> Sequence[ColumnElement[bool]]:
        return (alerts.c.is_suppressed.is_(True), alerts.c.flaps.is_not(None))

    def _expired(self, now: float) -> Sequence[ColumnElement[bool]]:
        return (
            alerts.c.ack_expires_at <= now,
            alerts.c.handling == Handling.ACKED.value,
            alerts.c.condition != Condition.CLEARED.value,
        )

    def _waiting(self, now: float) -> Sequence[ColumnElement[bool]]:
        due = [
            and_(
                alerts.c.severity == severity.value,
                alerts.c.escalation_level == step.level - 1,
                alerts.c.waiting_since <= now - step.after_s,
            )
            for severity, steps in self._settings.policy.items()
            for step in steps
        ]
        if not due:
            return ()
        return (
            alerts.c.handling == Handling.NEW.value,
            alerts.c.condition != Condition.CLEARED.value,
            alerts.c.is_suppressed.is_(False),
            or_(*due),
        )

    def _escalate(self, alert: Alert, now: float) -> lifecycle.Change | None:
        waited_s = now - (alert.waiting_since or now)
        for step in self._settings.policy.get(alert.severity, ()):
            if step.level > alert.escalation_level and waited_s >= step.after_s:
                audience: str | None = step.audience
                if audience == SUPERVISOR:
                    audience = None if alert.supervisor_id is None else f"user:{alert.supervisor_id}"
                return lifecycle.escalated_to(alert, now, step.level, audience, waited_s)
        return None

    def _over(self, now: float) -> Sequence[ColumnElement[bool]]:
        if not self._settings.close_cleared_s:
            return ()
        return (
            alerts.c.handling == Handling.ACKED.value,
            alerts.c.condition == Condition.CLEARED.value,
            alerts.c.cleared_at <= now - self._settings.close_cleared_s,
        )

    def _close(self, alert: Alert, now: float) -> lifecycle.Change | None:
        if alert.handling is not Handling.ACKED or alert.condition is not Condition.CLEARED:
            return None
        reason = f"acknowledged, and cleared for {self._settings.close_cleared_s / 3600:g} h"
        return lifecycle.closed(alert, now, lifecycle.SYSTEM, reason=reason)

    def _forgotten(self, now: float) -> Sequence[ColumnElement[bool]]:
        if not self._settings.close_forgotten_s:
            return ()
        before = now - self._settings.close_forgotten_s
        return (
            alerts.c.handling.in_((Handling.NEW.value, Handling.ACKED.value)),
            # Written before then: an index, and what an old recording says now is not old.
            alerts.c.id < first_id_at(before),
            alerts.c.last_seen_at <= before,
            or_(alerts.c.condition != Condition.FIRING.value, alerts.c.source_kind == SourceKind.DEVICE.value),
        )

    def _give_up(self, alert: Alert, now: float) -> lifecycle.Change | None:
        is_held = alert.condition is Condition.FIRING and alert.source_kind is not SourceKind.DEVICE
        if is_held or alert.last_seen_at > now - self._settings.close_forgotten_s:
            return None
        reason = f"nobody closed it, and nothing was reported for {self._settings.close_forgotten_s / 86_400:g} days"
        return lifecycle.closed(alert, now, lifecycle.SYSTEM, reason=reason)


def _decided(found: Iterable[Alert], decide: Decide) -> Iterable[lifecycle.Change]:
    return (change for change in map(decide, found) if change is not None)
