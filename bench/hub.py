"""Figures of the hub alone: one publisher, one reader, a real Ray and a real Valkey.

``python -m bench.hub --json`` prints one line: latency of publish to poll at 100 messages
a second, and messages a second delivered with batches of 1 and of 32. No gateway, no
sockets; those are measured by the fan-out bench.
"""

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import ray

from bench.hub_floor import running_hub
from realtime.hub_client import HubClient
from realtime.publication import Draft

CHANNEL = "noc:all"
PAYLOAD_BYTES = 500


class Publisher:
    """Publishes from a process of its own; each payload begins with its time."""

    def __init__(self) -> None:
        self._hub = HubClient.connect()

    def paced(self, count: int, interval_s: float) -> None:
        due_s = time.perf_counter()
        for _ in range(count):
            due_s += interval_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            self._hub.publish_sync([_draft()])

    def flood(self, count: int, batch: int) -> float:
        started_s = time.perf_counter()
        for _ in range(count // batch):
            self._hub.publish_sync([_draft() for _ in range(batch)], timeout_s=30)
        return time.perf_counter() - started_s


def _draft() -> Draft:
    return Draft(CHANNEL, (b'{"t":%.6f,"x":"' % time.time()).ljust(PAYLOAD_BYTES - 2, b"x") + b'"}')


async def _receive(hub: HubClient, count: int) -> tuple[list[float], float]:
    """Return the latency of each of ``count`` publications in ms, and the seconds from first to last."""
    cursor = (await hub.poll(None)).cursor
    latencies: list[float] = []
    first_s = 0.0
    while len(latencies) < count:
        reply = await hub.poll(cursor, 20)
        assert not reply.gap, "the reader fell behind"
        cursor = reply.cursor
        now_s = time.time()
        if reply.publications and not latencies:
            first_s = time.perf_counter()
        latencies += [1000 * (now_s - float(publication.data[5:22])) for publication in reply.publications]
    return latencies, time.perf_counter() - first_s


async def _measure(hub: HubClient, publisher: Any, seconds: float) -> dict[str, float]:
    async def run(count: int, work: Any) -> tuple[list[float], float]:
        receiving = asyncio.create_task(_receive(hub, count))
        await asyncio.sleep(0.2)
        work()
        return await receiving

    await run(200, lambda: publisher.paced.remote(200, 0.005))  # warm-up
    paced = int(100 * seconds)
    latencies, _ = await run(paced, lambda: publisher.paced.remote(paced, 0.01))
    latencies.sort()
    _, single_s = await run(4_000, lambda: publisher.flood.remote(4_000, 1))
    _, batched_s = await run(96_000, lambda: publisher.flood.remote(96_000, 32))
    return {
        "paced_100_p50_ms": round(statistics.median(latencies), 2),
        "paced_100_p99_ms": round(latencies[int(0.99 * len(latencies))], 2),
        "batch_1_msg_s": round(4_000 / single_s),
        "batch_32_msg_s": round(96_000 / batched_s),
    }


def main() -> None:
    """Start what is needed, measure, print, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the paced part")
    parser.add_argument("--no-journal", action="store_true", help="hub without Valkey")
    parser.add_argument("--json", action="store_true", help="one line of JSON (the only form)")
    options = parser.parse_args()
    with running_hub(journal=not options.no_journal) as hub:
        publisher = ray.remote(Publisher).options(num_cpus=0).remote()
        figures = asyncio.run(_measure(hub, publisher, options.seconds))
        print(json.dumps({"bench": "hub", "journal": not options.no_journal, **figures}))


if __name__ == "__main__":
    main()
