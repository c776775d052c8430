"""Simulated devices: the recorded series replayed over real MQTT, and a few devices that alarm.

``python -m ingest.simulate``. A process of its own that knows only the broker (and writes the
demo's entries into the device directory once). Speed and start are the same for every series
and are printed, so nobody has to wonder whether a series was chosen to look good. Devices
sample at their pace and transmit ten times a second, as loggers do: a message costs the
broker least when it comes with others. Invariant: a message that the broker does not take is
sent again later, under the same sequence number. They do as they are told, as far as they can:
``{"do": "identify"}`` and ``{"do": "restart"}``.
"""

import argparse
import heapq
import itertools
import logging
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Engine

from cluster.errors import ClusterError
from cluster.settings import Settings
from cluster.store import open_engine
from ingest import directory_csv, directory_import
from ingest.alerting_devices import TimedAlert, door_alerts, pump_alerts
from ingest.device_commands import CommandRefusedError
from ingest.device_mqtt import DeviceConnection
from ingest.mqtt_address import MqttAddress
from ingest.recorded import RecordedSeries, load_series, series_names
from ingest.replay import Replay
from ingest.topics import TopicClass, TopicTree

logger = logging.getLogger(__name__)

TENANT = "demo"
DIRECTORY_CSV = Path(__file__).parent / "data" / "demo_directory.csv"
CONNECT_TIMEOUT_S = 10.0
TRANSMIT_EVERY_S = 0.1
MAX_READINGS_AT_ONCE = 20
"""Of one device; a faster replay transmits more often."""
RETRY_S = 0.05
"""Pause of a device whose messages the broker does not take at the moment."""

MessageKey = tuple[str, str, int]
"""(device, boot_id, seq); alerts and readings of one device share the numbers here."""


class SimulatedDevice:
    """One device: its connection, its boot and its counter."""

    def __init__(self, address: MqttAddress, tree: TopicTree, device: str) -> None:
        self.name = device
        self.boot_id = uuid.uuid4().hex[:12]
        self.connection: DeviceConnection[MessageKey] = DeviceConnection.for_device(
            address, tree, TENANT, device, self._carry_out
        )
        self._is_restart_due = threading.Event()
        self._seq = 0
        self._telemetry = tree.build(TopicClass.TELEMETRY, TENANT, device)
        self._alert = tree.build(TopicClass.ALERT, TENANT, device)

    def send_reading(self, value: float, recorded_at: str) -> bool:
        """Publish one reading; False when the broker does not keep up."""
        return self._send(self._telemetry, {"values": {"value": value}, "recorded_at": recorded_at})

    def send_alert(self, alert: TimedAlert) -> bool:
        """Publish one alert; False when the broker does not keep up."""
        return self._send(self._alert, alert.fields)

    def _carry_out(self, payload: dict[str, Any]) -> str:
        """Do what a command says; on the thread that receives, beside the one that sends."""
        match payload.get("do"):
            case "identify":
                return f"{self.name} blinks; boot {self.boot_id}, {self._seq} messages"
            case "restart":
                self._is_restart_due.set()
                return "restarts with its next message"
            case _:
                raise CommandRefusedError('this device can do "identify" and "restart"')

    def _send(self, topic: str, fields: dict[str, object]) -> bool:
        if self._is_restart_due.is_set():
            self._is_restart_due.clear()
            self.boot_id, self._seq = uuid.uuid4().hex[:12], 0
        head = {"ts": int(time.time() * 1000), "boot_id": self.boot_id, "seq": self._seq}
        if not self.connection.publish(topic, orjson.dumps(head | fields), (self.name, self.boot_id, self._seq)):
            return False
        self._seq += 1
        return True


class ReplayedSeries:
    """One device's readings and when the next one is due."""

    def __init__(self, device: SimulatedDevice, series: RecordedSeries, replay: Replay, first_at_s: float) -> None:
        self.at_s = first_at_s
        self._device = device
        self._period_s = 1.0 / replay.speed
        self._points = _points(series, replay)
        self._held: tuple[str, float] | None = next(self._points)

    def fire(self) -> bool:
        """Send the point that is due; False when the series has ended."""
        if self._held is None:
            return False
        recorded_at, value = self._held
        now_s = time.monotonic()
        if self._device.send_reading(value, recorded_at):
            self._held = next(self._points, None)
            # After an outage a device goes on at its pace: what it would have measured meanwhile is not made up.
            self.at_s = max(self.at_s + self._period_s, now_s - 1.0)
        else:
            self.at_s = now_s + RETRY_S
        return True


class AlarmingDevice:
    """One device's alerts and when the next one is due."""

    def __init__(self, device: SimulatedDevice, alerts: Iterator[TimedAlert], started_s: float) -> None:
        self._device = device
        self._alerts = alerts
        self._started_s = started_s
        self._held = next(alerts)
        self.at_s = started_s + self._held.at_s

    def fire(self) -> bool:
        """Send the alert that is due; there is always a next one."""
        if self._device.send_alert(self._held):
            self._held = next(self._alerts)
            self.at_s = self._started_s + self._held.at_s
        else:
            self.at_s = time.monotonic() + RETRY_S
        return True


class Simulation:
    """All simulated devices of one process."""

    def __init__(self, address: MqttAddress, tree: TopicTree, series: Sequence[RecordedSeries], replay: Replay) -> None:
        self._replay = replay
        self._series = series
        alarming = ("door-3", "pump-7") if replay.has_alerts else ()
        self._devices = {
            name: SimulatedDevice(address, tree, name) for name in (*(one.device for one in series), *alarming)
        }

    def run(self, stop: threading.Event) -> None:
        """Publish at the set pace until ``stop``, or until every series has ended."""
        for device in self._devices.values():
            device.connection.start()
        if not all(device.connection.wait_connected(CONNECT_TIMEOUT_S) for device in self._devices.values()):
            logger.warning("the broker does not answer yet; the devices keep trying")
        # (moment, tie-breaker, source): the source that is due next comes first.
        due = [(source.at_s, number, source) for number, source in enumerate(self._sources(time.monotonic()))]
        heapq.heapify(due)
        every_s = min(TRANSMIT_EVERY_S, MAX_READINGS_AT_ONCE / self._replay.speed)
        while due and not stop.wait(every_s):
            now_s = time.monotonic()
            while due and due[0][0] <= now_s:
                _, number, source = due[0]
                if source.fire():
                    heapq.heapreplace(due, (source.at_s, number, source))
                else:
                    heapq.heappop(due)

    def num_acknowledged(self) -> int:
        """Return how many messages the broker has accepted. On the thread of ``run``, or after it."""
        return sum(device.connection.num_acknowledged() for device in self._devices.values())

    def close(self) -> None:
        """Let every device say goodbye, all at once."""
        threads = [threading.Thread(target=device.connection.stop) for device in self._devices.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10.0)

    def _sources(self, started_s: float) -> list[ReplayedSeries | AlarmingDevice]:
        period_s = 1.0 / self._replay.speed
        sources: list[ReplayedSeries | AlarmingDevice] = [
            ReplayedSeries(self._devices[one.device], one, self._replay, started_s + period_s) for one in self._series
        ]
        if self._replay.has_alerts:
            rng = random.Random(self._replay.seed)  # noqa: S311  a demo, not a secret
            sources += [
                AlarmingDevice(self._devices["door-3"], door_alerts(rng), started_s),
                AlarmingDevice(self._devices["pump-7"], pump_alerts(rng), started_s),
            ]
        return sources


def register_demo(engine: Engine) -> None:
    """Bring the demo's tenant, clients, supervisors and devices into the directory."""
    sheet = directory_csv.read(DIRECTORY_CSV.read_bytes())
    report = directory_import.load(engine, sheet, "watchfloor", time.time())
    assert not report.problems, report.problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation until a signal, or until every series has ended."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        replay = Replay(
            speed=options.speed, start=options.start, loops=not options.once, has_alerts=not options.no_alerts
        )
        settings = Settings.load()
        simulation = Simulation(
            MqttAddress.parse(settings.mqtt_url),
            TopicTree(settings.topic_root),
            [load_series(name) for name in options.series or series_names()],
            replay,
        )
        if settings.database_url:
            register_demo(open_engine(settings.database_url))
    except (ValueError, ClusterError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    print(
        f"replaying {len(options.series or series_names())} recorded series as devices of tenant {TENANT}: {replay}",
        flush=True,
    )
    simulation.run(stop)
    simulation.close()
    print(f"simulation ended; the broker accepted {simulation.num_acknowledged()} messages", flush=True)
    return 0


def _points(series: RecordedSeries, replay: Replay) -> Iterator[tuple[str, float]]:
    first = int(len(series.points) * replay.start)
    rest = series.points[first:]
    return itertools.chain(rest, itertools.cycle(series.points)) if replay.loops else iter(rest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingest.simulate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--speed", type=float, default=Replay().speed, help="readings per second and device (%(default)s)"
    )
    parser.add_argument("--start", type=float, default=Replay().start, help="fraction of every series to begin at")
    parser.add_argument("--once", action="store_true", help="do not begin again when a series ends")
    parser.add_argument("--no-alerts", action="store_true", help="leave out the devices that raise alerts")
    parser.add_argument("--series", action="append", choices=series_names(), help="replay only this one; repeatable")
    return parser


if __name__ == "__main__":
    sys.exit(main())
