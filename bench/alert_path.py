"""Figures of the alert path: a device publishes over MQTT, a WebSocket client has it, the commit lies between.

``python -m bench.alert_path --json`` starts a floor as a user does and prints one line a case:
latency at 50 alerts a second, a burst, and the highest offered rate of a falling ladder that
holds with nothing lost; with the CPU time that each kind of process spends per alert, and the
median of an fdatasync of the disk beside them. ``repeated``: one device says the same again
and again (each is a row of the alert's history); ``new``: each alert is a problem of its own.
Once it is over, what the device was promised (PUBACK) is compared with the store's rows.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, cast

import uvloop
from sqlalchemy import func, select

from bench.fanout import by_kind, cpu_seconds
from bench.floor import expect, floor, said
from bench.raw_clients import RawClient, connect_all
from cluster.ports import LOOPBACK, free_port
from cluster.store import open_engine, read_transaction
from ingest.alerts.tables import alert_events
from ingest.device_mqtt import DeviceConnection
from ingest.mqtt_address import MqttAddress
from ingest.topics import TopicClass, TopicTree

BROKERS = ("nats", "mosquitto")
KINDS = ("repeated", "new")
LADDER = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2)
HOLD_S = 2.5
LATENCY_S = 4.0
BURST_S = 3.0
DRAIN_S = 25.0
IN_FLIGHT = 200
MESSAGE = "rack 7 inlet temperature above limit for 120 s " + "x" * 40


class Sent(NamedTuple):
    """What the device did."""

    began_ns: int
    took_s: float
    acknowledged: int
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alert_path", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per line (the only form)")
    parser.add_argument("--broker", choices=BROKERS, nargs="+", default=list(BROKERS), help="embedded, or Debian's")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS), help="what the alerts are")
    arguments = parser.parse_args()
    for broker in arguments.broker:
        with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder, _broker(broker, Path(folder)):
            data_dir = Path(folder) / "floor"
            with floor(data_dir, "--no-demo"):
                record = json.loads((data_dir / "floor.json").read_text())
                token = said("token", data_dir)
                for kind in arguments.kind:
                    uvloop.run(Bench(record, token, broker, kind, fdatasync_ms(data_dir)).run())


@contextlib.contextmanager
def _broker(name: str, folder: Path) -> Iterator[None]:
    """Run mosquitto, in memory, where it is asked for; the embedded broker is the floor's own."""
    if name == "nats":
        yield
        return
    port, config = free_port(), folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} {LOOPBACK}\nallow_anonymous true\npersistence false\nuser root\n"
        "max_inflight_messages 0\nmax_queued_messages 1000000\nlog_type error\n"
    )
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"
    process = subprocess.Popen([program, "-c", str(config)])
    os.environ["MQTT_URL"] = f"mqtt://{LOOPBACK}:{port}"
    try:
        yield
    finally:
        del os.environ["MQTT_URL"]
        process.terminate()
        process.wait(10)


class Bench:
    """One kind of alerts on one floor."""

    def __init__(self, record: dict[str, Any], token: str, broker: str, kind: str, fdatasync: float) -> None:
        self._record = record
        self._token = token
        self._common = {"bench": "alert_path", "broker": broker, "alerts": kind, "fdatasync_p50_ms": fdatasync}
        self._device = Device(record["urls"], kind)
        self._seq = 0
        self._promised = 0

    async def run(self) -> None:
        """Measure every case and print its line."""
        try:
            (self._client,) = await connect_all(self._record["url"], [{"token": self._token}])
            before = stored(self._record["urls"]["DATABASE_URL"])
            await self._case("warm_up", 100, 50, is_shown=False)
            await self._case("latency_50ps", int(50 * LATENCY_S), 50)
            pilot = await self._case("pilot", 4000, 0, is_shown=False)
            burst = await self._case("burst", int(BURST_S * pilot["alerts_per_s"]), 0)
            await self._sustained(burst["alerts_per_s"])
            rows = stored(self._record["urls"]["DATABASE_URL"]) - before
            print(json.dumps({**self._common, "case": "stored", "promised": self._promised, "rows": rows}), flush=True)
        finally:
            self._device.end()
            self._client.transport.abort()

    async def _sustained(self, top: float) -> None:
        for share in LADDER:
            rate = share * top
            found = await self._case("sustained", int(rate * HOLD_S), rate, is_shown=False)
            if not found["lost"] and found["p99_ms"] < 1000 and found["alerts_per_s"] > 0.95 * rate:
                print(json.dumps({**found, "offered_per_s": round(rate)}), flush=True)
                return
        expect(False, "no rate held")

    async def _case(self, name: str, count: int, rate: float, *, is_shown: bool = True) -> dict[str, Any]:
        self._seq += 10_000_000
        client = self._client
        client.expect(self._seq)
        RawClient.is_timing = True
        del RawClient.latencies_ns[:]
        before, own_s = cpu_seconds(self._record["floor_id"]), time.process_time()
        sent = await self._device.publish(count, rate, self._seq)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while client.num_messages < count and not client.is_lost:  # noqa: ASYNC110 - a look now and then is cheap
                    await asyncio.sleep(0.05)
        own_s = time.process_time() - own_s
        self._promised += sent.acknowledged
        spent = by_kind(before, cpu_seconds(self._record["floor_id"])) | {"device": sent.cpu_s, "client": own_s}
        times = sorted(RawClient.latencies_ns) or [0]
        found = {
            **self._common,
            "case": name,
            "alerts_per_s": round(client.num_messages / max(1e-9, (client.last_ns - sent.began_ns) / 1e9)),
            "p50_ms": round(times[len(times) // 2] / 1e6, 2),
            "p95_ms": round(times[len(times) * 95 // 100] / 1e6, 2),
            "p99_ms": round(times[len(times) * 99 // 100] / 1e6, 2),
            "sent": count,
            "acknowledged": sent.acknowledged,
            "lost": count - client.num_messages,
            "out_of_order": client.num_wrong,
            "cpu_us_per_alert": {
                kind: round(1e6 * s / count) for kind, s in sorted(spent.items(), key=lambda i: -i[1]) if s > 0.02
            },
            "load": round(os.getloadavg()[0], 1),
        }
        if is_shown:
            print(json.dumps(found), flush=True)
        return found


class Device:
    """The device, a process of its own."""

    def __init__(self, urls: dict[str, str], kind: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, urls["MQTT_URL"], urls["WATCHFLOOR_TOPIC_ROOT"], kind)
        self._process = context.Process(target=_publish_on_demand, args=arguments)
        self._process.start()

    async def publish(self, count: int, rate: float, first: int) -> Sent:
        """Have alerts numbered from ``first`` sent at ``rate`` a second; 0: as fast as the broker takes them."""
        self._pipe.send((count, rate, first))
        return Sent(*cast(Any, await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)))

    def end(self) -> None:
        """Let it end by itself."""
        self._pipe.send(None)
        self._process.join(30.0)


def _publish_on_demand(orders: Connection, mqtt_url: str, root: str, kind: str) -> None:
    connection: DeviceConnection[int] = DeviceConnection(
        MqttAddress.parse(mqtt_url), f"bench-{uuid.uuid4().hex[:8]}", in_flight=IN_FLIGHT, keeps_keys=False
    )
    connection.start()
    if not connection.wait_connected(10.0):
        sys.exit("the device cannot reach the broker")
    topic = TopicTree(root).build(TopicClass.ALERT, "bench", "device-0042")
    boot_id, dumps = uuid.uuid4().hex, json.dumps
    while (order := orders.recv()) is not None:
        count, rate, first = order
        done, cpu_s, began_ns = connection.num_acknowledged(), time.process_time(), time.monotonic_ns()
        for seq in range(first, first + count):
            if rate and (ahead_s := (seq - first) / rate - (time.monotonic_ns() - began_ns) / 1e9) > 0:
                time.sleep(ahead_s)
            alert = {
                "boot_id": boot_id,
                "seq": seq,
                "alert_type": f"temperature_high-{seq}" if kind == "new" else "temperature_high",
                "severity": "critical",
                "message": MESSAGE,
                "details": {"t": time.monotonic_ns(), "seq": seq},
            }
            connection.publish(topic, dumps(alert, separators=(",", ":")).encode(), seq, DRAIN_S)
        while connection.num_open():
            time.sleep(0.001)
        took_s = (time.monotonic_ns() - began_ns) / 1e9
        orders.send((began_ns, took_s, connection.num_acknowledged() - done, time.process_time() - cpu_s))
    connection.stop()


def stored(url: str) -> int:
    """Return how many events the store has."""
    engine = open_engine(url)
    with read_transaction(engine) as connection:
        count = connection.scalar(select(func.count()).select_from(alert_events))
    engine.dispose()
    return count or 0


def fdatasync_ms(folder: Path, times: int = 100) -> float:
    """Return the median time of an fdatasync of a page in ``folder``, in milliseconds."""
    found = []
    with (folder / "probe").open("wb") as file:
        for _ in range(times):
            file.write(bytes(4096))
            file.flush()
            started_s = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - started_s)
    return round(1000 * sorted(found)[times // 2], 2)


if __name__ == "__main__":
    main()
