"""Figures of many idle clients: what each costs one replica and the proxy, and how fast they come back.

``python -m bench.idle --json`` prints one line. Ten thousand sockets are opened through HAProxy; those that
the limit of open files leaves no room for there (it is raised where that is allowed) go straight to the replica's
Unix socket, as HAProxy's own do. Memory is the proportional set size (proc(5) ``smaps_rollup``) of the replica and of
HAProxy before and after.
Then a thousand of them are cut, messages are broadcast meanwhile, and all thousand come back at
once: until each has answered that it recovered, with every message that it missed.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.books import settled_books
from bench.floor import expect, floor, said, usage
from bench.raw_clients import RawClient, connect_all
from bench.worker import GROUP, Worker
from serve_apps.ray_head import (
    HAPROXY_FILES_PER_CONNECTION,
    HAPROXY_FOLDER,
    HAPROXY_OTHER_FILES,
    max_connections,
)

CHANNEL = f"group:{GROUP}"
NUM_MISSED = 20
SETTLE_S = 3.0
REST_S = 60.0
OWN_FILES = 200
OTHERS = 100
"""Connections that are left for whoever asks for metrics meanwhile."""
KINDS = {"replica": "ray::ServeReplica:gateway:Gateway", "haproxy": "haproxy"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object (the only form)")
    parser.add_argument("--clients", type=int, default=10_000, help="idle sockets")
    parser.add_argument("--returning", type=int, default=1_000, help="sockets that are cut and come back at once")
    arguments = parser.parse_args()
    most = raise_file_limit(files_for(arguments.clients))
    count = min(arguments.clients, most - OWN_FILES)
    by_proxy = min(count, max_connections(most) - OTHERS)
    os.environ["WATCHFLOOR_GATEWAY_MAX_CONNECTIONS_PER_USER"] = str(count)  # all clients carry one token
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        data_dir = Path(folder)
        with floor(data_dir, "--no-demo"):
            record = json.loads((data_dir / "floor.json").read_text())
            token = said("token", data_dir, "--group", GROUP)
            figures = uvloop.run(measure(record, token, count, by_proxy, min(arguments.returning, by_proxy)))
    print(json.dumps({"bench": "idle", **figures}))


def files_for(clients: int) -> int:
    """Return how many open files let HAProxy, which needs most of them, take so many clients, and who asks beside."""
    return math.ceil((clients + OTHERS) * HAPROXY_FILES_PER_CONNECTION) + HAPROXY_OTHER_FILES


def raise_file_limit(wanted: int) -> int:
    """Let this process and those it starts open ``wanted`` files, or as many as it may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # only root may have more than its limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, wanted), max(hard, wanted)))
        return max(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def measure(record: dict[str, Any], token: str, count: int, by_proxy: int, num_returning: int) -> dict[str, Any]:
    worker = Worker(record["env"])
    try:
        await worker.ready()
        # The first clients make what all of them share.
        clients = await connect_all(record["url"], [{"token": token}] * min(50, by_proxy // 2))
        await asyncio.sleep(SETTLE_S)
        before, began_s = pss_kb(record["floor_id"]), time.monotonic()
        proxied = await connect_all(record["url"], [{"token": token}] * (by_proxy - len(clients)))
        direct: list[RawClient] = []
        if count > by_proxy:
            direct = await connect_all(record["url"], [{"token": token}] * (count - by_proxy), path=socket_of(record))
        connected_s = time.monotonic() - began_s
        await asyncio.sleep(SETTLE_S)
        after = pss_kb(record["floor_id"])
        grown_kb = {kind: after[kind] - before[kind] for kind in KINDS}
        clients += proxied + direct
        back_s = await come_back(record["url"], token, worker, clients, num_returning)
        return {
            "clients": len(clients),
            "through_haproxy": by_proxy,
            "connects_per_s": round((len(proxied) + len(direct)) / connected_s),
            "replica_kb_per_client": round(grown_kb["replica"] / (len(proxied) + len(direct)), 1),
            "haproxy_kb_per_client": round(grown_kb["haproxy"] / len(proxied), 1),
            "returning": num_returning,
            "all_recovered_s": round(back_s, 2),
            "missed_and_recovered": NUM_MISSED * num_returning,
            "others_cut": sum(client.is_lost for client in clients[num_returning:]),
            "books": await asyncio.to_thread(settled_books, record["url"]),
        }
    finally:
        worker.end()


async def come_back(url: str, token: str, worker: Worker, clients: list[RawClient], count: int) -> float:
    """Cut the first ``count`` clients, broadcast, connect them at once; returns seconds until all have everything."""
    for client in clients:
        client.expect(0)
    await worker.broadcast(1, 50, 0)
    async with asyncio.timeout(30):
        while any(not client.num_messages for client in clients):  # noqa: ASYNC110 - see bench.fanout
            await asyncio.sleep(0.05)
    requests = [{"token": token, "subs": {CHANNEL: position(client)}} for client in clients[:count]]
    for client in clients[:count]:
        client.transport.abort()
    await worker.broadcast(NUM_MISSED, 200, 1)
    began_s = time.monotonic()
    returned = await connect_all(url, requests, at_once=count)
    missed = []
    for client in returned:
        found = client.reply.result()["connect"]["subs"][CHANNEL]
        expect(found.get("recovered") is True, "a client was told that it lost something")
        missed.append([publication["data"]["data"]["seq"] for publication in found.get("publications", [])])
        expect(missed[-1] == list(range(1, len(missed[-1]) + 1)), f"a client recovered {missed[-1]}")
    # A replica that is busy with all others may stand where the client does: then the rest comes as news.
    async with asyncio.timeout(REST_S):
        while any(len(got) + client.num_messages < NUM_MISSED for got, client in zip(missed, returned, strict=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    back_s = time.monotonic() - began_s
    for got, client in zip(missed, returned, strict=True):
        expect(len(got) + client.num_messages == NUM_MISSED, "a client got a message twice")
        # What came as news is counted from the first one on, whose number it did not know.
        expect(client.num_wrong <= 1 and client.next_seq in (-1, NUM_MISSED + 1), "a client lacks a message")
    return back_s


def position(client: RawClient) -> dict[str, Any]:
    """Return where a client stands in the channel, as it asks to recover from there."""
    epoch = client.reply.result()["connect"]["subs"][CHANNEL]["epoch"]
    offset = int(re.findall(rb'"offset":(\d+)', client.last_text)[-1])
    return {"recover": True, "epoch": epoch, "offset": offset}


def socket_of(record: dict[str, Any]) -> Path:
    """Return where the only replica listens for HAProxy."""
    found = list((Path(record["socket_folder"]) / HAPROXY_FOLDER).glob("[0-9]*.sock"))
    expect(len(found) == 1, f"one replica's socket was expected, there are {found}")
    return found[0]


def pss_kb(floor_id: str) -> dict[str, float]:
    """Return the memory of the processes that hold client sockets."""
    found = usage(floor_id).values()
    return {
        kind: sum(1024 * pss_mb for name, pss_mb, _, _ in found if name == wanted) for kind, wanted in KINDS.items()
    }


if __name__ == "__main__":
    main()
