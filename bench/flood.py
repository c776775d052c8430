"""What a flood of progress does to urgent messages, from the call to the client.

``python -m bench.flood --json`` prints one line. One process moves progress bars of 200
runs as fast as it can, or at twice the pace that was measured as the most that arrives,
and sends ten critical messages a second beside it. Another, in this process, is a gateway
replica's feed with three clients that answer their pings. Without the flood and with it:
p50 and p99 of critical messages from call to client, how many of them are missing, and
how many runs' last progress value is the last one that was sent. All books must balance.
"""

import argparse
import asyncio
import json
import os
import threading
import time
from typing import Any

import ray

from bench.hub_floor import running_hub
from cluster.actors import prepare_to_serve
from realtime.hub_client import HubClient
from realtime.process_broadcaster import get_broadcaster
from serve_apps.auth import Authenticator, issue_token
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings

RUNS = 200
CRITICALS_S = 10
CLIENTS = 3
SECRET = b"s" * 32


class Publisher:
    """Floods from one thread and calls from another, as the threads of one worker do."""

    def __init__(self) -> None:
        self._broadcaster = get_broadcaster()
        self._broadcaster.broadcast_to_user("warm-up", "x", {})
        self._broadcaster.flush(30)

    def run(self, seconds: float, flood_s: float) -> dict[str, Any]:
        """Send critical messages for ``seconds``, beside ``flood_s`` values a second (0: none)."""
        ends_s = time.monotonic() + seconds
        flooded = [0]
        flooding = threading.Thread(target=self._flood, args=(ends_s, flood_s, flooded))
        if flood_s:
            flooding.start()
        criticals = 0
        due_s = time.monotonic()
        while time.monotonic() < ends_s:
            self._broadcaster.broadcast_to_user("ann", "critical_alert", {"n": criticals, "t": time.time()}, "critical")
            criticals += 1
            due_s += 1 / CRITICALS_S
            time.sleep(max(0.0, due_s - time.monotonic()))
        if flood_s:
            flooding.join()
            for run in range(RUNS):
                self._broadcaster.broadcast_task_progress(None, "train", 100.0, run_id=f"r{run}")
        self._broadcaster.flush(30)
        return {"criticals": criticals, "values": flooded[0], "seconds": seconds, "book": self._broadcaster.book()}

    def _flood(self, ends_s: float, flood_s: float, flooded: list[int]) -> None:
        began_s = time.monotonic()
        while (now_s := time.monotonic()) < ends_s:
            if flooded[0] > (now_s - began_s) * flood_s:
                time.sleep(0.001)
                continue
            for _ in range(20):
                number = flooded[0]
                self._broadcaster.broadcast_task_progress(
                    None,
                    "train",
                    (number // RUNS) % 100,
                    run_id=f"r{number % RUNS}",
                    data={"loss": 0.1, "step": number},
                )
                flooded[0] += 1


class Client:
    """A client that reads everything at once and answers its pings."""

    name = "websocket"

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.latencies_ms: list[float] = []
        self.numbers: list[int] = []
        self.last: dict[str, float] = {}
        self.values = 0
        self._pongs: set[asyncio.Task[None]] = set()

    def send_now(self, frame: Any) -> bool:
        self._take(frame.text)
        return True

    async def send(self, text: str) -> None:
        self._take(text)

    async def close(self, _code: CloseCode) -> None:
        """Nothing to close."""

    def _take(self, text: str) -> None:
        if text == "{}" and self.connection is not None:
            pong = asyncio.create_task(self.connection.on_text("{}"))
            self._pongs.add(pong)
            pong.add_done_callback(self._pongs.discard)
            return
        now_s = time.time()
        for line in text.split("\n"):
            data = json.loads(line).get("push", {}).get("pub", {}).get("data", {})
            if data.get("type") == "critical_alert":
                self.latencies_ms.append(1000 * (now_s - data["data"]["t"]))
                self.numbers.append(data["data"]["n"])
            elif data.get("type") == "task_progress":
                self.values += 1
                self.last[data["data"]["run_id"]] = data["data"]["progress"]


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


async def _open(register: Connections) -> Client:
    client = Client()
    client.connection = register.open(client)  # type: ignore[arg-type]
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["operator"], ttl_s=3600)
    await client.connection.on_text(json.dumps({"id": 1, "connect": {"token": token}}))
    for run in range(RUNS):
        await client.connection.on_text(json.dumps({"id": run + 2, "subscribe": {"channel": f"run:r{run}"}}))
    return client


async def _measure(hub: HubClient, publisher: Any, seconds: float) -> dict[str, Any]:
    settings = GatewaySettings(max_channels=RUNS + 10, command_burst=RUNS + 10)
    register = Connections(hub, Authenticator(SECRET, http_port=1, consume=_first_use), settings)
    clients = [await _open(register) for _ in range(CLIENTS)]

    async def phase(flood_s: float) -> dict[str, Any]:
        for client in clients:
            client.latencies_ms, client.numbers, client.values = [], [], 0
        sent = await publisher.run.remote(seconds, flood_s)
        await asyncio.sleep(1.0)
        latencies = sorted(latency for client in clients for latency in client.latencies_ms)
        return {
            "criticals": sent["criticals"],
            "missing": sum(sent["criticals"] - len(set(client.numbers)) for client in clients),
            "critical_p50_ms": round(latencies[len(latencies) // 2], 2),
            "critical_p99_ms": round(latencies[int(0.99 * len(latencies))], 2),
            "values_called_s": round(sent["values"] / sent["seconds"]),
            "values_arrived_s": round(clients[0].values / sent["seconds"]),
            "book": sent["book"],
        }

    await phase(0.0)  # warm-up
    unloaded = await phase(0.0)
    unbounded = await phase(1e9)
    capacity = unbounded["values_arrived_s"]
    flooded = await phase(2.0 * capacity)
    book = register.book()
    figures = {
        "capacity_s": capacity,
        "unloaded": {key: value for key, value in unloaded.items() if "critical" in key or key == "missing"},
        "as_fast_as_it_can": {key: value for key, value in unbounded.items() if key != "book"},
        "flooded": {key: value for key, value in flooded.items() if key != "book"},
        "p99_times": round(flooded["critical_p99_ms"] / unloaded["critical_p99_ms"], 2),
        "last_values": sum(client.last.get(f"r{run}") == 100.0 for client in clients for run in range(RUNS)),
        "last_values_wanted": CLIENTS * RUNS,
        "publisher": flooded["book"].to_json(),
        "gateway": book.to_json(),
    }
    for client in clients:
        assert client.connection is not None
        register.close(client.connection)
    await register.stop()
    return figures


def main() -> None:
    """Start a hub, measure, print, end it."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON (the only form)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase")
    options = parser.parse_args()
    with running_hub() as hub:
        prepare_to_serve()  # as a replica does
        publisher: Any = ray.remote(Publisher).options(num_cpus=0).remote()
        figures = asyncio.run(_measure(hub, publisher, options.seconds))
        print(json.dumps({"bench": "flood", **figures, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
