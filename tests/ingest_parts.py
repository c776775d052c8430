"""Real parts for ingest's tests: services that can be stopped, an ingest, a device that counts its PUBACKs."""

import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import redis
from sqlalchemy import Engine

import ingest.alerts.tables
import ingest.command_tables  # noqa: F401  both declare what the schema needs
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service, redis_service
from cluster.ports import LOOPBACK, free_port
from cluster.process import Child, send
from cluster.store import metadata, open_engine
from ingest.device_mqtt import DeviceConnection
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.ingest_status import IngestStatus
from ingest.mqtt_address import MqttAddress
from ingest.payload import Reading
from ingest.store_watch import StoreWatch
from ingest.telemetry_redis import TelemetrySettings, TelemetryStream
from ingest.topics import TopicClass, TopicTree
from tests import waiting

MOSQUITTO = "/usr/sbin/mosquitto"
HAS_MOSQUITTO = Path(MOSQUITTO).exists() or shutil.which("mosquitto") is not None

Key = tuple[str, str, int]
"""(device, boot_id, seq)."""


def eventually(check: Callable[[], bool], within_s: float = 20.0, every_s: float = 0.05) -> bool:
    """Wait for something that happens in another thread or process; False when it did not."""
    return waiting.eventually(check, within_s, every_s)


def is_stopped(thread: Path) -> bool:
    """Whether a thread, a folder of ``/proc``, is held by SIGSTOP or gone (proc(5), field 3 of ``stat``)."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


class StoppableService:
    """A real service that a test kills and starts again on the same port and data."""

    def __init__(self, service: EmbeddedService) -> None:
        self._service = service
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return self._service.url

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._child = self._service.start()
        self._service.wait_ready(self._child, 20.0)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._child is not None
        self._child.kill()
        self._child.wait(5.0)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers once this has returned."""
        assert self._child is not None
        send(self._child.identity, signal.SIGSTOP)
        # The signal stops each thread when that thread is next scheduled, so one may answer after kill() returned.
        threads = list(Path(f"/proc/{self._child.identity.pid}/task").iterdir())
        assert eventually(lambda: all(is_stopped(thread) for thread in threads)), "the service did not stop"

    def resume(self) -> None:
        """SIGCONT."""
        assert self._child is not None
        send(self._child.identity, signal.SIGCONT)

    def stop(self) -> None:
        """End it for good."""
        if self._child is not None:
            self.resume()
            self._child.stop()


def own_broker(folder: Path, ack_wait_s: int = 5) -> StoppableService:
    """Return an embedded broker of a test's own, not started yet."""
    settings = EmbeddedSettings(mqtt_ack_wait_s=ack_wait_s)
    return StoppableService(mqtt_service(folder, free_port(), Credentials.load_or_create(folder), settings))


def own_valkey(folder: Path, max_memory_mb: int = 64) -> StoppableService:
    """Return an embedded Valkey of a test's own, not started yet."""
    settings = EmbeddedSettings(redis_max_memory_mb=max_memory_mb)
    return StoppableService(redis_service(folder, free_port(), Credentials.load_or_create(folder), settings))


def own_mosquitto(folder: Path, version: str = "5", saves: bool = False) -> StoppableService:
    """Return a Debian mosquitto of a test's own, not started yet; its URL asks for MQTT ``version``.

    It keeps its messages in memory, as saving makes it lag by seconds; ``saves``: as ``deploy/mosquitto.conf`` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} {LOOPBACK}\nallow_anonymous true\nuser root\n"
        + (
            f"persistence true\npersistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
            if saves
            else ""
        )
        + "max_inflight_messages 1000\nmax_queued_messages 100000\nlog_type error\n",
        encoding="utf-8",
    )
    program = MOSQUITTO if Path(MOSQUITTO).exists() else "mosquitto"
    return StoppableService(
        EmbeddedService(
            name="mosquitto",
            argv=(program, "-c", str(config)),
            url=f"mqtt://{LOOPBACK}:{port}?version={version}",
            port=port,
            log_path=folder / "mosquitto.log",
        )
    )


@dataclass
class Ingest:
    """A running ingest with its stores, on a topic root of its own."""

    mqtt_url: str
    redis_url: str
    engine: Engine
    root: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    settings: IngestSettings = field(default_factory=lambda: IngestSettings(tick_s=0.1, directory_s=0.2))
    mqtt: MqttSettings = field(default_factory=lambda: MqttSettings(keepalive_s=2))
    index: int = 0
    statuses: list[IngestStatus] = field(default_factory=list)
    num_wakes: int = 0
    service: IngestService | None = None
    stores: StoreWatch | None = None
    on_answers: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        # The checker looks past the circuit that it shares with the ingest in this process.
        self.stream = TelemetryStream(redis.Redis.from_url(self.redis_url, socket_timeout=5.0), TelemetrySettings())
        self.tree = TopicTree(self.root)

    def start(self, wait: bool = True) -> None:
        """Start the service; it keeps its client id over restarts."""
        self._service_stream = TelemetryStream.open(self.redis_url)
        self.service = IngestService(
            address=MqttAddress.parse(self.mqtt_url),
            topic_root=self.root,
            engine=self.engine,
            stream=self._service_stream,
            settings=self.settings,
            mqtt=replace(self.mqtt, client_id=f"ingest-{self.root}"),
            stores=self.stores,
            on_alerts=self._woken,
            on_tick=self.statuses.append,
            on_answers=self.on_answers,
            index=self.index,
        )
        self.service.start()
        if wait:
            assert eventually(self.is_connected), self.statuses[-1:]

    def stop(self) -> None:
        """Stop it; unacknowledged messages stay with the broker."""
        if self.service is not None:
            self.service.stop()
            self._service_stream.close()
            self.service = None

    def is_connected(self) -> bool:
        """Say whether the newest status reports a broker."""
        return bool(self.statuses) and self.statuses[-1].broker_connected

    def status(self) -> IngestStatus:
        """Return the newest status."""
        assert eventually(lambda: bool(self.statuses))
        return self.statuses[-1]

    def stored(self) -> list[Reading]:
        """Return all that lies in the stream."""
        return [entry.reading for entry in self.stream.history(1_000_000)]

    def stored_keys(self) -> list[Key]:
        """Return the keys of all that lies in the stream, repetitions included."""
        return [(r.device, r.boot_id, r.seq) for r in self.stored() if r.seq is not None]

    def _woken(self) -> None:
        self.num_wakes += 1


def make_engine(folder: Path) -> Engine:
    """Return an SQLite store with every table."""
    engine = open_engine(f"sqlite:///{folder}/floor.db")
    metadata.create_all(engine)
    return engine


class CountingDevice:
    """A device process as the promise sees it: what it sent, and what it was told is accepted."""

    def __init__(self, mqtt_url: str, root: str, name: str, in_flight: int = 50) -> None:
        self.name = name
        self.boot_id = uuid.uuid4().hex[:8]
        self._tree = TopicTree(root)
        self._connection: DeviceConnection[Key] = DeviceConnection(
            MqttAddress.parse(mqtt_url), f"{root}-{name}", in_flight=in_flight
        )
        self._seq = 0
        self._connection.start()
        assert self._connection.wait_connected(20.0)

    def send(self, timeout_s: float = 5.0, kind: TopicClass = TopicClass.TELEMETRY, **fields: object) -> bool:
        """Publish the next message; a reading unless ``kind`` says otherwise."""
        head = {"ts": int(time.time() * 1000), "boot_id": self.boot_id, "seq": self._seq}
        body = fields or {"values": {"value": float(self._seq)}}
        return self.send_raw(orjson.dumps(head | body), kind, timeout_s)

    def send_raw(self, payload: bytes, kind: TopicClass = TopicClass.TELEMETRY, timeout_s: float = 5.0) -> bool:
        """Publish any bytes under the next sequence number of the books."""
        topic = self._tree.build(kind, "demo", self.name)
        if not self._connection.publish(topic, payload, (self.name, self.boot_id, self._seq), timeout_s):
            return False
        self._seq += 1
        return True

    def send_again(self, seqs: Sequence[int], timeout_s: float = 5.0) -> None:
        """Publish readings under given numbers, as a device does that lost its PUBACKs or its order."""
        for seq in seqs:
            document = {"ts": int(time.time() * 1000), "boot_id": self.boot_id, "seq": seq, "values": {"value": 1.0}}
            topic = self._tree.build(TopicClass.TELEMETRY, "demo", self.name)
            sent = self._connection.publish(topic, orjson.dumps(document), (self.name, self.boot_id, seq), timeout_s)
            assert sent, "the broker does not accept"
            self._seq = max(self._seq, seq + 1)

    def next_seq(self) -> int:
        """Return the number of the next message."""
        return self._seq

    def send_for(self, seconds: float, per_second: float, stop: threading.Event | None = None) -> None:
        """Publish readings at a steady pace, whatever happens to the broker or to ingest."""
        started_s = time.monotonic()
        due = 0
        while (elapsed_s := time.monotonic() - started_s) < seconds and not (stop and stop.is_set()):
            # What the broker does not take now is not made up for later.
            wanted = int(elapsed_s * per_second)
            all(self.send(timeout_s=0.0) for _ in range(due, wanted))
            due = wanted
            time.sleep(0.005)

    def acknowledged(self) -> set[Key]:
        """Return what the broker has accepted."""
        return set(self._connection.acknowledged())

    def wait_all_acknowledged(self, timeout_s: float = 20.0) -> bool:
        """Wait until nothing is open."""
        return eventually(lambda: self._connection.num_open() == 0, timeout_s)

    def close(self) -> None:
        """Disconnect."""
        self._connection.stop()
