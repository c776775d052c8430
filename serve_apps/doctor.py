"""Checks of the installation and of the running floor, each with what to do about it.

Changes nothing. Invariant: a finding of level ``error`` means that the floor cannot work or
is open to others; ``warning`` that something may surprise; ``ok`` was looked at and is right.
"""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from cluster.embedded import find_nats_server, find_valkey_server
from cluster.errors import ClusterError
from cluster.process import find_marked
from cluster.settings import Settings
from serve_apps.floor_state import FloorFolder, FloorRecord
from serve_apps.listeners import listeners_of
from serve_apps.supervisor import refuse_open_bind

Level = Literal["ok", "warning", "error"]

OUR_PACKAGES = ("cluster", "realtime", "ingest", "training", "serve_apps")
MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 5 * 1024**3
STYLE: dict[Level, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON takes it."""
        return {"level": self.level, "subject": self.subject, "text": self.text}


def examine(settings: Settings) -> list[Finding]:
    """Look at everything."""
    folder = FloorFolder.of(settings)
    record = folder.read()
    return [
        *_python(),
        *_packages(),
        *_programs(settings),
        *_disk(folder.path),
        *_access(settings, folder),
        *_floor(record),
    ]


def render(findings: list[Finding]) -> Table:
    """Return the findings as a table for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for finding in findings:
        table.add_row(Text(finding.level, STYLE[finding.level]), finding.subject, finding.text)
    return table


def _python() -> Iterator[Finding]:
    have = platform.python_version()
    good = sys.version_info[:2] >= MIN_PYTHON
    yield Finding("ok" if good else "error", "python", f"{have} in {sys.executable}, 3.11 or newer is needed")
    tested = platform.system() == "Linux" and platform.machine() == "x86_64"
    where = f"{platform.system()} {platform.machine()}"
    yield Finding(
        "ok" if tested else "warning", "system", where if tested else f"{where} is not tested, Linux x86_64 is"
    )
    if sys.prefix == sys.base_prefix:
        yield Finding("warning", "python", "not a virtual environment; make run makes one in .venv")


def _packages() -> Iterator[Finding]:
    # PyPI has a `realtime` and a `cluster` of other people: whoever installs one replaces ours.
    owners = packages_distributions()
    home: Path | None = None
    for name in OUR_PACKAGES:
        foreign = sorted(set(owners.get(name, [])) - {"watchfloor"})
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).parent.parent if spec and spec.origin else None
        home = home or Path(__file__).parent.parent
        if foreign:
            yield Finding("error", name, f"also installed by {', '.join(foreign)}: pip uninstall {' '.join(foreign)}")
        elif place != home:
            yield Finding("error", name, f"found in {place}, ours is in {home}: something shadows it")
        else:
            yield Finding("ok", name, str(place))
    try:
        yield Finding("ok", "ray", version("ray"))
    except PackageNotFoundError:
        yield Finding("error", "ray", "not installed: pip install -c requirements.lock -e .")


def _programs(settings: Settings) -> Iterator[Finding]:
    for setting, url, find in (
        ("MQTT_URL", settings.mqtt_url, find_nats_server),
        ("REDIS_URL", settings.redis_url, find_valkey_server),
    ):
        if url:
            yield Finding("ok", setting, "set: the embedded service is not started")
            continue
        try:
            yield Finding("ok", setting, f"embedded: {find()}")
        except ClusterError as error:
            yield Finding("error", setting, str(error))


def _disk(path: Path) -> Iterator[Finding]:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1024**3:.1f} GiB free at {existing}, stores may take about {MIN_FREE_BYTES / 1024**3:.0f}"
    yield Finding("ok" if free >= MIN_FREE_BYTES else "warning", "disk", text)
    if not os.access(existing, os.W_OK):
        yield Finding("error", "disk", f"{existing} cannot be written")


def _access(settings: Settings, folder: FloorFolder) -> Iterator[Finding]:
    try:
        refuse_open_bind(settings)
        yield Finding("ok", "page", f"listens on {settings.http_host}")
    except ClusterError as error:
        yield Finding("error", "page", str(error))
    for path in (folder.path / "secret", folder.ray_token, folder.path / "credentials.json"):
        if path.exists() and path.stat().st_mode & 0o077:
            yield Finding("error", "secrets", f"{path} can be read by others: chmod 600 {path}")


def _floor(record: FloorRecord | None) -> Iterator[Finding]:
    if record is None or not record.is_running:
        yield Finding("ok", "floor", "none is running here")
        if record is not None and (left := find_marked(record.floor_id)):
            yield Finding(
                "warning", "floor", f"{len(left)} processes of a killed floor are left; the next up ends them"
            )
        return
    yield Finding("ok", "floor", f"{record.phase} at {record.url}")
    authenticated = record.env.get("RAY_AUTH_MODE") == "token"
    text = "Ray asks for a token" if authenticated else "Ray asks for no token: anybody who reaches it runs code"
    yield Finding("ok" if authenticated else "error", "ray auth", text)
    pids = {identity.pid for identity in find_marked(record.floor_id)}
    exposed = [listener for listener in listeners_of(pids) if not listener.is_loopback]
    for listener in exposed:
        yield Finding("warning", "exposed", f"{listener}: reachable from the network, close it in the firewall")
    if not exposed:
        yield Finding("ok", "exposed", "every port of the floor listens on loopback only")
