"""Everything ingest does, without Ray: connections, queues, lanes, directory, status.

Wiring and threads; the rules stand in ``pipeline.py``, ``lane.py`` and ``receive_window.py``.
One thread per connection, one per lane, one that ticks once a second. Invariant: an alert
never waits for telemetry: it has a queue and a lane of its own, and that lane never lingers.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from cluster.clock import SystemClock
from ingest import metrics
from ingest.alerts.engine import AlertEngine, Outbox
from ingest.alerts.settings import AlertSettings
from ingest.command_store import CommandStore
from ingest.dead_letter import DeadLetter, DeadLetterStore
from ingest.decoder import ClockTolerance
from ingest.delivery import Delivery
from ingest.delivery_queue import BatchLimits, DeliveryQueue
from ingest.directory import DeviceDirectory, DeviceKey
from ingest.drain import Drain
from ingest.errors import AlertConflictError, StoreUnavailableError
from ingest.inbox import Filters, MqttSettings, Subscription
from ingest.ingest_settings import IngestSettings
from ingest.ingest_status import IngestStatus
from ingest.lane import Lane
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_client import MqttInbox
from ingest.payload import CommandAck, DeviceAlert, Reading, StateChange
from ingest.pipeline import BrokerWord, Pipeline
from ingest.presence import Presence
from ingest.session_store import Session
from ingest.sharing import Sharing
from ingest.sql_errors import translated
from ingest.store_bounds import StoreName
from ingest.store_watch import StoreWatch
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicClass, TopicTree

logger = logging.getLogger(__name__)

STEP_S = 0.5
"""Longest sleep of a lane without work; also how long a stop may take."""
SQL = "sql"


class IngestService:
    """The ingest of one floor, between ``start`` and ``stop``."""

    def __init__(
        self,
        *,
        address: MqttAddress,
        topic_root: str,
        engine: Engine,
        stream: TelemetryStream,
        settings: IngestSettings,
        mqtt: MqttSettings,
        on_alerts: Callable[[], None],
        on_tick: Callable[[IngestStatus], None],
        stores: StoreWatch | None = None,
        alerts: AlertSettings | None = None,
        on_answers: Callable[[], None] = lambda: None,
        outbox: Outbox | None = None,
        index: int = 0,
    ) -> None:
        """Wire the parts.

        Args:
            outbox: hears of the events of alerts as soon as they are committed.
            on_alerts: called after alerts were committed; must not wait.
            on_tick: called with the status once per ``settings.tick_s``; must not wait.
            stores: says whether there is room for what comes, started and ended by the caller; None: there always is.
            alerts: None: the defaults.
            on_answers: called after answers to commands were committed; must not wait.
            index: which of ``settings.actors`` this is; the first one also looks after presence.
        """
        clock = SystemClock()
        tree = TopicTree(topic_root)
        self._settings = settings
        self._mqtt = mqtt
        self._address = address
        self._tree = tree
        self._stream = stream
        self._stores = stores or StoreWatch([])
        self._pipeline = Pipeline(
            tree,
            ClockTolerance(future_s=settings.future_s, late_s=settings.late_s),
            BrokerWord(user=mqtt.user_property, time=mqtt.time_property),
        )
        self._alerts = AlertEngine(engine, clock, alerts, outbox)
        self._sharing = Sharing(
            address=address,
            tree=tree,
            engine=engine,
            name=mqtt.client_id,
            index=index,
            actors=settings.actors,
            tenants=settings.tenants,
            new_drain=self._new_drain,
        )
        self._letters = DeadLetterStore(engine, source=self._sharing.client_id)
        self._directory = DeviceDirectory(engine, settings.unknown_devices)
        self._known_presence = Presence(engine, self._alerts, self._directory)
        self._listening_since: float | None = None
        self._commands = CommandStore(engine, clock)
        self._on_alerts = on_alerts
        self._on_answers = on_answers
        self._on_tick = on_tick
        self._stop = threading.Event()
        metrics.window_inflight_max.set(mqtt.window)
        self._observer = metrics.LaneMetrics()
        self._received = metrics.ReceivedMetrics()
        self._seen: dict[DeviceKey, float] = {}
        self._seen_lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._status: IngestStatus | None = None
        self._is_stream_checked = False
        self._totals = _Totals()

        self._telemetry_queue, self._alert_queue, self._presence_queue, self._command_queue = (
            DeliveryQueue(settings.queue_count, settings.queue_bytes) for _ in range(4)
        )
        self._inbox = MqttInbox(
            address,
            Subscription(client_id=self._sharing.client_id, has_session=True, filters=self._sharing.filters),
            mqtt,
            deliver=self._take,
            has_room=self._has_room,
            observer=metrics.ConnectionMetrics("main"),
        )
        # Apart from the main one: a shared subscription gets no retained messages. Without a session, because
        # the broker repeats the states anyway.
        self._presence: MqttInbox | None = None
        if index == 0:
            self._presence = MqttInbox(
                address,
                Subscription(
                    client_id=f"{self._sharing.client_id}-presence",
                    has_session=False,
                    filters=lambda: Filters((tree.states,)),
                ),
                mqtt,
                deliver=self._presence_queue.put,
                has_room=self._presence_queue.has_room,
                observer=metrics.ConnectionMetrics("presence"),
            )
        shared: dict[str, Any] = {
            "set_aside": self._set_aside,
            "observer": self._observer,
            "clock": clock,
            "stop": self._stop,
        }
        self._lanes = (
            Lane(
                "telemetry",
                Reading,
                self._telemetry_queue,
                BatchLimits(
                    count=settings.telemetry_batch,
                    payload_bytes=settings.telemetry_batch_bytes,
                    linger_s=settings.telemetry_linger_s,
                ),
                judge=self._pipeline.judge,
                store=self._store_readings,
                settle=self._settle,
                **shared,
            ),
            Lane(
                "alert",
                DeviceAlert,
                self._alert_queue,
                BatchLimits(count=settings.alert_batch, payload_bytes=settings.telemetry_batch_bytes, linger_s=0.0),
                judge=self._pipeline.judge,
                store=self._store_alerts,
                settle=self._settle,
                **shared,
            ),
            Lane(
                "command",
                CommandAck,
                self._command_queue,
                BatchLimits(count=settings.alert_batch, payload_bytes=settings.telemetry_batch_bytes, linger_s=0.0),
                judge=self._pipeline.judge,
                store=self._store_answers,
                settle=self._settle,
                **shared,
            ),
            Lane(
                "presence",
                StateChange,
                self._presence_queue,
                BatchLimits(count=1000, payload_bytes=settings.telemetry_batch_bytes, linger_s=0.1),
                judge=self._pipeline.judge_presence,
                store=self._store_states,
                settle=self._settle_states,
                **shared,
            ),
        )

    def start(self) -> None:
        """Start all threads; the stores may still be away."""
        for lane in self._lanes:
            self._spawn(f"lane-{lane.name}", partial(lane.step, STEP_S))
        self._spawn("tick", self._tick)
        self._inbox.start()
        if self._presence is not None:
            self._presence.start()

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Wait until the broker keeps messages for us; False when time ran out."""
        return self._inbox.wait_subscribed(timeout_s)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop in order: no new messages, then the lanes. What is not acknowledged stays with the broker."""
        self._inbox.stop()
        if self._presence is not None:
            self._presence.stop()
        self._stop.set()
        self._sharing.stop()
        for queue in (self._telemetry_queue, self._alert_queue, self._presence_queue, self._command_queue):
            queue.close()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def status(self) -> IngestStatus | None:
        """Return the newest status; None before the first tick."""
        return self._status

    def _spawn(self, name: str, step: Callable[[], object]) -> None:
        def loop() -> None:
            while not self._stop.is_set():
                try:
                    step()
                except Exception:  # a thread that ends silently would look like a broker without messages
                    logger.exception("ingest thread %s failed, it goes on", name)
                    self._stop.wait(STEP_S)

        thread = threading.Thread(target=loop, name=f"ingest-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _has_room(self) -> bool:
        return all(queue.has_room() for queue in (self._telemetry_queue, self._alert_queue, self._command_queue))

    def _new_drain(self, session: Session) -> Drain:
        return Drain(
            session,
            self._address,
            self._tree,
            self._mqtt,
            deliver=self._route,
            has_room=self._has_room,
            observer=metrics.ConnectionMetrics("drain"),
        )

    def _settle(self, deliveries: Sequence[Delivery]) -> None:
        drain = self._sharing.drain
        if drain is None:
            self._inbox.settle(deliveries)
            return
        for inbox, own in ((self._inbox, self._sharing.client_id), (drain.inbox, drain.session.client_id)):
            inbox.settle([delivery for delivery in deliveries if delivery.client_id == own])

    def _settle_states(self, deliveries: Sequence[Delivery]) -> None:
        if self._presence is not None:
            self._presence.settle(deliveries)

    def _take(self, delivery: Delivery) -> bool:
        if self._sharing.is_ours(delivery):
            return self._route(delivery)
        self._inbox.settle([delivery])
        return True

    def _route(self, delivery: Delivery) -> bool:
        kind = self._pipeline.topic_class(delivery)
        self._received.counts[kind] += 1
        if kind is TopicClass.ALERT:
            return self._alert_queue.put(delivery)
        if kind is TopicClass.COMMAND_ACK:
            return self._command_queue.put(delivery)
        return self._telemetry_queue.put(delivery)

    def _store_readings(self, readings: Sequence[Reading]) -> int:
        if not self._is_stream_checked:
            self._stream.check()
            self._is_stream_checked = True
        self._stores.check(StoreName.TELEMETRY, StoreName.ARCHIVE)
        new = self._stream.append(readings).stored
        self._heard_of(readings)
        return new

    def _store_alerts(self, alerts: Sequence[DeviceAlert]) -> int:
        self._stores.check(StoreName.ALERTS)
        try:
            with translated(SQL):
                events = self._alerts.raise_device_alerts(alerts)
        except AlertConflictError as error:
            raise StoreUnavailableError(SQL, str(error)) from error
        if events:  # none for alerts that were stored before
            self._on_alerts()
        self._heard_of(alerts)
        return min(len(events), len(alerts))

    def _store_answers(self, acks: Sequence[CommandAck]) -> int:
        with translated(SQL):
            news = self._commands.record(acks)
        if news:
            self._on_answers()
        self._heard_of(acks)
        return news

    def _heard_of(self, items: Sequence[Reading | DeviceAlert | CommandAck | StateChange]) -> None:
        with self._seen_lock:
            for item in items:
                self._seen[item.tenant, item.device] = item.received_at

    def _store_states(self, states: Sequence[StateChange]) -> int:
        self._stores.check()
        try:
            with translated(SQL):
                events = self._known_presence.announce(states)
        except AlertConflictError as error:
            raise StoreUnavailableError(SQL, str(error)) from error
        if events:
            self._on_alerts()
        # The broker's copy says nothing about now, and a last will is the opposite of being heard of.
        self._heard_of([state for state in states if state.online and not state.is_retained])
        return len(states)

    def _set_aside(self, letters: Sequence[DeadLetter]) -> None:
        self._stores.check(StoreName.DEAD_LETTERS)
        with translated(SQL):
            self._letters.add(letters)

    def _tick(self) -> None:
        """Once a second: watch the connections, bring the directory up to date, say how it goes."""
        next_directory_s = last_s = time.monotonic()
        last_total: int | None = None
        while not self._stop.wait(self._settings.tick_s):
            self._inbox.supervise()
            if self._presence is not None:
                self._presence.supervise()
            self._listen()
            now_s = time.monotonic()
            try:
                self._sharing.step(is_settled=self._inbox.is_settled)
                self._count_totals()
                if now_s >= next_directory_s:
                    next_directory_s = now_s + self._settings.directory_s
                    self._update_directory()
            except (OSError, StoreUnavailableError) as error:
                # The lanes and connections report the outage; the figures stay as they were.
                logger.debug("housekeeping waits: %s", error)
            # The stream's and not this process's: it is the figure of all ingest actors together.
            total = self._totals.readings
            self._status = self._measure((total - (last_total or total)) / max(now_s - last_s, 1e-9))
            last_s, last_total = now_s, total
            self._on_tick(self._status)

    def _count_totals(self) -> None:
        totals = self._totals
        totals.readings = self._stream.total()
        if totals.letters_counted_at != self._observer.dead_letters:
            totals.letters_counted_at = self._observer.dead_letters
            with translated(SQL):
                totals.letters = self._letters.total()

    def _update_directory(self) -> None:
        with self._seen_lock:
            seen, self._seen = self._seen, {}
        try:
            with translated(SQL):
                if seen:
                    self._note_unlisted(self._directory.saw(seen))
                    for tenant, device in self._known_presence.heard(seen.keys()):
                        logger.info("device %s/%s is heard of again", tenant, device)
                self._judge_silence()
                self._totals.online = self._directory.count_online()
        except StoreUnavailableError:
            with self._seen_lock:
                self._seen = seen | self._seen
            raise
        metrics.device_online.set(self._totals.online)
        metrics.stream_readings.set(self._stream.length())
        metrics.stream_memory_ratio.set(self._stream.memory_ratio())

    def _note_unlisted(self, count: int) -> None:
        if count and not self._totals.unlisted:
            logger.warning(
                "%s devices are not listed, because %s that nobody registered are: register those that are yours, "
                "or see who publishes under so many names (WATCHFLOOR_INGEST_UNKNOWN_DEVICES)",
                count,
                self._settings.unknown_devices,
            )
        self._totals.unlisted = count
        metrics.device_unlisted.set(count)

    def _judge_silence(self) -> None:
        """Declare silent devices offline, unless the silence may be ours."""
        deadline_s = self._settings.offline_after_s
        now = time.time()
        if not deadline_s or self._listening_since is None or self._listening_since > now - deadline_s:
            return
        try:
            silent, events = self._known_presence.fell_silent(
                now - deadline_s, now, f"nothing was heard of the device for {deadline_s:g} s"
            )
        except AlertConflictError as error:
            logger.debug("silent devices wait for the next turn: %s", error)
            return
        if silent:
            metrics.device_silent.inc(len(silent))
            logger.info("%s devices fell silent, first %s/%s", len(silent), *silent[0])
        if events:
            self._on_alerts()

    def _listen(self) -> None:
        """Note since when everything that devices send is heard and stored."""
        since = self._inbox.status().connected_since
        if since is None or self._observer.blockages():
            self._listening_since = None
        elif self._listening_since is None or self._listening_since < since:
            self._listening_since = time.time()

    def _measure(self, rate: float) -> IngestStatus:
        inbox = self._inbox.status()
        waiting_s = max(0.0, time.time() - inbox.oldest_received_at) if inbox.oldest_received_at else 0.0
        metrics.window_inflight.set(inbox.window)
        self._received.publish()
        return IngestStatus(
            rate=round(rate, 1),
            window=inbox.window,
            lag_s=round(waiting_s, 3),
            readings_total=self._totals.readings,
            alerts_total=self._observer.alerts_stored,
            dead_letters=self._totals.letters,
            duplicates_total=self._observer.readings_duplicate,
            devices_online=self._totals.online,
            broker_connected=inbox.is_connected,
            broker=inbox.address,
            mqtt_version=inbox.version,
            broker_problem=inbox.problem,
            blocked=self._observer.blockages(),
            stores={str(name): found for name, found in self._stores.reports().items()},
        )


@dataclass(slots=True)
class _Totals:
    """What the stores said last."""

    readings: int = 0
    letters: int = 0
    letters_counted_at: int = -1
    online: int = 0
    unlisted: int = 0
    """Devices heard of lately that the directory has no room for."""
