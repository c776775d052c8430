"""Load over real MQTT: seeded readings of many devices at a set rate, and the books of what was accepted.

``python -m ingest.generate --rate 500 --seconds 20``. Several connections, each acting as the
gateway of its devices, because one connection has one broker queue. Invariant: the accepted
keys are exactly those whose PUBACK arrived here.
"""

import argparse
import logging
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import orjson

from cluster.errors import ClusterError
from cluster.settings import Settings
from ingest.device_mqtt import DeviceConnection
from ingest.mqtt_address import MqttAddress
from ingest.signal_source import SignalShape, generate_points
from ingest.topics import TopicClass, TopicTree

TENANT = "load"
SLEEP_S = 0.002
SEND_TIMEOUT_S = 0.5

MessageKey = tuple[str, str, int]
"""(device, boot_id, seq)."""


class Gateway:
    """One connection and the devices behind it."""

    def __init__(
        self, address: MqttAddress, tree: TopicTree, name: str, devices: Sequence[str], seed: int, in_flight: int
    ) -> None:
        self.connection: DeviceConnection[MessageKey] = DeviceConnection(address, name, in_flight=in_flight)
        self._devices = devices
        self._topics = [tree.build(TopicClass.TELEMETRY, TENANT, device) for device in devices]
        self._points = [generate_points(seed, device, SignalShape()) for device in devices]
        self._boot_id = uuid.uuid4().hex[:12]
        self.num_sent = 0

    def run(self, rate: float, stop: threading.Event) -> None:
        """Publish ``rate`` readings per second, each device in turn, until ``stop``."""
        self.connection.start()
        started_s = time.monotonic()
        while not stop.is_set():
            if self.num_sent >= (time.monotonic() - started_s) * rate:
                stop.wait(SLEEP_S)
                continue
            if not self._send():
                # The broker does not keep up: the pace is lost, the readings are not sent later in a burst.
                started_s = time.monotonic() - self.num_sent / rate
        self.connection.stop(timeout_s=10.0)

    def _send(self) -> bool:
        seq, place = divmod(self.num_sent, len(self._devices))
        document = {
            "ts": int(time.time() * 1000),
            "boot_id": self._boot_id,
            "seq": seq,
            "values": {"value": next(self._points[place]).value},
        }
        key = (self._devices[place], self._boot_id, seq)
        if not self.connection.publish(self._topics[place], orjson.dumps(document), key, SEND_TIMEOUT_S):
            return False
        self.num_sent += 1
        return True


def generate(
    address: MqttAddress,
    tree: TopicTree,
    *,
    rate: float,
    seconds: float,
    num_devices: int,
    num_connections: int,
    seed: int,
    stop: threading.Event,
    in_flight: int = 200,
) -> set[MessageKey]:
    """Publish for ``seconds`` (0: until ``stop``) and return what the broker accepted."""
    gateways = [
        Gateway(
            address,
            tree,
            f"load-{seed}-{number}",
            [f"load-{device}" for device in range(number, num_devices, num_connections)],
            seed,
            in_flight,
        )
        for number in range(num_connections)
    ]
    threads = [threading.Thread(target=gateway.run, args=(rate / num_connections, stop)) for gateway in gateways]
    for thread in threads:
        thread.start()
    stop.wait(seconds or None)
    stop.set()
    for thread in threads:
        thread.join()
    return set().union(*(gateway.connection.acknowledged() for gateway in gateways))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load from the command line."""
    parser = argparse.ArgumentParser(prog="python -m ingest.generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=500.0, help="readings per second, all devices together")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long; 0: until a signal")
    parser.add_argument("--devices", type=int, default=20, help="simulated devices")
    parser.add_argument("--connections", type=int, default=4, help="MQTT connections they share")
    parser.add_argument("--seed", type=int, default=1, help="of the signals and their faults")
    parser.add_argument("--accepted", type=Path, help="write the accepted (device, boot_id, seq) there, as JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if options.rate <= 0 or not 1 <= options.connections <= options.devices:
        parser.error("--rate must be positive and --connections between 1 and --devices")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.load()
        address = MqttAddress.parse(settings.mqtt_url)
    except ClusterError as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    started_s = time.monotonic()
    accepted = generate(
        address,
        TopicTree(settings.topic_root),
        rate=options.rate,
        seconds=options.seconds,
        num_devices=options.devices,
        num_connections=options.connections,
        seed=options.seed,
        stop=stop,
    )
    elapsed_s = time.monotonic() - started_s
    if options.accepted is not None:
        options.accepted.write_bytes(orjson.dumps(sorted(accepted)))
    print(f"the broker accepted {len(accepted)} readings in {elapsed_s:.1f} s ({len(accepted) / elapsed_s:.0f}/s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
