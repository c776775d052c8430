"""Figures of the fan-out: one worker broadcasts, many WebSocket clients receive, through the whole floor.

``python -m bench.fanout --json`` prints one line a case: deliveries a second in a burst and
sustained (the highest offered rate of a falling ladder that holds with nothing lost), the
latency at 50 messages a second and at 80 % of the sustained rate, how many messages share a
frame, and deliveries per CPU second of the floor with all its processes (HAProxy, Serve, hub,
Valkey, Ray's own) and the worker. A line whose clients used up their core says so: there
the clients were the limit.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from bench.floor import expect, floor, name_of, said
from bench.raw_clients import Subscriber, connect_all
from cluster.process import find_marked

GROUP = "noc"
LADDER = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3)
HOLD_S = 2.5
DRAIN_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLIENT_LIMIT = 0.9
"""Share of a core above which the clients are taken to be the limit."""
FILLER = {
    "source_id": "device-0042",
    "alert_type": "temperature_high",
    "severity": "critical",
    "message": "rack 7 inlet temperature above limit for 120 s " + "x" * 40,
    "client_id": 789,
}
"""Makes a message about 320 bytes long."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per line (the only form)")
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 500], help="numbers of clients to measure")
    parser.add_argument("--processes", action="store_true", help="CPU seconds of each kind of process as well")
    arguments = parser.parse_args()
    os.environ["WATCHFLOOR_GATEWAY_MAX_CONNECTIONS_PER_USER"] = "10000"  # all clients carry one token
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        data_dir = Path(folder)
        with floor(data_dir, "--no-demo"):
            record = json.loads((data_dir / "floor.json").read_text())
            token = said("token", data_dir, "--group", GROUP)
            for count in arguments.clients:
                bench = Bench(record, token, count, with_processes=arguments.processes)
                uvloop.run(bench.run())


class Bench:
    """One number of clients, and the worker that broadcasts to them."""

    def __init__(self, record: dict[str, Any], token: str, num_clients: int, *, with_processes: bool) -> None:
        self._record = record
        self._token = token
        self._num_clients = num_clients
        self._with_processes = with_processes
        self._seq = 0
        self._clients: list[Subscriber] = []

    async def run(self) -> None:
        """Measure every case and print its line."""
        context = multiprocessing.get_context("spawn")
        self._worker, theirs = context.Pipe()
        worker = context.Process(target=broadcast_on_demand, args=(theirs, self._record["env"]))
        worker.start()
        try:
            self._clients = await connect_all(self._record["url"], self._num_clients, [{"token": self._token}])
            expect(await self._answer() == "ready", "the worker did not start")
            await self._case("warm_up", 20, 50, is_shown=False)
            await self._case("latency_50ps", 150, 50)
            pilot = await self._case("pilot", max(100, 40_000 // self._num_clients), 0, is_shown=False)
            burst = await self._case("burst", int(3 * pilot["deliveries_per_s"] / self._num_clients), 0)
            held = await self._sustained(burst["deliveries_per_s"])
            rate = 0.8 * held / self._num_clients
            await self._case("at_80_percent", int(rate * HOLD_S), rate)
        finally:
            self._worker.send(None)
            worker.join(30)
            for client in self._clients:
                client.transport.abort()

    async def _sustained(self, top: float) -> float:
        for share in LADDER:
            rate = share * top / self._num_clients
            found = await self._case(f"sustained_{share:.2f}", int(rate * HOLD_S), rate, is_shown=False)
            if not found["lost"] and found["p99_ms"] < 1000 and found["deliveries_per_s"] > 0.95 * share * top:
                print(json.dumps({**found, "case": "sustained"}), flush=True)
                return share * top
        expect(False, "no rate held")
        return 0.0

    async def _case(self, name: str, count: int, rate: float, *, is_shown: bool = True) -> dict[str, Any]:
        self._seq += 10_000_000
        for client in self._clients:
            client.expect(self._seq)
        Subscriber.is_timing = rate > 0
        del Subscriber.latencies_ns[:]
        before, own_s = cpu_by_kind(self._record["floor_id"]), time.process_time()
        self._worker.send((count, rate, self._seq))
        sent, began_ns, worker_s = await self._answer()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                # Looked at now and then: to be woken by messages would cost the clients time.
                while any(one.num_messages < sent for one in self._clients):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        own_s = time.process_time() - own_s
        cpu = cpu_by_kind(self._record["floor_id"])
        spent = {kind: seconds - before.get(kind, 0.0) for kind, seconds in cpu.items()}
        spent["worker"] = worker_s
        span_s = (max(one.last_ns for one in self._clients) - began_ns) / 1e9
        received = sum(one.num_messages for one in self._clients)
        frames = sum(one.num_frames for one in self._clients)
        times = sorted(Subscriber.latencies_ns)
        found: dict[str, Any] = {
            "bench": "fanout",
            "clients": self._num_clients,
            "case": name,
            "deliveries_per_s": round(received / span_s),
            "lost": sent * self._num_clients - received,
            "out_of_order": sum(one.num_wrong for one in self._clients),
            "p50_ms": round(times[len(times) // 2] / 1e6, 2) if times else None,
            "p99_ms": round(times[len(times) * 99 // 100] / 1e6, 2) if times else None,
            "messages_per_frame": round(received / frames, 1),
            "frame_bytes": round(sum(one.num_bytes for one in self._clients) / frames),
            "deliveries_per_cpu_s": round(received / sum(spent.values())),
            "clients_were_limit": own_s > CLIENT_LIMIT * span_s,
            "client_cpu_s": round(own_s, 2),
            "span_s": round(span_s, 2),
        }
        if self._with_processes:
            found["cpu_s"] = {kind: round(s, 2) for kind, s in sorted(spent.items(), key=lambda i: -i[1]) if s > 0.02}
        if is_shown or self._with_processes:
            print(json.dumps(found), flush=True)
        return found

    async def _answer(self) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, self._worker.recv)


def broadcast_on_demand(orders: Connection, env: dict[str, str]) -> None:
    """Be the worker: a Ray driver that broadcasts as many messages as it is told, at a rate or as fast as it can."""
    os.environ.update(env)
    import ray

    from cluster import names
    from realtime.broadcaster import get_broadcaster

    ray.init(namespace=names.NAMESPACE, log_to_driver=False)
    broadcaster = get_broadcaster()
    orders.send("ready")
    while (order := orders.recv()) is not None:
        count, rate, first = order
        cpu_s, began_ns = time.process_time(), time.monotonic_ns()
        sent = 0
        for number in range(count):
            if rate and (ahead_s := number / rate - (time.monotonic_ns() - began_ns) / 1e9) > 0:
                time.sleep(ahead_s)
            message = {"t": time.monotonic_ns(), "seq": first + sent, **FILLER}
            sent += broadcaster.broadcast_to_group(GROUP, "critical_alert", message)
        broadcaster.flush(30.0)
        orders.send((sent, began_ns, time.process_time() - cpu_s))
    broadcaster.close()


def cpu_by_kind(floor_id: str) -> dict[str, float]:
    """Return the CPU seconds that each kind of process of a floor has used."""
    found: dict[str, float] = {}
    for one in find_marked(floor_id):
        try:
            stat = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
            argv = Path(f"/proc/{one.pid}/cmdline").read_text().rstrip("\0").split("\0")
        except OSError:
            continue  # it ended meanwhile
        kind = name_of(argv)
        found[kind] = found.get(kind, 0.0) + (int(stat[11]) + int(stat[12])) / TICKS_PER_S
    return found


if __name__ == "__main__":
    main()
