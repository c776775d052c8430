"""A worker of somebody's: a process of its own, in the floor's Ray, that broadcasts when it is told to."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple, cast

from bench.floor import expect

GROUP = "noc"
FILLER = {
    "source_id": "device-0042",
    "alert_type": "temperature_high",
    "severity": "critical",
    "message": "rack 7 inlet temperature above limit for 120 s " + "x" * 40,
    "client_id": 789,
}
"""Makes a message about 320 bytes long."""
FLUSH_S = 30.0
END_S = 30.0


class Sent(NamedTuple):
    """What a worker did."""

    count: int
    """Messages that its buffer took, numbered without a gap."""
    began_ns: int
    """``time.monotonic_ns`` before the first."""
    cpu_s: float


class Worker:
    """The process, as a bench holds it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_broadcast_on_demand, args=(theirs, dict(env)))
        self._process.start()

    async def ready(self) -> None:
        """Return when it is connected to the floor."""
        expect(await self._answer() == "ready", "the worker did not start")

    async def broadcast(self, count: int, rate: float, first: int) -> Sent:
        """Have messages numbered from ``first`` sent at ``rate`` a second; 0: as fast as the call returns."""
        self._pipe.send((count, rate, first))
        return Sent(*cast(tuple[int, int, float], await self._answer()))

    def end(self) -> None:
        """Let it end by itself."""
        self._pipe.send(None)
        self._process.join(END_S)

    async def _answer(self) -> object:
        return await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)


def _broadcast_on_demand(orders: Connection, env: Mapping[str, str]) -> None:
    os.environ.update(env)
    import ray

    from cluster import names
    from realtime.process_broadcaster import get_broadcaster

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
        broadcaster.flush(FLUSH_S)
        orders.send((sent, began_ns, time.process_time() - cpu_s))
    broadcaster.close()
