"""Prometheus metrics of ingest, and the observers that feed them.

One sink for what lanes and connections report; it also keeps the few totals that the status
line shows. Invariant: every label is one of a closed set.
"""

import threading
from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from cluster.metrics import REGISTRY
from ingest.dead_letter import DeadLetter
from ingest.errors import StoreUnavailableError
from ingest.inbox import Ending
from ingest.payload import DeviceAlert, Flag, Reading
from ingest.pipeline import Judged
from ingest.topics import TopicClass

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

mqtt_connected = Gauge("watchfloor_mqtt_connected", "1 while connected.", ["connection"], registry=REGISTRY)
mqtt_received = Counter("watchfloor_mqtt_received", "Messages received.", ["topic_class"], registry=REGISTRY)
mqtt_duplicate = Counter(
    "watchfloor_mqtt_duplicate", "Messages the broker sent again while they were worked on.", registry=REGISTRY
)
mqtt_dropped = Counter("watchfloor_mqtt_dropped", "QoS 0 messages that found the queue full.", registry=REGISTRY)
mqtt_reconnects = Counter(
    "watchfloor_mqtt_reconnects", "Connections that ended or failed, by cause.", ["reason_code"], registry=REGISTRY
)
sessions_present = Counter(
    "watchfloor_session_present", "Connections for which the broker had kept the session.", registry=REGISTRY
)
stale_ack_dropped = Counter(
    "watchfloor_ingest_stale_ack_dropped", "Acknowledgements whose connection had ended.", registry=REGISTRY
)
ack_seconds = Histogram(
    "watchfloor_ingest_ack_seconds",
    "From a message's arrival to its acknowledgement, the oldest of each turn.",
    buckets=SECONDS,
    registry=REGISTRY,
)
persist_seconds = Histogram(
    "watchfloor_ingest_persist_seconds", "Making one batch durable.", ["lane"], buckets=SECONDS, registry=REGISTRY
)
batch_size = Histogram(
    "watchfloor_ingest_batch_size",
    "Items per batch.",
    ["lane"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
    registry=REGISTRY,
)
stored = Counter("watchfloor_ingest_stored", "Items made durable, each once.", ["lane"], registry=REGISTRY)
duplicates = Counter("watchfloor_ingest_duplicate", "Items that were stored before.", ["lane"], registry=REGISTRY)
rejected = Counter("watchfloor_ingest_rejected", "Messages that cannot be used.", ["reason"], registry=REGISTRY)
dlq = Counter("watchfloor_ingest_dlq", "Dead letters written.", registry=REGISTRY)
flagged = Counter("watchfloor_ingest_flagged", "Items used in spite of an oddity.", ["flag"], registry=REGISTRY)
blocked = Gauge("watchfloor_ingest_blocked", "1 while a lane's store does not take data.", ["lane"], registry=REGISTRY)
window_inflight = Gauge(
    "watchfloor_ingest_window_inflight", "Messages received and not acknowledged.", registry=REGISTRY
)
window_inflight_max = Gauge(
    "watchfloor_ingest_window_inflight_max", "The most that may be, as configured.", registry=REGISTRY
)
clock_skew = Histogram(
    "watchfloor_ingest_device_clock_skew_seconds",
    "Arrival minus device time, one reading per batch.",
    buckets=(-60, -5, -1, -0.1, 0, 0.1, 1, 5, 60, 3600, 86400),
    registry=REGISTRY,
)
device_online = Gauge("watchfloor_device_online", "Devices that say they are online.", registry=REGISTRY)
device_silent = Counter(
    "watchfloor_device_silent", "Devices declared offline because nothing was heard of them.", registry=REGISTRY
)
device_unlisted = Gauge(
    "watchfloor_device_unlisted",
    "Devices heard of lately that are not in the directory, because too many are that nobody registered.",
    registry=REGISTRY,
)
stream_readings = Gauge("watchfloor_telemetry_stream_readings", "Readings in the stream.", registry=REGISTRY)
stream_memory_ratio = Gauge(
    "watchfloor_telemetry_memory_ratio", "Share of Valkey's memory bound in use.", registry=REGISTRY
)
archive_rows = Counter("watchfloor_archive_readings", "Readings written to the archive.", registry=REGISTRY)
archive_seconds = Histogram(
    "watchfloor_archive_flush_seconds", "Writing one flush of the archive.", buckets=SECONDS, registry=REGISTRY
)
archive_bytes = Gauge("watchfloor_archive_bytes", "Size of the archive.", registry=REGISTRY)


class ConnectionMetrics:
    """Observer of one connection."""

    def __init__(self, connection: str) -> None:
        self._connected = mqtt_connected.labels(connection)
        self._connected.set(0)

    def on_connected(self, *, session_present: bool) -> None:
        self._connected.set(1)
        if session_present:
            sessions_present.inc()

    def on_disconnected(self, ending: Ending) -> None:
        self._connected.set(0)
        mqtt_reconnects.labels(ending).inc()

    def on_acknowledged(self, count: int, oldest_s: float) -> None:  # noqa: ARG002
        ack_seconds.observe(oldest_s)

    def on_repeat(self) -> None:
        mqtt_duplicate.inc()

    def on_stale_acks(self, count: int) -> None:
        stale_ack_dropped.inc(count)

    def on_dropped(self) -> None:
        mqtt_dropped.inc()


class LaneMetrics:
    """Observer of the lanes; remembers totals of this process for the status. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.readings_stored = 0
        self.readings_duplicate = 0
        self.alerts_stored = 0
        self.dead_letters = 0
        self.blocked: dict[str, StoreUnavailableError] = {}

    def on_stored(self, lane: str, items: Sequence[Judged], new: int, seconds: float) -> None:
        persist_seconds.labels(lane).observe(seconds)
        batch_size.labels(lane).observe(len(items))
        stored.labels(lane).inc(new)
        duplicates.labels(lane).inc(len(items) - new)
        last = items[-1]
        with self._lock:
            if isinstance(last, Reading):
                self.readings_stored += new
                self.readings_duplicate += len(items) - new
                if Flag.NO_CLOCK not in last.flags:
                    clock_skew.observe(last.received_at - last.ts)
            elif isinstance(last, DeviceAlert):
                self.alerts_stored += new
        odd = Counts(flag for item in items if isinstance(item, Reading | DeviceAlert) for flag in item.flags)
        for flag, count in odd.items():
            flagged.labels(flag).inc(count)

    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            rejected.labels(letter.reason).inc()
        dlq.inc(len(letters))
        with self._lock:
            self.dead_letters += sum(not letter.is_repeat for letter in letters)

    def on_blocked(self, lane: str, error: StoreUnavailableError) -> None:
        blocked.labels(lane).set(1)
        with self._lock:
            self.blocked[lane] = error

    def on_unblocked(self, lane: str) -> None:
        blocked.labels(lane).set(0)
        with self._lock:
            self.blocked.pop(lane, None)

    def blockages(self) -> dict[str, str]:
        """Return the lanes whose store does not take data, with the reason."""
        with self._lock:
            return {lane: str(error) for lane, error in self.blocked.items()}


class ReceivedMetrics:
    """Counts arrivals by topic class: plain numbers on the network thread, published once a second."""

    def __init__(self) -> None:
        # A prometheus counter takes a lock; at 15,000 messages/s that alone is several per cent of a core.
        self.counts: dict[TopicClass | None, int] = {**dict.fromkeys(TopicClass, 0), None: 0}
        self._published = dict(self.counts)

    def publish(self) -> None:
        """Bring the metric up to date."""
        for kind, count in list(self.counts.items()):
            mqtt_received.labels(kind or "unknown").inc(count - self._published[kind])
            self._published[kind] = count
