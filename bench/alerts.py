"""Figures of ten thousand open alerts: pages of the list, searches, and one action on five thousand.

``python -m bench.alerts --json`` prints one line for each store: SQLite in a file with
``synchronous=FULL``, and PostgreSQL if ``DATABASE_URL`` names one (its tables are emptied).
The gateway's app on a real socket, a real hub, the callers in a process of their own.
*Told* is when the hub had confirmed the message of the whole action; *publications* counts
those on ``noc:all``, of which there should be one.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from sqlalchemy import Engine, select

from bench.disk import fdatasync_p50_ms
from bench.hub_floor import running_hub
from cluster import migrate, names
from cluster.actors import prepare_to_serve
from cluster.clock import SystemClock
from cluster.ports import LOOPBACK, free_port
from cluster.settings import Settings
from cluster.store import open_engine, read_transaction, write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.model import Evidence, Severity
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.tables import alert_events, alerts, heartbeats, silences
from ingest.detector import Decision
from ingest.episode import Change
from ingest.payload import DeviceAlert
from ingest.windows import SeriesKey
from realtime.hub_client import HubClient
from serve_apps.app import create_app
from serve_apps.auth import Authenticator, issue_token
from serve_apps.deps import GatewayDeps

SECRET = b"b" * 32
BULK = 5000
EVIDENCE_EVERY = 3
"""One alert in so many is a detector's, with the readings that it was judged by."""
POINTS = 200
WARM_UP = 5
"""Calls of each list that do not count: the first ones compile statements."""
SEVERITIES = ("critical", "high", "warning", "warning", "low")
LISTS = {
    "page_100_worst": "/api/v1/alerts?handling=new&order=worst&limit=100",
    "page_500_newest": "/api/v1/alerts?handling=new&limit=500",
    "filtered_100": "/api/v1/alerts?condition=firing&severity=critical&severity=high&suppressed=false&order=worst",
    "search_common": "/api/v1/alerts?q=valve&limit=100",
    "search_rare": "/api/v1/alerts?q=pump-4711&limit=100",
}

Answers = dict[str, Any]


def fill(engine: Engine, count: int) -> None:
    """Raise ``count`` alerts, each a problem of its own."""
    writer = AlertEngine(engine, SystemClock())
    now = time.time()
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        with write_transaction(engine) as connection:
            writer.raise_device_alerts([_from_device(n, now) for n in numbers if n % EVIDENCE_EVERY], connection)
            writer.raise_detector_alerts([_decision(n, now) for n in numbers if not n % EVIDENCE_EVERY], connection)


def _from_device(number: int, now: float) -> DeviceAlert:
    return DeviceAlert(
        tenant="bench",
        device=f"pump-{number}",
        boot_id="b1",
        seq=number,
        ts=now - number / 100,
        alert_type="valve_stuck" if number % 2 else "pressure_low",
        severity=Severity(SEVERITIES[number % len(SEVERITIES)]),
        message=f"The valve of line {number % 40} does not close",
        received_at=now,
        value=float(number),
        labels={"line": str(number % 40)},
    )


def _decision(number: int, now: float) -> Decision:
    points = tuple((now - POINTS + at, 20.0 + at % 7, 1.0, None) for at in range(POINTS))
    return Decision(
        change=Change.RAISE,
        key=SeriesKey("bench", f"pump-{number}", "temperature"),
        reading_key=f"raise:bench/pump-{number}/temperature:b1/{number}",
        ts=now - number / 100,
        recorded_at=None,
        value=20.5,
        score=9.0,
        threshold=7.0,
        severity=Severity(SEVERITIES[number % len(SEVERITIES)]),
        text="lower than 99.9 % of its history",
        count=1,
        model="ar-baseline",
        model_version="1",
        evidence=Evidence("temperature", points, 7.0, now - POINTS, now),
    )


@contextmanager
def gateway(engine: Engine, hub: HubClient, folder: Path) -> Iterator[int]:
    """Serve the app on a port of its own, and relay what it commits."""
    port = free_port()
    relay = Relay(engine, hub)
    relay.start()
    deps = SimpleNamespace(
        settings=Settings(http_port=port, data_dir=str(folder)),
        engine=engine,
        hub=hub,
        auth=Authenticator(SECRET, http_port=port, consume=lambda *_: None),
        relay=relay,
        alerts=AlertSettings(),
    )
    server = uvicorn.Server(
        uvicorn.Config(create_app(cast(GatewayDeps, deps)), host=LOOPBACK, port=port, log_level="error")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait(lambda: server.started)
        prepare_to_serve()  # as a replica does
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        relay.close()


def calls(port: int, rounds: int, ids: list[str], hears: "Hears") -> None:
    """Ask for every list ``rounds`` times and act twice; in a process of its own."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["operator"], ttl_s=600)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)

    def call(method: str, path: str, body: Any = None) -> tuple[float, Answers]:
        content = None if body is None else json.dumps(body)
        began_s = time.perf_counter()
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read()
        took_s = time.perf_counter() - began_s
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return took_s, json.loads(text)

    for name, path in LISTS.items():
        took, cursor = [], None
        for number in range(-WARM_UP, rounds):
            took_s, page = call("GET", path + (f"&cursor={cursor}" if cursor else ""))
            if number >= 0:
                took.append(took_s)
            cursor = page["next_cursor"]
            time.sleep(0.005)
        hears.put((name, took))
    for name, body in (
        ("acknowledge", {"action": "acknowledge", "ids": ids}),
        ("acknowledge_again", {"action": "acknowledge", "ids": ids}),
        ("note_by_filter", {"action": "note", "filter": {"handling": "acked"}, "args": {"text": "seen"}}),
    ):
        asked_at = time.time()
        took_s, answer = call("POST", "/api/v1/alerts/actions", body)
        hears.put((name, {"ms": took_s * 1000, "count": answer["count"], "asked_at": asked_at}))
        time.sleep(2)
    asked_at = time.time()
    silence = {"matchers": [{"field": "rule", "values": ["valve_*", "anomaly"]}], "for_s": 600, "comment": "bench"}
    took_s, answer = call("POST", "/api/v1/silences", silence)
    hears.put(("silence", {"ms": took_s * 1000, "count": answer["changed"], "asked_at": asked_at}))
    hears.put(None)


Hears = multiprocessing.Queue  # what the callers tell


def measure(url: str, hub: HubClient, folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Fill a store, call, and return the figures."""
    migrate.upgrade(url)
    engine = open_engine(url)
    with write_transaction(engine) as connection:
        for table in (alert_events, alerts, silences, heartbeats):
            connection.execute(table.delete())
    fill(engine, count)
    with write_transaction(engine) as connection:  # what filled the store is not told
        connection.execute(alert_events.update().values(broadcast_at=time.time()))
    with read_transaction(engine) as connection:
        ids = list(connection.scalars(select(alerts.c.id).order_by(alerts.c.id).limit(BULK)))
    found: dict[str, Any] = {"store": engine.dialect.name, "alerts": count}
    with gateway(engine, hub, folder) as port:
        hears: Any = multiprocessing.get_context("spawn").Queue()
        caller = multiprocessing.get_context("spawn").Process(target=calls, args=(port, rounds, ids, hears))
        caller.start()
        try:
            _listen(hears, hub, found, caller)
        finally:
            caller.join(20)
    engine.dispose()
    found["fdatasync_p50_ms"] = fdatasync_p50_ms(folder)
    return found


def _listen(hears: Any, hub: HubClient, found: dict[str, Any], caller: Any) -> None:
    seen = _top(hub)
    while True:
        try:
            heard = hears.get(timeout=1)
        except queue.Empty:
            if not caller.is_alive():
                raise RuntimeError("the caller ended early") from None
            continue
        if heard is None:
            return
        name, value = heard
        if isinstance(value, list):
            found[name] = {"p50_ms": round(statistics.median(value) * 1000, 1), "p99_ms": round(_p99(value) * 1000, 1)}
            continue
        told = _told(hub, seen, is_expected=name != "acknowledge_again")
        seen += len(told)
        found[name] = {
            "ms": round(value["ms"]),
            "count": value["count"],
            "publications": len(told),
            "told_ms": round(told[-1] - value["asked_at"] * 1000) if told else None,
        }


def _told(hub: HubClient, seen: int, *, is_expected: bool) -> list[int]:
    """Return when the hub took what came to ``noc:all`` after the first ``seen``, once it is quiet there."""
    deadline_s = time.monotonic() + (10 if is_expected else 1)
    while (top := _top(hub)) == seen and time.monotonic() < deadline_s:
        time.sleep(0.02)
    time.sleep(0.5)
    top = _top(hub)
    if top == seen:
        return []
    reply = asyncio.run(hub.history(names.CHANNEL_NOC, None, top - seen))
    return [one.time_ms for one in reply.publications]


def _top(hub: HubClient) -> int:
    return asyncio.run(hub.positions([names.CHANNEL_NOC]))[names.CHANNEL_NOC].offset


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


def _wait(check: Callable[[], bool], within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not check():
        if time.monotonic() > give_up_at:
            raise RuntimeError("it did not happen in time")
        time.sleep(0.02)


def main() -> None:
    """Measure each store and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a store")
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each list")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as name, running_hub() as hub:
        urls = [f"sqlite:///{name}/floor.db", *filter(None, [os.environ.get("DATABASE_URL")])]
        for url in urls:
            found = measure(url, hub, Path(name), arguments.alerts, arguments.rounds)
            print(json.dumps(found) if arguments.json else json.dumps(found, indent=2), flush=True)


if __name__ == "__main__":
    main()
