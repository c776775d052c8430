"""What a floor is doing, asked from outside: one object for scripts, one table for people.

Reads ``floor.json`` and the floor's HTTP API; changes nothing. Invariant: the object always
has the keys of ``EMPTY``, whether the floor runs, starts or is down.
"""

import json
import time
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.ports import local_host
from cluster.settings import Settings
from ingest.store_bounds import in_words
from serve_apps import service_checks
from serve_apps.auth import issue_signin_key, issue_token
from serve_apps.floor_keys import parse_keys
from serve_apps.floor_state import FloorFolder, FloorRecord

API_TIMEOUT_S = 3.0
TOKEN_TTL_S = 60.0
SHOWN_REASONS = 3
LOCAL_USER = "local"
"""User id of whoever may read the data folder: its owner, who could sign any token."""

EMPTY: dict[str, Any] = {
    "url": "",
    "phase": "stopped",
    "error": "",
    "services": {},
    "readings_total": 0,
    "alerts_total": 0,
    "dead_letters_total": 0,
    "dead_letters": {},
    "runs": [],
    "detector": {},
    "ingest": {},
    "circuits": {},
}

STATE_STYLE = {"running": "green", "external": "green", "ok": "green", "starting": "yellow", "waiting": "red"}


def collect(settings: Settings) -> dict[str, Any]:
    """Return the floor's status as one JSON-like object."""
    folder = FloorFolder.of(settings)
    record = folder.read()
    if record is None:
        return dict(EMPTY)
    phase = record.phase if record.is_running or record.phase in ("stopped", "failed") else "killed"
    status = EMPTY | {"url": record.url, "phase": phase, "error": record.error, "pid": record.supervisor.pid}
    answer = _ask(settings, record) if record.is_running else {}
    own = {name: {"state": part.state, "detail": part.detail, "pid": part.pid, "restarts": part.restarts}
           for name, part in record.services.items()} if record.is_running else {}  # fmt: skip
    if record.is_running:
        own["gateway"] = {"state": "running" if answer else "starting", "detail": record.url, "pid": 0, "restarts": 0}
        for name, problem in service_checks.problems(_external(record)).items():
            own[name] |= {"state": "waiting", "detail": problem}
    services = dict(answer.get("services", {}))
    for name, part in own.items():
        # The supervisor knows whether a process lives; what the API adds about it is kept.
        services[name] = {**services.get(name, {}), **part}
    return status | answer | {"url": record.url, "phase": phase, "services": services}


def _external(record: FloorRecord) -> Settings:
    """Return where the services are that the supervisor does not watch, and nothing else."""
    urls = record.urls | record.env
    variables = {"mqtt": "MQTT_URL", "redis": "REDIS_URL", "database": "DATABASE_URL", "ray": "RAY_ADDRESS"}
    is_external = {name for name, part in record.services.items() if part.state == "external"}
    return Settings.load({variable: urls[variable] for name, variable in variables.items() if name in is_external})


DRAIN_MARGIN_S = 35.0
"""What a replica may take to report its last client's end; a closing handshake may take 5 s."""
DRAIN_POLL_S = 0.5


def call_api(
    settings: Settings, record: FloorRecord, path: str, body: Any = None, timeout_s: float = API_TIMEOUT_S
) -> Any:
    """Ask the floor's API as its owner: GET a path, or POST it a body.

    Raises:
        OSError: it does not answer, or refuses.
        ValueError: the answer is no JSON, or the floor's key cannot be used.
    """
    token = owner_token(settings, TOKEN_TTL_S)
    host, port = record.urls["WATCHFLOOR_HTTP_HOST"], record.urls["WATCHFLOOR_HTTP_PORT"]
    request = Request(
        f"http://{local_host(host)}:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        return json.load(response)


def wait_drained(settings: Settings, record: FloorRecord, over_s: float) -> int:
    """Wait until no replica has a client, somewhat longer than a drain takes; return how many there are still.

    Raises:
        OSError, ValueError: see ``call_api``.
    """
    give_up_s = time.monotonic() + over_s + DRAIN_MARGIN_S
    while True:
        nodes = call_api(settings, record, "/api/info", {})["result"]["nodes"]
        left = sum(node["num_clients"] for node in nodes)
        if not left or time.monotonic() >= give_up_s:
            return int(left)
        time.sleep(DRAIN_POLL_S)


def owner_token(settings: Settings, ttl_s: float) -> str:
    """Return a token with every right on this floor, signed with the key in its data folder."""
    return issue_token(read_secret(settings), sub=LOCAL_USER, tenant=None, roles=["admin"], ttl_s=ttl_s)


def signin_url(settings: Settings, url: str) -> str:
    """Return a link that signs its first visitor in."""
    key = issue_signin_key(read_secret(settings), sub=LOCAL_USER, tenant=None, roles=["admin"])
    return f"{url}/signin?key={key}"


def render(status: dict[str, Any]) -> Group:
    """Return the status as tables for a terminal."""
    head = Text.assemble((f"{status['url'] or 'no floor'}  ", "bold"), (str(status["phase"]), _style(status["phase"])))
    if status["error"]:
        head.append(f"\n{status['error']}", "red")
    services = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("service", "state", "restarts", ""):
        services.add_column(column, header_style="dim", overflow="fold")
    for name, part in sorted(status["services"].items()):
        state = str(part.get("state", ""))
        services.add_row(name, Text(state, _style(state)), str(part.get("restarts", 0)), str(part.get("detail", "")))
    counts = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name in ("readings_total", "alerts_total", "dead_letters_total"):
        counts.add_row(
            name.removesuffix("_total").replace("_", " "), "?" if status[name] is None else f"{status[name]:,}"
        )
    if status["dead_letters"]:
        newest = list(status["dead_letters"].items())[:SHOWN_REASONS]
        counts.add_row("  newest reasons", ", ".join(f"{reason} {count:,}" for reason, count in newest))
    ingest, detector = status["ingest"] or {}, status["detector"] or {}
    if "rate" in ingest:
        counts.add_row("readings/s", f"{float(ingest['rate']):.0f}")
    stores = [one | {"name": name} for name, one in ingest.get("stores", {}).items() if one["limit_bytes"]]
    if stores:
        top = max(stores, key=lambda one: float(one["size_bytes"]) / one["limit_bytes"])
        share = top["size_bytes"] / top["limit_bytes"]
        counts.add_row("fullest store", f"{top['name']}, {share:.0%} of {in_words(top['limit_bytes'])}")
    if detector:
        counts.add_row("detector", " ".join(str(detector[key]) for key in ("model", "version") if detector.get(key)))
    _add_rules(counts, detector.get("rules") or {})
    for target, told in (detector.get("notifications") or {}).items():
        counts.add_row(target, _told_line(told))
    for run in status["runs"][:3]:
        counts.add_row("run", f"{run.get('id', '')} {run.get('state', '')} {float(run.get('progress') or 0):.0f} %")
    return Group(head, services, counts)


def _add_rules(table: Table, rules: dict[str, Any]) -> None:
    if rules.get("file"):
        line = f"{rules['loaded']} in force, {rules['firing']} firing"
        table.add_row("rules", Text.assemble(line, (f"; {rules['problem']}" if rules["problem"] else "", "red")))


def _told_line(told: dict[str, Any]) -> Text:
    figures = ", ".join(f"{told[name]} {name}" for name in ("firing", "pending", "dead") if told.get(name))
    if told["problem"]:
        return Text.assemble(f"{figures}; " if figures else "", (told["problem"], "red"))
    return Text(f"is told{': ' + figures if figures else ''}")


def render_lanes(found: Any) -> Table:
    """Return the answer of ``GET /api/v1/lanes`` as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("lane", "priority", "running", "queued", "soft / hard limit", "runs"):
        table.add_column(column, header_style="dim", overflow="fold")
    lanes: list[dict[str, Any]] = found.get("lanes", []) if isinstance(found, dict) else found
    for lane in lanes:
        limits = f"{_duration(lane['soft_limit_s'])} / {_duration(lane['hard_limit_s'])}"
        # Tasks hold tokens only; a run holds its slot some time before its token.
        held = max(lane["running"], round(lane["tokens_used"] or 0))
        holders = [f"held by {', '.join(lane['holders'])}"] if lane["holders"] else []
        waiting = [f"{run_id} {what_for}" for run_id, what_for in lane["waiting"].items()]
        table.add_row(
            lane["name"], str(lane["priority"]), f"{held} of {lane['concurrency']}", str(lane["queued"]), limits,
            Text("\n".join(holders + waiting)),
        )  # fmt: skip
    return table


def render_circuits(found: Any) -> Table:
    """Return the answer of ``GET /api/v1/circuits`` as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("service", "state", "next try", "failures", "why"):
        table.add_column(column, header_style="dim", overflow="fold")
    for one in found["items"]:
        is_closed = one["state"] in ("closed", "forced_closed")
        by = f"{one['cause']} by {one['author']}" if one["author"] else one["cause"]
        why = ": ".join(part for part in (by, one["reason"]) if part)
        waits = "" if is_closed else "after a reset" if one["state"] == "forced_open" else f"{one['retry_in_s']:.0f} s"
        state = Text(one["state"].replace("_", " "), "green" if one["state"] == "closed" else "red")
        table.add_row(one["service"], state, waits, str(one["failures"]), why)
    return table


def render_dead_messages(found: dict[str, Any]) -> Table:
    """Return the answer of ``GET /api/v1/notifications/dead`` as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("id", "target", "given up", "tries", "alert", "why"):
        table.add_column(column, header_style="dim", overflow="fold")
    for one in found["items"]:
        table.add_row(
            one["id"], one["target"], one["at"], str(one["attempts"]), one["alert_id"], Text(one["error"] or "")
        )
    return table


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"


def _ask(settings: Settings, record: FloorRecord) -> dict[str, Any]:
    try:
        answer = call_api(settings, record, "/api/v1/status")
    except (OSError, ValueError, URLError):
        # Not up yet, or down: the phase and the services of the record say which.
        return {}
    return answer if isinstance(answer, dict) else {}


def read_secret(settings: Settings) -> bytes:
    """Return the key that signs the floor's tokens.

    Raises:
        OSError: there is none yet, or it cannot be read.
    """
    path = settings.secret_path if settings.secret_file else FloorFolder.of(settings).path / "secret"
    return parse_keys(path.read_bytes())[0]


def _style(state: object) -> str:
    return STATE_STYLE.get(str(state), "green" if state == "ready" else "")
