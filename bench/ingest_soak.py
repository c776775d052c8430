"""Ingest for minutes on end: is memory flat, and is anything lost while nobody reads the stream?

``python -m bench.ingest_soak --json``: a device process (this one) publishes at a steady pace and
counts its PUBACKs; ingest and the consumers (detector and archiver) run in processes of their own
over a real broker and a real Valkey with the floor's bounds. First the consumers are up for
``--seconds``, then killed for ``--down`` seconds, then back until they have caught up. In the end
what this process was told is accepted is compared with what the stream has.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from bench.ingest import BROKERS, DEVICES, TREE, _fdatasync_s, _wait, services
from cluster import names
from cluster.clock import SystemClock
from cluster.store import metadata, open_engine
from ingest.archive import ArchiveSettings, ArchiveStore
from ingest.archiver import Archiver
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.device_mqtt import DeviceConnection
from ingest.errors import StoreUnavailableError
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicClass

SAMPLE_S = 5.0
SETTLE_S = 30.0
"""Caches fill in the first half minute; growth is counted from there."""


def run_ingest(mqtt_url: str, redis_url: str, folder: Path) -> None:
    """Be the ingest until SIGTERM."""
    service = IngestService(
        address=MqttAddress.parse(mqtt_url),
        topic_root=TREE.root,
        engine=open_engine(f"sqlite:///{folder}/floor.db"),
        stream=TelemetryStream.open(redis_url),
        settings=IngestSettings(),
        mqtt=MqttSettings(),
        on_alerts=lambda: None,
        on_tick=lambda _status: None,
    )
    service.start()
    signal.sigwait({signal.SIGTERM})
    service.stop()


def run_consumers(redis_url: str, folder: Path) -> None:
    """Be the detector and the archiver until the process is killed."""
    archive = ArchiveSettings()
    archiver = Archiver(
        TelemetryStream.open(redis_url), ArchiveStore((folder / "storage").as_uri()), archive, SystemClock()
    )
    detector = DetectorService(
        stream=TelemetryStream.open(redis_url),
        engine=open_engine(f"sqlite:///{folder}/floor.db"),
        settings=DetectorSettings(),
        clock=SystemClock(),
        on_events=lambda: None,
    )
    threading.Thread(target=_for_ever, args=(archiver.step,), daemon=True).start()
    _for_ever(detector.step)


def _for_ever(step: Callable[[], object]) -> None:
    while True:
        try:
            step()
        except StoreUnavailableError:
            time.sleep(0.1)


@contextmanager
def part(name: str, *arguments: str) -> Any:
    """Run one of the above as a process of its own; it is killed in the end."""
    process = subprocess.Popen([sys.executable, "-m", "bench.ingest_soak", "--part", name, *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


class Device:
    """Publishes at a pace and counts what it was told is accepted."""

    def __init__(self, url: str, per_second: float) -> None:
        self._connection: DeviceConnection[int] = DeviceConnection(
            MqttAddress.parse(url), "soak", in_flight=1000, keeps_keys=False
        )
        self._connection.start()
        self._connection.wait_connected(10.0)
        self._per_second = per_second
        self._boot_id = uuid.uuid4().hex
        self.sent = 0

    def run(self, seconds: float, sample: Any) -> None:
        """Publish for so long, and call ``sample`` now and then."""
        started_s, first, next_s = time.monotonic(), self.sent, 0.0
        while (elapsed_s := time.monotonic() - started_s) < seconds:
            while self.sent - first < elapsed_s * self._per_second:
                self._publish()
            if elapsed_s >= next_s:
                next_s += SAMPLE_S
                sample()
            time.sleep(0.002)

    def accepted(self) -> int:
        """Return how many PUBACKs there were, after the last one."""
        _wait(lambda: self._connection.num_open() == 0, 60.0)
        return self._connection.num_acknowledged()

    def stop(self) -> None:
        """Disconnect."""
        self._connection.stop()

    def _publish(self) -> None:
        document = {
            "ts": int(time.time() * 1000),
            "boot_id": self._boot_id,
            "seq": self.sent,
            "values": {"temperature": 20.0 + self.sent % 7, "pressure": 1.013, "rpm": 1480.5, "vibration": 0.0123},
        }
        topic = TREE.build(TopicClass.TELEMETRY, "bench", f"device-{self.sent % DEVICES}")
        if not self._connection.publish(topic, orjson.dumps(document), self.sent, 30.0):
            raise RuntimeError("the broker does not take the load")
        self.sent += 1


def measure(broker: str, per_second: float, seconds: float, down_s: float) -> dict[str, Any]:
    """Return the figures of one broker."""
    with tempfile.TemporaryDirectory(prefix="wf-soak-") as name, services(broker, Path(name)) as (mqtt_url, redis_url):
        folder = Path(name)
        engine = open_engine(f"sqlite:///{folder}/floor.db")
        metadata.create_all(engine)
        stream = TelemetryStream.open(redis_url)
        stream.check()
        with part("ingest", mqtt_url, redis_url, name) as ingest:
            time.sleep(5.0)
            device = Device(mqtt_url, per_second)
            samples: list[tuple[float, float, float, int]] = []
            began_s = time.monotonic()

            def sample() -> None:
                lag = stream.lag(names.DETECTOR_GROUP)
                samples.append((time.monotonic() - began_s, rss_mb(ingest.pid), stream.memory_ratio(), lag))

            with part("consumers", redis_url, name) as consumers:
                device.run(seconds, sample)
                if consumers.poll() is not None:
                    raise RuntimeError("the consumers ended by themselves")
            up = [one for one in samples if one[0] >= min(SETTLE_S, seconds / 2)]
            num_up = len(samples)
            device.run(down_s, sample)
            down = samples[num_up:]
            with part("consumers", redis_url, name):
                accepted = device.accepted()
                _wait(lambda: stream.total() >= accepted, 120.0)
                back_s = time.monotonic()
                _wait(lambda: stream.lag(names.DETECTOR_GROUP) == 0, 600.0)
                judged_s = time.monotonic() - back_s
                _wait(lambda: stream.lag(names.ARCHIVE_GROUP) == 0, 600.0)
                archived_s = time.monotonic() - back_s
            device.stop()
            return {
                "broker": broker,
                "per_second": per_second,
                "up_s": seconds,
                "down_s": down_s,
                "accepted": accepted,
                "stored": stream.total(),
                "lost": accepted - stream.total(),
                "ingest_rss_mb": [round(up[0][1], 1), round(up[-1][1], 1), round(max(one[1] for one in samples), 1)],
                "valkey_ratio_up": [round(up[0][2], 3), round(up[-1][2], 3)],
                "valkey_ratio_down": round(max(one[2] for one in down), 3),
                "lag_up_max": max(one[3] for one in up),
                "lag_down_max": max(one[3] for one in down),
                "judged_again_s": round(judged_s, 1),
                "archived_again_s": round(archived_s, 1),
                "fdatasync_p50_ms": round(_fdatasync_s(folder) * 1000, 2),
            }


def main() -> None:
    """Start what is needed, measure, print, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, default="mosquitto-5")
    parser.add_argument("--rate", type=float, default=1000.0, help="readings per second")
    parser.add_argument("--seconds", type=float, default=600.0, help="with the consumers up")
    parser.add_argument("--down", type=float, default=120.0, help="with the consumers killed")
    parser.add_argument("--json", action="store_true", help="one line of JSON (the only form)")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if options.part:
        name, *urls, folder = options.part
        if name == "ingest":
            # Before any thread exists: each inherits it, and sigwait below is the one who hears.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            run_ingest(*urls, folder=Path(folder))
        else:
            os.nice(5)
            run_consumers(*urls, folder=Path(folder))
        return
    found = measure(options.broker, options.rate, options.seconds, options.down)
    print(json.dumps({"bench": "ingest_soak", **found}), flush=True)


if __name__ == "__main__":
    main()
