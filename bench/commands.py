"""Figures of commands: from the order to the device, and to the device's result in the store.

``python -m bench.commands --json`` prints one line per broker: commands one by one, then many at
a time to ten devices. Real broker, real Valkey, SQLite with fsync; desk, ingest and devices in
one process, the hub in memory. Checked: every device carried out each of its commands once.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ingest.alerts.tables
import ingest.command_tables  # noqa: F401  both declare what the schema needs
from bench.ingest import BROKERS, TREE, _fdatasync_s, _wait, services
from cluster.store import metadata, open_engine
from ingest.command import CommandOrder
from ingest.command_desk import CommandDesk
from ingest.command_store import CommandSettings
from ingest.device_mqtt import DeviceConnection
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.telemetry_redis import TelemetryStream
from realtime.hub_client import HubClient
from realtime.publication import Draft, StreamPosition

DEVICES = 10
LATENCY_COMMANDS = 200


class MemoryHub(HubClient):
    """Takes what it is given."""

    def __init__(self) -> None:
        pass

    def publish_sync(
        self,
        drafts: Sequence[Draft],
        timeout_s: float = 5.0,  # noqa: ARG002
        batch: str | None = None,  # noqa: ARG002
    ) -> list[StreamPosition]:
        return [StreamPosition("bench", number) for number in range(len(drafts))]


def measure(broker: str, count: int) -> dict[str, Any]:
    """Return the figures of one broker."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as name, services(broker, Path(name)) as (mqtt_url, redis_url):
        os.environ |= {"MQTT_URL": mqtt_url, "REDIS_URL": redis_url}
        address = MqttAddress.parse(mqtt_url)
        engine = open_engine(f"sqlite:///{name}/floor.db")
        metadata.create_all(engine)
        desk = CommandDesk(engine, MemoryHub(), TREE.root, CommandSettings(max_open_per_device=100_000))
        ended = threading.Semaphore(0)
        service = IngestService(
            address=address,
            topic_root=TREE.root,
            engine=engine,
            stream=TelemetryStream.open(redis_url),
            settings=IngestSettings(),
            mqtt=MqttSettings(),
            on_alerts=lambda: None,
            on_tick=lambda _status: None,
            on_answers=ended.release,
        )
        done: Counter[str] = Counter()
        arrived_s: dict[str, float] = {}

        def carry_out(payload: dict[str, Any]) -> str:
            arrived_s[payload["key"]] = time.perf_counter()
            done[payload["key"]] += 1
            return "done"

        devices: list[DeviceConnection[int]] = [
            DeviceConnection.for_device(address, TREE, "bench", f"d{number}", carry_out) for number in range(DEVICES)
        ]
        service.start()
        service.wait_subscribed(10.0)
        desk.start()
        for device in devices:
            device.start()
            device.wait_connected(10.0)

        def order(key: str, number: int) -> str:
            wanted = CommandOrder(
                tenant="bench", device=f"d{number % DEVICES}", payload={"key": key}, timeout_s=120.0, user_id="bench"
            )
            command = desk.store.create(wanted)
            desk.wake()
            return command.id

        reached, answered = [], []
        for number in range(LATENCY_COMMANDS):
            key, started_s = f"one-{number}", time.perf_counter()
            command_id = order(key, number)
            while not desk.store.get(command_id)[0].is_final:
                ended.acquire(timeout=10.0)
            answered.append(time.perf_counter() - started_s)
            reached.append(arrived_s[key] - started_s)
            time.sleep(0.01)
        started_s = time.perf_counter()
        ids = [order(f"many-{number}", number) for number in range(count)]
        ordered_s = time.perf_counter() - started_s
        _wait(lambda: sum(done.values()) >= LATENCY_COMMANDS + count, 120.0)
        _wait(lambda: desk.store.get(ids[-1])[0].is_final, 60.0)
        elapsed_s = time.perf_counter() - started_s
        _wait(lambda: all(desk.store.get(one)[0].is_final for one in ids), 60.0)
        desk.close()
        for device in devices:
            device.stop()
        service.stop()
        return {
            "broker": broker,
            "order_to_device_p50_ms": _ms(statistics.median(reached)),
            "order_to_result_p50_ms": _ms(statistics.median(answered)),
            "order_to_result_p99_ms": _ms(sorted(answered)[int(0.99 * len(answered))]),
            "commands": count,
            "orders_per_s": round(count / ordered_s),
            "commands_per_s": round(count / elapsed_s),
            "ok": sum(desk.store.get(one)[0].state == "ok" for one in ids),
            "carried_out_twice": sum(times > 1 for times in done.values()),
            "fdatasync_p50_ms": _ms(_fdatasync_s(Path(name))),
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def main() -> None:
    """Start what is needed, measure, print, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, help="only this one")
    parser.add_argument("--commands", type=int, default=1000, help="commands at a time, per broker")
    parser.add_argument("--json", action="store_true", help="one JSON line per broker")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    for broker in [options.broker] if options.broker else BROKERS:
        found = measure(broker, options.commands)
        print(json.dumps(found) if options.json else "\n".join(f"{name:24} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
