"""Figures of publishing from one process: what a broadcast call costs its caller, and what becomes of it.

``python -m bench.publish --json`` prints one line for each rate: the time that the caller
waits (p50, p99, worst), the share delivered, what was dropped and why, the publisher's
growth in memory, and its book, which must balance. A real Ray, hub and Valkey; one call in
a hundred is critical.
"""

import argparse
import json
import os
import time
from array import array
from pathlib import Path
from typing import Any

import ray

from bench.hub_floor import running_hub
from realtime.process_broadcaster import get_broadcaster

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CRITICAL_EVERY = 100
DATA = {"text": "x" * 80, "value": 0.123456, "device": "pump-7", "ids": [1, 2, 3, 4]}


class Publisher:
    """Calls at a pace, in a process of its own."""

    def __init__(self) -> None:
        self._broadcaster = get_broadcaster()
        self._broadcaster.broadcast_to_user("warm-up", "x", DATA)
        self._broadcaster.flush(30)

    def run(self, rate: int, seconds: float) -> dict[str, Any]:
        """Call ``rate`` times a second and tell how it went."""
        broadcaster, calls = self._broadcaster, int(rate * seconds)
        took_s, taken, criticals = array("d", bytes(8 * calls)), 0, 0
        before, rss_before = broadcaster.book(), resident_bytes()
        began_s = time.perf_counter()
        for number in range(calls):
            ahead_s = began_s + number / rate - time.perf_counter()
            if ahead_s > 0.0005:
                time.sleep(ahead_s)
            is_critical = number % CRITICAL_EVERY == 0
            called_s = time.perf_counter()
            is_taken = broadcaster.broadcast_to_user(
                number % 50, "task_complete", DATA, "critical" if is_critical else "normal"
            )
            took_s[number] = time.perf_counter() - called_s
            taken += is_taken
            criticals += is_taken and is_critical
        lasted_s = time.perf_counter() - began_s
        grown = resident_bytes() - rss_before
        broadcaster.flush(30)
        book = broadcaster.book()
        critical = [
            sum(count for line, count in one.settled.items() if line[1:3] == ("critical", "delivered"))
            for one in (before, book)
        ]
        ordered = sorted(took_s)
        delivered = book.num_settled("delivered") - before.num_settled("delivered")
        return {
            "rate": rate,
            "calls": calls,
            "calls_s": round(calls / lasted_s),
            "call_p50_ms": round(1000 * ordered[calls // 2], 4),
            "call_p99_ms": round(1000 * ordered[int(0.99 * calls)], 4),
            "call_p999_ms": round(1000 * ordered[int(0.999 * calls)], 4),
            "call_max_ms": round(1000 * ordered[-1], 3),
            "delivered_percent": round(100 * delivered / calls, 3),
            "critical_delivered": f"{critical[1] - critical[0]} of {-(-calls // CRITICAL_EVERY)}",
            "rss_grown_mb": round(grown / 1e6, 2),
            "dropped": broadcaster.health().dropped_by_reason,
            "book": book.to_json(),
        }


def resident_bytes() -> int:
    """Return the process's resident memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def main() -> None:
    """Start a hub, publish at each rate, print, end it."""
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line (the only form)")
    parser.add_argument("--short", action="store_true", help="a tenth of the time, to see that it works")
    parser.add_argument("--rates", type=int, nargs="*", default=[1_000, 5_000, 20_000])
    options = parser.parse_args()
    with running_hub() as hub:
        for rate in options.rates:
            publisher: Any = ray.remote(Publisher).options(num_cpus=0).remote()
            seconds = (60.0 if rate <= 1_000 else 10.0) / (10 if options.short else 1)
            before = ray.get(publisher.run.remote(200, 1.0))["book"]
            figures = ray.get(publisher.run.remote(rate, seconds))
            figures["cpus"], figures["load"] = os.cpu_count(), os.getloadavg()[0]
            print(
                json.dumps({"bench": "publish", "seconds": seconds, **figures, "warm_up": before["taken"]}), flush=True
            )
            ray.kill(publisher)
        del hub


if __name__ == "__main__":
    main()
