"""Tells the dashboards what was committed: publishes events whose ``broadcast_at`` is NULL.

The table is the outbox, so a process that dies between commit and publish loses nothing:
whichever relay comes next finds the event. Any number of processes may run one. Events of
its own process a relay need not look up: ``tell`` sends them from memory, on the thread that
committed them, and the mark rides on the next commit. What cannot leave at once is left to
the table.
Invariant: an event is marked only after the hub confirmed all its messages, and its keys
make a second publication of it disappear.
"""

import logging
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Connection, Engine, bindparam, update
from sqlalchemy import select as select_rows

from cluster.clock import Clock, SystemClock
from cluster.metrics import websocket_broadcast_duration, websocket_broadcast_failure, websocket_broadcast_success
from cluster.store import in_write, read_transaction
from ingest.alerts.hub_line import HubLine
from ingest.alerts.ledger import ALERT_COLUMNS, CHUNK, EVENT_COLUMNS, Told, alert_from_row, event_from_row
from ingest.alerts.messages import batch_drafts, drafts_of
from ingest.alerts.model import Action, Alert, AlertEvent
from ingest.alerts.tables import alert_events, alerts
from realtime.channels import kind_of
from realtime.errors import HubUnavailableError, InvalidMessageError, RealtimeError
from realtime.hub_client import HubClient
from realtime.publication import Draft

logger = logging.getLogger(__name__)

SWEEP_S = 1.0
"""Longest time between two looks at the table."""
SWEEP_GRACE_S = 1.0
"""A sweep leaves younger events to the process that wrote them and is publishing them now."""
MARK_S = 0.25
"""Time that a mark waits for a commit to ride on; well below the grace, or others would publish the event again."""
PUBLISH_TIMEOUT_S = 5.0
BELL_BYTES = 4096
BATCH = 100
"""Events of one call of the hub; each has two to four messages."""
BULK = 10
"""An action on so many alerts or more is told by one message for each audience."""
BATCH_BYTES = 49_152
"""Payload that leaves together on the line."""
MAX_WAITING = 8192
"""Events that wait for room on the line; later ones are left to the table."""

_MARK = (
    update(alert_events)
    .where(alert_events.c.id.in_(bindparam("ids", expanding=True)), alert_events.c.broadcast_at.is_(None))
    .values(broadcast_at=bindparam("now"))
)


BulkKey = tuple[str, Action]


class Relay:
    """One process' relay; ``start`` gives it a thread."""

    def __init__(self, engine: Engine, hub: HubClient, clock: Clock | None = None) -> None:
        self._engine = engine
        self._hub = hub
        self._clock = clock or SystemClock()
        self._line = HubLine(hub)
        self._wants_line = False  # somebody commits events in this process
        self._lock = threading.Lock()  # over what waits, and the order in which it leaves
        self._waiting: deque[Told] = deque()
        self._own: set[str] = set()  # told, and not marked yet: no sweep need publish them
        self._confirmed: list[str] = []
        self._confirmed_at_s = 0.0
        self._written: list[str] = []  # marks of a transaction that may still fail
        self._bell: tuple[socket.socket, socket.socket] | None = None  # opened by ``start``, closed by the thread
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False
        self._sweep_at_s = 0.0

    def start(self) -> None:
        """Start the thread: it publishes what is pending at once, every second, and when woken."""
        if self._thread is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            self._thread = threading.Thread(target=self.run, name="alert-relay", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Events were just committed. Never blocks; for any thread or loop."""
        self._woken.set()
        self._ring()

    def close(self, timeout_s: float = 10.0) -> None:
        """Publish what is pending and end the thread."""
        self._closed.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- events of this process ------------------------------------------------------------

    def tell(self, events: Sequence[Told]) -> None:
        """Publish events that were just committed, without waiting for the hub; see ``engine.Outbox``."""
        self._wants_line = True
        try:
            with self._lock:
                self._written.clear()
                self._take(events)
        except Exception:
            # They are committed: whatever this is, their device gets its acknowledgement, and the table has them.
            logger.exception("events of alerts cannot be told from memory, they are left to the table")
            self._start_over()
            self._woken.set()
        if self._waiting or self._woken.is_set():
            self._ring()

    def write_marks(self, connection: Connection) -> None:
        """Mark what the hub has confirmed, in a transaction that is about to be committed; see ``engine.Outbox``."""
        with self._lock:
            # If that transaction fails, the next one writes them.
            self._written += self._confirmed
            self._own.difference_update(self._confirmed)
            self._confirmed.clear()
            ids = sorted(self._written)
        self._write_marks(connection, ids)

    def _take(self, events: Sequence[Told]) -> None:
        if self._is_failing or self._line.fileno is None:
            self._woken.set()
            return
        is_first = not self._waiting
        events = events[: MAX_WAITING - len(self._waiting)]
        self._waiting.extend(events)
        self._own.update(event.id for event, _ in events)
        if is_first:
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what waits, as far as there is room on the line. Under the lock."""
        while self._waiting and self._line.has_room():
            ids: list[str] = []
            drafts: list[Draft] = []
            num_bytes = 0
            while self._waiting and num_bytes < BATCH_BYTES and len(ids) < BATCH:
                event, alert = self._waiting.popleft()
                ids.append(event.id)
                made = self._drafts(event, alert)
                num_bytes += sum(len(draft.data) for draft in made)
                drafts += made
            if not drafts:
                self._note_confirmed(ids)
            elif not self._line.send(ids, drafts):
                # They are the table's now: the next sweep of this relay finds them, or another's.
                self._own.difference_update(ids)
                if self._line.fileno is None:
                    self._own.clear()
                    self._woken.set()

    def _note_confirmed(self, ids: Sequence[str]) -> None:
        if not self._confirmed:
            self._confirmed_at_s = time.monotonic()
        self._confirmed += ids

    # -- the thread ------------------------------------------------------------------------

    def run(self) -> None:
        """Publish until ``close``; whatever fails, the next turn tries again."""
        assert self._bell is not None
        self._woken.set()  # what earlier processes left
        while True:
            is_last = self._closed.is_set()
            try:
                self._turn()
                if is_last:
                    self._finish()
                self._note_success()
            except Exception as error:
                # The thread must outlive any outage of the store or the hub; the events wait in the table.
                self._start_over()
                self._note_failure(error)
            if is_last:
                break
        self._start_over()
        for end in self._bell:
            end.close()

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        self._wait(self._pause_s())
        with self._lock:
            self._send_waiting()
        self._mark_confirmed(MARK_S)
        now_s = time.monotonic()
        was_woken = self._woken.is_set()
        if was_woken or (now_s >= self._sweep_at_s and not self._waiting):
            self._woken.clear()
            self._sweep_at_s = now_s + SWEEP_S
            min_age_s = 0.0 if was_woken or self._is_failing else SWEEP_GRACE_S
            while self.publish_pending(min_age_s=min_age_s):
                pass
            if self._wants_line and not self._closed.is_set():
                self._line.open()

    def _finish(self) -> None:
        """Wait for the confirmations that are under way, and mark them."""
        give_up_at_s = time.monotonic() + PUBLISH_TIMEOUT_S
        while self._line.oldest_s is not None and time.monotonic() < give_up_at_s:
            self._wait(SWEEP_S)
        self._mark_confirmed(0.0)

    def _pause_s(self) -> float:
        if self._woken.is_set():
            return 0.0
        until_s = time.monotonic() + SWEEP_S if self._waiting else self._sweep_at_s
        if self._confirmed:
            until_s = min(until_s, self._confirmed_at_s + MARK_S)
        return max(0.0, until_s - time.monotonic())

    def _wait(self, wait_s: float) -> None:
        oldest_s = self._line.oldest_s
        if oldest_s is not None and time.monotonic() > oldest_s + PUBLISH_TIMEOUT_S:
            raise HubUnavailableError("publish", PUBLISH_TIMEOUT_S, "no answer")
        assert self._bell is not None
        bell, line = self._bell[0].fileno(), self._line.fileno
        # Not select.select: a gateway has more open files than that can name.
        poll = select.poll()
        for number in (bell,) if line is None else (bell, line):
            poll.register(number, select.POLLIN)
        readable = {number for number, _ in poll.poll(1000 * wait_s)}
        if bell in readable:
            self._bell[0].recv(BELL_BYTES)
        if line in readable:
            for batch in self._line.hear(PUBLISH_TIMEOUT_S):
                with self._lock:
                    self._note_confirmed(batch.event_ids)
                _count(batch.drafts, time.monotonic() - batch.sent_at_s)

    def _mark_confirmed(self, after_s: float) -> None:
        """Mark what no commit has taken along for ``after_s``."""
        with self._lock:
            if not self._confirmed or time.monotonic() < self._confirmed_at_s + after_s:
                return
            ids, self._confirmed = self._confirmed, []
        self._mark(ids)
        with self._lock:
            self._own.difference_update(ids)

    def _start_over(self) -> None:
        """Give up the line; whatever was not marked is the table's."""
        self._line.close()
        with self._lock:
            self._waiting.clear()
            self._confirmed = []
            self._own.clear()

    # -- events of the table ---------------------------------------------------------------

    def publish_pending(self, limit: int = 500, min_age_s: float = 0.0) -> int:
        """Publish what is pending and not on its way already, oldest first.

        Args:
            limit: most events of this call.
            min_age_s: leave younger events alone.

        Returns:
            Events that were published and marked; 0 when nothing is pending.

        Raises:
            HubUnavailableError: not confirmed; the rest stays pending.
        """
        pending = self._pending(limit, min_age_s)
        sizes = Counter(_bulk_key(event) for event, _ in pending)
        single: list[Told] = []
        bulks: set[BulkKey] = set()
        for event, alert in pending:
            key = _bulk_key(event)
            if key is None or sizes[key] < BULK:
                single.append((event, alert))
            elif key not in bulks:
                bulks.add(key)
                self._publish_all(single)
                single = []
                self._publish_bulk(key)
        self._publish_all(single)
        return len(pending)

    def _pending(self, limit: int, min_age_s: float) -> list[Told]:
        query = (
            select_rows(alert_events.c.id, alert_events.c.alert_id)
            .where(alert_events.c.broadcast_at.is_(None))
            .order_by(alert_events.c.id)
            .limit(limit)
        )
        if min_age_s > 0:
            query = query.where(alert_events.c.at <= self._clock.time_s() - min_age_s)
        with read_transaction(self._engine) as connection:
            with self._lock:
                own = set(self._own)
            found = [row for row in connection.execute(query) if row.id not in own]
            if not found:
                return []
            event_ids = [row.id for row in found]
            alert_ids = sorted({row.alert_id for row in found})
            event_rows = connection.execute(select_rows(*EVENT_COLUMNS).where(alert_events.c.id.in_(event_ids)))
            events = [event_from_row(row) for row in event_rows]
            alert_rows = connection.execute(select_rows(*ALERT_COLUMNS).where(alerts.c.id.in_(alert_ids)))
            of_id = {row.id: alert_from_row(row) for row in alert_rows}
        return [(event, of_id[event.alert_id]) for event in sorted(events, key=lambda event: event.id)]

    def _publish_all(self, pending: list[Told]) -> None:
        for start in range(0, len(pending), BATCH):
            batch = pending[start : start + BATCH]
            drafts = [draft for event, alert in batch for draft in self._drafts(event, alert)]
            self._send(drafts, [event.id for event, _ in batch])

    def _publish_bulk(self, key: BulkKey) -> None:
        """Publish all that is pending of one request, in one call of the hub."""
        request_id, action = key
        of_request = (
            alert_events.c.request_id == request_id,
            alert_events.c.action == action.value,
            alert_events.c.broadcast_at.is_(None),
        )
        with read_transaction(self._engine) as connection:
            query = select_rows(*EVENT_COLUMNS).where(*of_request).order_by(alert_events.c.id)
            events = [event_from_row(row) for row in connection.execute(query)]
            changed = (
                select_rows(*ALERT_COLUMNS)
                .join(alert_events, alert_events.c.alert_id == alerts.c.id)
                .where(*of_request)
            )
            of_id = {row.id: alert_from_row(row) for row in connection.execute(changed)}
        told = [(event, of_id[event.alert_id]) for event in events]
        self._send(batch_drafts(told, self._clock), [event.id for event in events])

    def _send(self, drafts: list[Draft], event_ids: list[str]) -> None:
        started_s = time.perf_counter()
        try:
            self._hub.publish_sync(drafts, timeout_s=PUBLISH_TIMEOUT_S)
        except RealtimeError:
            for draft in drafts:
                websocket_broadcast_failure.labels(kind=kind_of(draft.channel).value, reason="hub_unavailable").inc()
            raise
        self._mark(event_ids)
        _count(drafts, time.perf_counter() - started_s)

    def _drafts(self, event: AlertEvent, alert: Alert) -> list[Draft]:
        try:
            return drafts_of(event, alert, self._clock)
        except InvalidMessageError as error:
            # It can never be published, so it is marked with the others instead of blocking them.
            logger.error("event %s of alert %s cannot be told: %s", event.id, alert.id, error)  # noqa: TRY400
            websocket_broadcast_failure.labels(kind="noc", reason="invalid").inc()
            return []

    def _mark(self, event_ids: Sequence[str]) -> None:
        in_write(self._engine, lambda connection: self._write_marks(connection, event_ids))

    def _write_marks(self, connection: Connection, event_ids: Sequence[str]) -> None:
        for start in range(0, len(event_ids), CHUNK):
            connection.execute(_MARK, {"ids": event_ids[start : start + CHUNK], "now": self._clock.time_s()})

    def _ring(self) -> None:
        if self._bell is not None:
            with suppress(OSError):  # so many rings are waiting that one more says nothing; or the thread has ended
                self._bell[1].send(b"!")

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.info("alert events are published again")

    def _note_failure(self, error: Exception) -> None:
        self._sweep_at_s = time.monotonic() + SWEEP_S
        if not self._is_failing:
            self._is_failing = True
            logger.warning("alert events wait in the table: %s", error, exc_info=not isinstance(error, RealtimeError))


def _count(drafts: Sequence[Draft], elapsed_s: float) -> None:
    """Count confirmed messages: by label first, because to look a label up costs more than all else here."""
    counts = Counter((kind_of(draft.channel).value, draft.priority.value) for draft in drafts)
    for (kind, priority), count in counts.items():
        websocket_broadcast_success.labels(kind=kind, priority=priority).inc(count)
        duration = websocket_broadcast_duration.labels(kind=kind)
        for _ in range(count):
            duration.observe(elapsed_s)


def _bulk_key(event: AlertEvent) -> BulkKey | None:
    return None if event.request_id is None else (event.request_id, event.action)
