"""Figures of a whole floor: from ``watchfloor up`` to the first alert on a page, and what an idle floor costs.

``python -m bench.floor --json`` prints one line per figure. The alert is one that a page
has: it is in the list that a page loads when it opens, or came over the page's WebSocket.
Idle means ``--no-demo``: no device, no page, nothing to score. Shares of memory that
processes have in common are counted once in the proportional set size (PSS) and in every
one of them in the resident set size (RSS); proc(5) ``smaps_rollup``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from cluster.process import find_marked

WATCHFLOOR = str(Path(sys.executable).parent / "watchfloor")
START_LIMIT_S = 300.0
SETTLE_S = 30.0
IDLE_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--starts", type=int, default=3, help="how many starts; the median counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wf-bench-") as folder:
        starts = [time_start(Path(folder) / "started") for _ in range(arguments.starts)]
        figures = [
            {
                "figure": "start",
                "page_s": statistics.median(page_s for page_s, _ in starts),
                "first_alert_s": statistics.median(alert_s for _, alert_s in starts),
                "first_alert_s_all": [alert_s for _, alert_s in starts],
                "cpus": os.cpu_count(),
                "load": os.getloadavg()[0],
            },
            *idle_cost(Path(folder) / "idle"),
        ]
    for figure in figures:
        print(json.dumps(figure) if arguments.json else "  ".join(f"{name} {value}" for name, value in figure.items()))


def time_start(data_dir: Path) -> tuple[float, float]:
    """Return seconds to a page that answers, and to the first alert on it."""
    started_s = time.monotonic()
    with floor(data_dir, wait=False):
        while True:
            try:
                url = json.loads((data_dir / "floor.json").read_text())["url"]
                urlopen(f"{url}/healthz", timeout=1.0).close()
                break
            except (OSError, ValueError, KeyError, URLError):
                expect(time.monotonic() < started_s + START_LIMIT_S, "the floor does not answer")
                time.sleep(0.1)
        page_s = time.monotonic() - started_s
        token = said("token", data_dir)
        wait_for_alert(url, token)
        return round(page_s, 1), round(time.monotonic() - started_s, 1)


def wait_for_alert(url: str, token: str) -> None:
    """Return when a page that opened now would show an alert."""
    give_up_at = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up_at:
        try:
            with connect(url.replace("http", "ws", 1) + "/connection/websocket", open_timeout=5.0) as page:
                page.send(json.dumps({"id": 1, "connect": {"token": token}}))
                if has_alerts(url, token):
                    return
                while True:
                    # Several replies may share a frame, one a line.
                    for line in str(page.recv(timeout=60.0)).splitlines():
                        data = json.loads(line).get("push", {}).get("pub", {}).get("data", {})
                        if "alert" in data.get("data", {}):
                            return
        except (OSError, WebSocketException):
            time.sleep(0.1)  # not ready yet
    expect(False, "no alert came")


def has_alerts(url: str, token: str) -> bool:
    request = Request(f"{url}/api/v1/alerts?limit=1", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=10.0) as answer:
        return bool(json.load(answer)["items"])


def idle_cost(data_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the cost of an idle floor: first in all, then of each kind of process."""
    with floor(data_dir, "--no-demo"):
        record = json.loads((data_dir / "floor.json").read_text())
        time.sleep(SETTLE_S)
        before, began_s = usage(record["floor_id"]), time.monotonic()
        time.sleep(IDLE_S)
        after, seconds = usage(record["floor_id"]), time.monotonic() - began_s
    kinds: dict[str, dict[str, float]] = {}
    for pid, (name, pss_mb, rss_mb, cpu_s) in after.items():
        kind = kinds.setdefault(name, {"processes": 0, "pss_mb": 0.0, "rss_mb": 0.0, "cpu_percent": 0.0})
        kind["processes"] += 1
        kind["pss_mb"] += pss_mb
        kind["rss_mb"] += rss_mb
        kind["cpu_percent"] += 100 * (cpu_s - before[pid][3] if pid in before else cpu_s) / seconds
    total = {key: round(sum(kind[key] for kind in kinds.values()), 1) for key in next(iter(kinds.values()))}
    yield {"figure": "idle", **total, "load": os.getloadavg()[0]}
    for name, kind in sorted(kinds.items(), key=lambda item: -item[1]["pss_mb"]):
        yield {"figure": "idle", "process": name, **{key: round(value, 1) for key, value in kind.items()}}


def usage(floor_id: str) -> dict[int, tuple[str, float, float, float]]:
    """Return name, PSS and RSS in MB, and CPU seconds of each process of a floor."""
    found = {}
    for one in find_marked(floor_id):
        try:
            stat = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
            rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            argv = Path(f"/proc/{one.pid}/cmdline").read_text().rstrip("\0").split("\0")
        except OSError:
            continue  # it ended meanwhile
        sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in rollup.splitlines()[1:]}
        found[one.pid] = (name_of(argv), sizes["Pss:"], sizes["Rss:"], (int(stat[11]) + int(stat[12])) / TICKS_PER_S)
    return found


def name_of(argv: list[str]) -> str:
    """Return what people call a process: its module or script, else its program."""
    title = argv[0].partition(" ")[0]
    if title.startswith("ray-dashboard"):
        return "ray-dashboard's parts"
    if "-m" in argv[:-1]:
        return argv[argv.index("-m") + 1]
    script = next((word for word in argv[1:] if word.endswith(".py")), "")
    return Path(script).stem if script else Path(title).name


@contextmanager
def floor(data_dir: Path, *options: str, wait: bool = True) -> Iterator[None]:
    """A floor in ``data_dir`` for the time of the block."""
    process = subprocess.Popen(
        [WATCHFLOOR, "up", "--detach", *options, "--data-dir", str(data_dir)], stdout=subprocess.DEVNULL
    )
    try:
        if wait:
            expect(process.wait(START_LIMIT_S) == 0, "the floor did not start")
        yield
    finally:
        process.wait(START_LIMIT_S)
        said("down", data_dir)


def said(command: str, data_dir: Path, *options: str) -> str:
    argv = [WATCHFLOOR, command, *options, "--data-dir", str(data_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"bench.floor: {otherwise}")


if __name__ == "__main__":
    main()
