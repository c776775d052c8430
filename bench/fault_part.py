"""One part of a floor as a plain process, for the fault matrix: ``python -m bench.fault_part ingest|detector``.

Settings come from the environment. It writes one JSON line every 50 ms: when (monotonic
seconds), what its service says of itself, and how many broadcasts it woke. A line
``clock N`` on stdin moves this process's wall clock by N seconds, as a bad time server does.
"""

import dataclasses
import json
import sys
import threading
import time

from cluster.clock import SystemClock
from cluster.settings import Settings
from cluster.store import open_engine
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.ingest_status import IngestStatus
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream

STATEMENT_TIMEOUT_S = 1.0
TICK_S = 0.05
PAUSE_S = 0.1


def say(status: object) -> None:
    """Write one line, at once."""
    print(json.dumps({"at": time.monotonic(), **dataclasses.asdict(status)}), flush=True)  # type: ignore[call-overload]


def run_ingest(settings: Settings, stop: threading.Event) -> None:
    """Run a whole ingest."""

    def on_tick(status: IngestStatus) -> None:
        say(status)

    service = IngestService(
        address=MqttAddress.parse(settings.mqtt_url),
        topic_root=settings.topic_root,
        engine=open_engine(settings.database_url, statement_timeout_s=STATEMENT_TIMEOUT_S),
        stream=TelemetryStream.open(settings.redis_url),
        settings=IngestSettings(tick_s=TICK_S, directory_s=1.0),
        mqtt=MqttSettings(client_id=f"ingest-{settings.topic_root}", keepalive_s=2, connect_timeout_s=2.0),
        on_alerts=lambda: None,
        on_tick=on_tick,
    )
    service.start()
    stop.wait()
    service.stop()


def run_detector(settings: Settings, stop: threading.Event) -> None:
    """Run a detector as its actor does: a failed turn is begun again."""
    service = DetectorService(
        stream=TelemetryStream.open(settings.redis_url),
        engine=open_engine(settings.database_url, statement_timeout_s=STATEMENT_TIMEOUT_S),
        settings=DetectorSettings(),
        clock=SystemClock(),
        on_events=lambda: None,
    )
    while not stop.is_set():
        try:
            service.step()
            service.problem = None
        except Exception as error:
            service.problem = str(error)
            stop.wait(PAUSE_S)
        say(service.status())


def obey(stop: threading.Event) -> None:
    """Move the clock as told; end with the end of stdin."""
    true_time = time.time
    for line in sys.stdin:
        offset_s = float(line.split()[1])
        time.time = lambda offset_s=offset_s: true_time() + offset_s
    stop.set()


def run(part: str) -> None:
    """Run one part until stdin ends."""
    stop = threading.Event()
    threading.Thread(target=obey, args=(stop,), daemon=True).start()
    {"ingest": run_ingest, "detector": run_detector}[part](Settings.load(), stop)


if __name__ == "__main__":
    run(sys.argv[1])
