"""Tells the dashboards what was committed: publishes events whose ``broadcast_at`` is NULL.

The table is the outbox, so a process that dies between commit and publish loses nothing:
whichever relay comes next finds the event. Any number of processes may run one.
Invariant: an event is marked only after the hub confirmed all its messages, and its keys
make a second publication of it disappear.
"""

import logging
import threading
import time

from sqlalchemy import Engine, select, update

from cluster.clock import Clock, SystemClock
from cluster.metrics import websocket_broadcast_duration, websocket_broadcast_failure, websocket_broadcast_success
from cluster.store import in_write, read_transaction
from ingest.alerts.ledger import ALERT_COLUMNS, EVENT_COLUMNS, alert_from_row, event_from_row
from ingest.alerts.messages import drafts_of
from ingest.alerts.model import Alert, AlertEvent
from ingest.alerts.tables import alert_events, alerts
from realtime.channels import kind_of
from realtime.errors import InvalidMessageError, RealtimeError
from realtime.hub_client import HubClient
from realtime.publication import Draft

logger = logging.getLogger(__name__)

SWEEP_S = 1.0
"""Longest time between two looks at the table."""
SWEEP_GRACE_S = 1.0
"""A sweep leaves younger events to the process that wrote them and is publishing them now."""
PUBLISH_TIMEOUT_S = 5.0
BATCH = 100
"""Events of one call of the hub; each has two to four messages."""


class Relay:
    """One process' relay; ``start`` gives it a thread."""

    def __init__(self, engine: Engine, hub: HubClient, clock: Clock | None = None) -> None:
        self._engine = engine
        self._hub = hub
        self._clock = clock or SystemClock()
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def start(self) -> None:
        """Start the thread: it publishes what is pending at once, every second, and when woken."""
        if self._thread is None:
            self._thread = threading.Thread(target=self.run, name="alert-relay", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Events were just committed. Never blocks; for any thread or loop."""
        self._woken.set()

    def close(self, timeout_s: float = 10.0) -> None:
        """Publish what is pending and end the thread."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def run(self) -> None:
        """Publish until ``close``; whatever fails, the next turn tries again."""
        min_age_s = 0.0
        while True:
            try:
                while self.publish_pending(min_age_s=min_age_s):
                    pass
                self._note_success()
            except Exception as error:
                # The thread must outlive any outage of the store or the hub; the events wait in the table.
                self._note_failure(error)
            if self._closed.is_set():
                return
            was_woken = self._woken.wait(SWEEP_S)
            self._woken.clear()
            min_age_s = 0.0 if was_woken or self._is_failing else SWEEP_GRACE_S

    def publish_pending(self, limit: int = 500, min_age_s: float = 0.0) -> int:
        """Publish what is pending, oldest first.

        Args:
            limit: most events of this call.
            min_age_s: leave younger events alone.

        Returns:
            Events that were published and marked; 0 when nothing is pending.

        Raises:
            HubUnavailableError: not confirmed; the rest stays pending.
        """
        pending = self._pending(limit, min_age_s)
        for start in range(0, len(pending), BATCH):
            self._publish(pending[start : start + BATCH])
        return len(pending)

    def _pending(self, limit: int, min_age_s: float) -> list[tuple[AlertEvent, Alert]]:
        query = (
            select(alert_events.c.id, alert_events.c.alert_id)
            .where(alert_events.c.broadcast_at.is_(None))
            .order_by(alert_events.c.id)
            .limit(limit)
        )
        if min_age_s > 0:
            query = query.where(alert_events.c.at <= self._clock.time_s() - min_age_s)
        with read_transaction(self._engine) as connection:
            found = connection.execute(query).all()
            if not found:
                return []
            event_ids = [row.id for row in found]
            alert_ids = sorted({row.alert_id for row in found})
            event_rows = connection.execute(select(*EVENT_COLUMNS).where(alert_events.c.id.in_(event_ids)))
            events = [event_from_row(row) for row in event_rows]
            alert_rows = connection.execute(select(*ALERT_COLUMNS).where(alerts.c.id.in_(alert_ids)))
            of_id = {row.id: alert_from_row(row) for row in alert_rows}
        return [(event, of_id[event.alert_id]) for event in sorted(events, key=lambda event: event.id)]

    def _publish(self, batch: list[tuple[AlertEvent, Alert]]) -> None:
        drafts: list[Draft] = []
        for event, alert in batch:
            try:
                drafts += drafts_of(event, alert, self._clock)
            except InvalidMessageError as error:
                # It can never be published, so it is marked with the others instead of blocking them.
                logger.error("event %s of alert %s cannot be told: %s", event.id, alert.id, error)  # noqa: TRY400
                websocket_broadcast_failure.labels(kind="noc", reason="invalid").inc()
        started_s = time.perf_counter()
        try:
            self._hub.publish_sync(drafts, timeout_s=PUBLISH_TIMEOUT_S)
        except RealtimeError:
            for draft in drafts:
                websocket_broadcast_failure.labels(kind=kind_of(draft.channel).value, reason="hub_unavailable").inc()
            raise
        elapsed_s = time.perf_counter() - started_s
        self._mark([event.id for event, _ in batch])
        for draft in drafts:
            kind = kind_of(draft.channel).value
            websocket_broadcast_success.labels(kind=kind, priority=draft.priority.value).inc()
            websocket_broadcast_duration.labels(kind=kind).observe(elapsed_s)

    def _mark(self, event_ids: list[str]) -> None:
        told = (
            update(alert_events)
            .where(alert_events.c.id.in_(event_ids), alert_events.c.broadcast_at.is_(None))
            .values(broadcast_at=self._clock.time_s())
        )
        in_write(self._engine, lambda connection: connection.execute(told))

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.info("alert events are published again")

    def _note_failure(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.warning("alert events wait in the table: %s", error, exc_info=not isinstance(error, RealtimeError))
