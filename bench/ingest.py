"""Figures of ingest alone: real broker, real Valkey, one ingest, readings of about 200 bytes.

``python -m bench.ingest --json`` prints one line per broker. The readings lie in the broker
before the clock starts, so what is measured is ingest draining them into the durable stream
and not the publisher beside it on the same two cores. Then alerts one by one: from publish
to the commit with fsync.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

import ingest.alerts.tables  # noqa: F401  declares what the schema needs
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service, redis_service
from cluster.ports import LOOPBACK, free_port
from cluster.store import metadata, open_engine
from ingest.device_mqtt import DeviceConnection
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicClass, TopicTree

TREE = TopicTree("wf")
DEVICES = 500
CONNECTIONS = 4
BROKERS = ("nats", "mosquitto-3.1.1", "mosquitto-5")


def mosquitto_service(folder: Path, port: int, version: str) -> EmbeddedService:
    """Return Debian's mosquitto, in memory."""
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} {LOOPBACK}\nallow_anonymous true\nuser root\npersistence false\n"
        "max_inflight_messages 1024\nmax_queued_messages 10000000\nlog_type error\n",
        encoding="utf-8",
    )
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"
    url = f"mqtt://{LOOPBACK}:{port}?version={version}"
    return EmbeddedService("mosquitto", (program, "-c", str(config)), url, port, folder / "mosquitto.log")


@contextmanager
def services(broker: str, folder: Path) -> Any:
    """Run the broker and a Valkey; yield both URLs."""
    credentials, settings = Credentials.load_or_create(folder), EmbeddedSettings()
    made = (
        mqtt_service(folder, free_port(), credentials, settings)
        if broker == "nats"
        else mosquitto_service(folder, free_port(), broker.removeprefix("mosquitto-"))
    )
    valkey = redis_service(folder, free_port(), credentials, settings)
    children = [made.start(), valkey.start()]
    try:
        made.wait_ready(children[0], 15)
        valkey.wait_ready(children[1], 15)
        yield made.url, valkey.url
    finally:
        for child in children:
            child.stop()


def publish(url: str, count: int) -> float:
    """Put ``count`` readings into the broker over several connections; return readings/s accepted."""
    started_s = time.monotonic()

    def one(number: int) -> None:
        connection: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(url), f"bench-{number}", in_flight=1000)
        connection.start()
        connection.wait_connected(10.0)
        boot_id = uuid.uuid4().hex
        for seq in range(number, count, CONNECTIONS):
            device = f"device-{seq % DEVICES}"
            document = {
                "ts": int(time.time() * 1000),
                "boot_id": boot_id,
                "seq": seq,
                "values": {"temperature": 20.0 + seq % 7, "pressure": 1.013, "rpm": 1480.5, "vibration": 0.0123},
                "recorded_at": "2013-12-02T21:15:00Z",
            }
            topic = TREE.build(TopicClass.TELEMETRY, "bench", device)
            if not connection.publish(topic, orjson.dumps(document), seq, 30.0):
                raise RuntimeError("the broker does not take the load")
        connection.stop(30.0)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.monotonic() - started_s)


def measure(broker: str, count: int, num_alerts: int) -> dict[str, Any]:
    """Return the figures of one broker."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as name, services(broker, Path(name)) as (mqtt_url, redis_url):
        engine = open_engine(f"sqlite:///{name}/floor.db")
        metadata.create_all(engine)
        committed = threading.Event()

        def make() -> IngestService:
            return IngestService(
                address=MqttAddress.parse(mqtt_url),
                topic_root=TREE.root,
                engine=engine,
                stream=TelemetryStream.open(redis_url),
                settings=IngestSettings(),
                mqtt=MqttSettings(),
                on_alerts=committed.set,
                on_tick=lambda _status: None,
            )

        first = make()
        first.start()
        _wait(lambda: (status := first.status()) is not None and status.broker_connected)
        time.sleep(0.5)
        first.stop()  # from now on the broker keeps the session
        accepted_per_s = publish(mqtt_url, count)

        stream = TelemetryStream.open(redis_url)
        service = make()
        used, started_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        service.start()
        _wait(lambda: stream.total() >= count, 300.0)
        elapsed_s = time.monotonic() - started_s
        used_after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used_after.ru_utime + used_after.ru_stime - used.ru_utime - used.ru_stime
        latencies = _alerts(mqtt_url, committed, num_alerts)
        service.stop()
        return {
            "broker": broker,
            "readings": count,
            "broker_accepts_per_s": round(accepted_per_s),
            "drain_readings_per_s": round(count / elapsed_s),
            "cpu_us_per_reading": round(cpu_s / count * 1e6, 1),
            "rss_mb": round(used_after.ru_maxrss / 1024),
            "alert_commit_p50_ms": round(statistics.median(latencies) * 1000, 2),
            "alert_commit_p99_ms": round(sorted(latencies)[int(0.99 * len(latencies))] * 1000, 2),
            "fdatasync_p50_ms": round(_fdatasync_s(Path(name)) * 1000, 2),
        }


def _alerts(url: str, committed: threading.Event, count: int) -> list[float]:
    connection: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(url), "bench-alerts")
    connection.start()
    connection.wait_connected(10.0)
    latencies = []
    for seq in range(count):
        document = {"boot_id": "b1", "seq": seq, "alert_type": "leak", "severity": "high", "message": "Water"}
        committed.clear()
        started_s = time.perf_counter()
        connection.publish(TREE.build(TopicClass.ALERT, "bench", f"device-{seq}"), orjson.dumps(document), seq, 5.0)
        if not committed.wait(10.0):
            raise RuntimeError("an alert was not committed")
        latencies.append(time.perf_counter() - started_s)
        time.sleep(0.01)
    connection.stop()
    return latencies


def _fdatasync_s(folder: Path) -> float:
    times = []
    with (folder / "probe").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            file.flush()
            started_s = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def _wait(check: Callable[[], bool], within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not check():
        if time.monotonic() > give_up_at:
            raise RuntimeError("it did not happen in time")
        time.sleep(0.02)


def main() -> None:
    """Start what is needed, measure, print, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, help="only this one")
    parser.add_argument("--readings", type=int, default=60_000, help="readings per broker")
    parser.add_argument("--alerts", type=int, default=200, help="alerts per broker")
    parser.add_argument("--json", action="store_true", help="one line of JSON per broker (the only form)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    for broker in [options.broker] if options.broker else BROKERS:
        print(json.dumps({"bench": "ingest", **measure(broker, options.readings, options.alerts)}), flush=True)


if __name__ == "__main__":
    main()
