"""What kill -9 of each part of the broadcast path costs: who is cut, for how long, and what is lost.

``python -m bench.recovery --json`` starts a floor without its demo, connects sockets behind
HAProxy, publishes at a steady pace from this process, and kills one part after the other;
one line for each. *Confirmed* is what the hub acknowledged to the publisher. The line says

- ``cut``: sockets that were lost; ``recovered``: the share of their subscriptions that came
  back with ``recovered: true``;
- ``back_p50_s``, ``back_max_s``: from the kill to a subscription that works again, of the cut
  ones; ``silence_s``: the longest time without a delivery, over all sockets;
- ``outage_s``: the longest time in which nothing was confirmed to the publisher;
- ``lost``: confirmed publications that a socket never got; ``doubled``, ``unordered``: given
  to a socket twice, or in another order; ``reused``: offsets of one epoch that carried two
  different publications.

The last line has the floor's books: their ``imbalance`` is what killed processes held (``docs/accounting.md``).
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.books import settled_books
from bench.floor import floor, said
from bench.subscriber import Subscriber
from cluster.process import find_marked

GROUP = "bench"
CHANNEL = f"group:{GROUP}"
USERS = 20
"""So that no user has more sockets than one may have."""
SETTLE_S = 2.0
GIVE_UP_S = 90.0
PUBLISH_TIMEOUT_S = 60.0

PARTS: Mapping[str, str] = {
    "gateway replica": r"ray::ServeReplica:gateway",
    "proxy": r"\S*haproxy ",
    "serve controller": r"ray::ServeController",
    # Ray writes the name of an actor's class, of its method, or of both into its title.
    "hub": r"ray::(hub:)?HubActor",
    "valkey": r"\S*valkey-server ",
}
"""What is killed -> how its command line begins."""


@dataclass(slots=True)
class Publisher:
    """Publishes numbers at a pace from a thread, and knows what was confirmed."""

    per_s: float
    publish: Callable[[int], tuple[str, int]]
    """Number -> its (epoch, offset), once confirmed."""
    confirmed: dict[int, tuple[str, int]] = field(default_factory=dict)
    moments: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PUBLISH_TIMEOUT_S + 5)

    def _run(self) -> None:
        number, due_s = 0, time.monotonic()
        while not self._stop.is_set():
            self.confirmed[number] = self.publish(number)
            self.moments.append(time.monotonic())
            number += 1
            # After an outage it goes on at its pace: what was not due is not made up.
            due_s = max(due_s + 1 / self.per_s, time.monotonic() - 1 / self.per_s)
            self._stop.wait(max(0.0, due_s - time.monotonic()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per line (the only form)")
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--per-s", type=float, default=20.0, help="publications per second")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="kill only this one; repeatable")
    parser.add_argument("--times", type=int, default=1, help="kills of each part")
    arguments = parser.parse_args()
    with running_floor() as record:
        for part in (arguments.part or list(PARTS)) * arguments.times:
            figures = asyncio.run(kill_under_load(record, part, arguments.sockets, arguments.per_s))
            print(json.dumps({"bench": "recovery", "killed": part, **figures}), flush=True)
        print(json.dumps({"bench": "recovery", "books": settled_books(record["url"])}), flush=True)


@contextmanager
def running_floor() -> Iterator[dict[str, Any]]:
    """A floor without its demo, of which this process is a driver; yields its record."""
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        data_dir = Path(folder) / "floor"
        with floor(data_dir, "--no-demo"):
            record: dict[str, Any] = json.loads((data_dir / "floor.json").read_text())
            os.environ |= record["env"]
            import ray

            from cluster import names

            ray.init(address=record["env"]["RAY_ADDRESS"], namespace=names.NAMESPACE, log_to_driver=False)
            try:
                yield record | {"data_dir": data_dir}
            finally:
                ray.shutdown()


async def kill_under_load(record: Mapping[str, Any], part: str, num_sockets: int, per_s: float) -> dict[str, Any]:
    """Kill one part between two spells of load and return what came of it."""
    url = record["url"].replace("http", "ws", 1) + "/connection/websocket"
    tokens = [
        said("token", record["data_dir"], "--user", f"bench-{number}", "--group", GROUP) for number in range(USERS)
    ]
    subscribers = [Subscriber(url, tokens[number % USERS]) for number in range(num_sockets)]
    tasks = [asyncio.create_task(one.run(), name="subscriber") for one in subscribers]
    publisher = Publisher(per_s, _publish_by_the_hub())
    try:
        async with asyncio.timeout(GIVE_UP_S):
            await asyncio.gather(*(one.is_open.wait() for one in subscribers))
        publisher.start()
        await asyncio.sleep(SETTLE_S)
        killed_s = time.monotonic()
        for pid in _pids(record["floor_id"], part):
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(SETTLE_S)
        await _until_all_are_back(subscribers)
        await asyncio.sleep(SETTLE_S)
        await asyncio.to_thread(publisher.stop)
        await _until_all_have(subscribers, publisher)
    finally:
        await asyncio.to_thread(publisher.stop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return _judge(subscribers, publisher, killed_s)


def _publish_by_the_hub() -> Callable[[int], tuple[str, int]]:
    from realtime.hub_client import HubClient
    from realtime.publication import Draft

    hub = HubClient.connect()

    def publish(number: int) -> tuple[str, int]:
        draft = Draft(CHANNEL, b'{"number":%d,"at":%.6f}' % (number, time.monotonic()))
        (position,) = hub.publish_sync([draft], PUBLISH_TIMEOUT_S)
        return position.epoch, position.offset

    return publish


def _pids(floor_id: str, part: str) -> list[int]:
    found = [one.pid for one in find_marked(floor_id) if re.match(PARTS[part], _command(one.pid))]
    if not found:
        raise RuntimeError(f"no process of the floor is its {part}")
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


async def _until_all_are_back(subscribers: Sequence[Subscriber]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        await asyncio.gather(*(one.is_open.wait() for one in subscribers))


async def _until_all_have(subscribers: Sequence[Subscriber], publisher: Publisher) -> None:
    last = max(publisher.confirmed)
    give_up_s = time.monotonic() + 15
    while time.monotonic() < give_up_s:
        if all(got and got[-1][2]["number"] >= last for got in (one.follows[CHANNEL].got for one in subscribers)):
            return
        await asyncio.sleep(0.1)


def _judge(subscribers: Sequence[Subscriber], publisher: Publisher, killed_s: float) -> dict[str, Any]:
    cut = [one for one in subscribers if any(moment >= killed_s for moment in one.cuts)]
    recoveries = [entry for one in cut for entry in one.recoveries if entry[0] >= killed_s]
    back_s = [max(moment for moment, _, _ in one.recoveries) - killed_s for one in cut if one.recoveries]
    owners: dict[tuple[str, int], set[int]] = {}
    lost = doubled = unordered = 0
    for one in subscribers:
        got = one.follows[CHANNEL].got
        numbers = [data["number"] for _, _, data in got]
        lost += len(publisher.confirmed.keys() - set(numbers))
        doubled += len(numbers) - len(set(numbers))
        unordered += sum(later < earlier for earlier, later in itertools.pairwise(numbers))
        for epoch, offset, data in got:
            owners.setdefault((epoch, offset), set()).add(data["number"])
    return {
        "sockets": len(subscribers),
        "published": len(publisher.confirmed),
        "cut": len(cut),
        "recovered": round(sum(entry[2] for entry in recoveries) / len(recoveries), 4) if recoveries else None,
        "back_p50_s": round(statistics.median(back_s), 2) if back_s else None,
        "back_max_s": round(max(back_s), 2) if back_s else None,
        "silence_s": round(max(_longest(one.follows[CHANNEL].arrived) for one in subscribers), 2),
        "outage_s": round(_longest(publisher.moments), 2),
        "lost": lost,
        "doubled": doubled,
        "unordered": unordered,
        "reused": sum(len(numbers) > 1 for numbers in owners.values()),
    }


def _longest(moments: Sequence[float]) -> float:
    return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)


if __name__ == "__main__":
    main()
