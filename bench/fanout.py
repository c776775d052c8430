"""Figures of the fan-out: one worker broadcasts, many WebSocket clients receive, through the whole floor.

``python -m bench.fanout --json`` prints one line a case: deliveries a second in a burst and
sustained (the highest offered rate of a falling ladder that holds with nothing lost), the
latency at 50 messages a second and at 80 % of the sustained rate, how many messages share a
frame, and deliveries per CPU second of the floor with all its processes (HAProxy, Serve, hub,
Valkey, Ray's own) and the worker. A line whose clients used up their core says so: there
the clients were the limit. The last line of each number of clients has the floor's books
(``docs/accounting.md``), whose ``imbalance`` is 0.
"""

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.books import settled_books
from bench.floor import expect, floor, name_of, said
from bench.raw_clients import RawClient, connect_all
from bench.worker import GROUP, Worker
from cluster.process import find_marked

LADDER = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3)
HOLD_S = 2.5
BURST_S = 3.0
BURST_MOST = 6_000
"""Fewer messages than a replica holds of one channel: a burst beyond it cuts clients off, as it should."""
DRAIN_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CLIENT_LIMIT = 0.9
"""Share of a core above which the clients are taken to be the limit."""


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
        self._worker = Worker(record["env"])
        self._seq = 0
        self._clients: list[RawClient] = []

    async def run(self) -> None:
        """Measure every case and print its line."""
        try:
            self._clients = await connect_all(self._record["url"], [{"token": self._token}] * self._num_clients)
            await self._worker.ready()
            await self._case("warm_up", 20, 50, is_shown=False)
            await self._case("latency_50ps", 150, 50)
            pilot = await self._case("pilot", min(BURST_MOST, max(100, 40_000 // self._num_clients)), 0, is_shown=False)
            count = min(BURST_MOST, int(BURST_S * pilot["deliveries_per_s"] / self._num_clients))
            burst = await self._case("burst", count, 0)
            held = await self._sustained(burst["deliveries_per_s"])
            rate = 0.8 * held / self._num_clients
            await self._case("at_80_percent", int(rate * HOLD_S), rate)
            books = await asyncio.to_thread(settled_books, self._record["url"])
            print(json.dumps({"bench": "fanout", "clients": self._num_clients, "case": "books", **books}), flush=True)
        finally:
            self._worker.end()
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
        RawClient.is_timing = rate > 0
        del RawClient.latencies_ns[:]
        before, own_s = cpu_seconds(self._record["floor_id"]), time.process_time()
        sent, began_ns, worker_s = await self._worker.broadcast(count, rate, self._seq)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                # Looked at now and then: to be woken by messages would cost the clients time.
                while any(one.num_messages < sent and not one.is_lost for one in self._clients):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        own_s = time.process_time() - own_s
        spent = by_kind(before, cpu_seconds(self._record["floor_id"])) | {"worker": worker_s}
        found = {"bench": "fanout", "clients": self._num_clients, "case": name}
        found |= self._figures(sent, began_ns, own_s, sum(spent.values()))
        if self._with_processes:
            found["cpu_s"] = {kind: round(s, 2) for kind, s in sorted(spent.items(), key=lambda i: -i[1]) if s > 0.02}
        if is_shown or self._with_processes:
            print(json.dumps(found), flush=True)
        return found

    def _figures(self, sent: int, began_ns: int, own_s: float, spent_s: float) -> dict[str, Any]:
        span_s = (max(one.last_ns for one in self._clients) - began_ns) / 1e9
        received = sum(one.num_messages for one in self._clients)
        frames = sum(one.num_frames for one in self._clients)
        times = sorted(RawClient.latencies_ns)
        return {
            "deliveries_per_s": round(received / span_s),
            "lost": sent * self._num_clients - received,
            "cut_off": sum(one.is_lost for one in self._clients),
            "out_of_order": sum(one.num_wrong for one in self._clients),
            "p50_ms": round(times[len(times) // 2] / 1e6, 2) if times else None,
            "p99_ms": round(times[len(times) * 99 // 100] / 1e6, 2) if times else None,
            "messages_per_frame": round(received / frames, 1),
            "frame_bytes": round(sum(one.num_bytes for one in self._clients) / frames),
            "deliveries_per_cpu_s": round(received / spent_s),
            "clients_were_limit": own_s > CLIENT_LIMIT * span_s,
            "client_cpu_s": round(own_s, 2),
            "span_s": round(span_s, 2),
        }


def cpu_seconds(floor_id: str) -> dict[tuple[int, str], float]:
    """Return the CPU seconds that each process of a floor has used, by its id and kind."""
    found = {}
    for one in find_marked(floor_id):
        try:
            stat = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
            argv = Path(f"/proc/{one.pid}/cmdline").read_text().rstrip("\0").split("\0")
        except OSError:
            continue  # it ended meanwhile
        # An actor's title ends with the method that it runs.
        kind = name_of(argv).partition(".")[0]
        found[one.pid, kind] = (int(stat[11]) + int(stat[12])) / TICKS_PER_S
    return found


def by_kind(before: dict[tuple[int, str], float], after: dict[tuple[int, str], float]) -> dict[str, float]:
    """Return the CPU seconds that each kind of process has used between two looks."""
    spent: dict[str, float] = {}
    for (pid, kind), seconds in after.items():
        spent[kind] = spent.get(kind, 0.0) + seconds - before.get((pid, kind), 0.0)
    return spent


if __name__ == "__main__":
    main()
