"""``watchfloor export``: what the floor has stored, as a file, however large.

Reads the stores themselves and not the HTTP API: a gateway cannot slow down a large answer
for a slow reader. Invariants: a file appears whole or not at all; with a token nothing
leaves that its owner could not see on the page.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine

from cluster.settings import Settings
from cluster.store import open_engine
from cluster.whole_file import replacing
from ingest.archive import ArchiveStore
from ingest.choices import ExportKind, FileFormat
from ingest.export import Export, ExportQuery, export_alerts, export_dead_letters, export_telemetry
from ingest.export_files import open_writer
from ingest.topics import is_level
from serve_apps.auth import Identity, Role, verify_token
from serve_apps.errors import AuthenticationError
from serve_apps.floor_keys import parse_keys
from serve_apps.floor_state import FloorFolder

STDOUT = "-"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NEEDED = {ExportKind.TELEMETRY: Role.VIEWER, ExportKind.ALERTS: Role.VIEWER, ExportKind.DEAD_LETTERS: Role.OPERATOR}
"""Least role of a token's owner, as of the routes that show the same."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written."""

    kind: str
    format: str
    path: str
    tenant: str | None
    rows: int
    size_bytes: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def query_of(
    settings: Settings,
    kind: ExportKind,
    *,
    token: str | None,
    tenant: str | None,
    devices: list[str],
    metrics: list[str],
    since: str | None,
    until: str | None,
) -> ExportQuery:
    """Return the query that the arguments mean, within what the token's owner may see.

    Raises:
        ValueError: an argument cannot be used, or the owner may not have this.
    """
    for name, level in (("tenant", tenant), *(("device", device) for device in devices)):
        if level is not None and not is_level(level):
            raise ValueError(f"{name} must be 1-64 of [A-Za-z0-9_-], got {level[:80]!r}")
    if token is not None:
        tenant = _allowed_tenant(_identity(settings, token), kind, tenant)
    now = datetime.now(UTC)
    query = ExportQuery(
        tenant=tenant,
        devices=tuple(devices),
        metrics=tuple(metrics),
        since=None if since is None else moment(since, now),
        until=None if until is None else moment(until, now),
    )
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise ValueError(f"since ({since}) must be before until ({until})")
    return query


def moment(text: str, now: datetime) -> float:
    """Return the time that ``text`` means, in seconds since the epoch: ISO 8601, or an age such as 90m, 24h, 7d.

    Raises:
        ValueError: it means none.
    """
    if text[-1:] in UNITS and text[:-1].isdigit():
        return (now - timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])).timestamp()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"not a time: {text[:40]!r}; give 2026-11-26T08:00:00Z, or an age such as 24h or 7d") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def write(settings: Settings, kind: ExportKind, file_format: FileFormat, out: str, query: ExportQuery) -> ExportSummary:
    """Write the export, with a bar on a terminal.

    Raises:
        ValueError: the query does not fit the kind, or Parquet is to go to standard output.
        StoreUnavailableError: the SQL store does not answer.
        OSError: a file cannot be read or written.
    """
    if out == STDOUT and file_format is FileFormat.PARQUET:
        raise ValueError("Parquet needs a file: give --out FILE")
    started_s = time.monotonic()
    engine: Engine | None = None
    folder = FloorFolder.of(settings)
    with _bar() as bar:
        task = bar.add_task(kind.value, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if kind is ExportKind.TELEMETRY:
            export = export_telemetry(ArchiveStore(folder.storage_url(settings)), query, progress)
        else:
            engine = open_engine(folder.database_url(settings))
            if kind is ExportKind.ALERTS:
                export = export_alerts(engine, query, progress)
            else:
                export = export_dead_letters(engine, settings.topic_root, query, progress)
        try:
            rows, size_bytes = _written(export, file_format, out)
        finally:
            if engine is not None:
                engine.dispose()
    seconds = round(time.monotonic() - started_s, 3)
    return ExportSummary(kind.value, file_format.value, out, query.tenant, rows, size_bytes, seconds)


def _written(export: Export, file_format: FileFormat, out: str) -> tuple[int, int]:
    rows = 0
    with _sink(out) as sink:
        with open_writer(file_format, sink, export.schema) as writer:
            for table in export.tables:
                writer.write(table)
                rows += table.num_rows
        size_bytes = 0 if out == STDOUT else sink.tell()
    return rows, size_bytes


@contextmanager
def _sink(out: str) -> Iterator[IO[bytes]]:
    if out == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # 0600: it holds what only people of the floor may see.
    with replacing(Path(out), mode=0o600) as file:
        yield file


def _bar() -> Progress:
    # On standard error: standard output may be the export itself.
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def _identity(settings: Settings, token: str) -> Identity:
    path = settings.secret_path if settings.secret_file else FloorFolder.of(settings).path / "secret"
    problem: AuthenticationError | None = None
    for key in parse_keys(path.read_bytes()):
        try:
            return verify_token(key, token)
        except AuthenticationError as error:
            problem = error
    raise ValueError(f"the token is refused: {problem}") from problem


def _allowed_tenant(identity: Identity, kind: ExportKind, tenant: str | None) -> str | None:
    if not identity.has(NEEDED[kind]):
        raise ValueError(f"the token's owner needs the role {NEEDED[kind]} or above for {kind}")
    if identity.is_floor_wide:
        return tenant
    if identity.tenant is None or tenant not in {None, identity.tenant}:
        raise ValueError("the token's owner may not see " + (f"tenant {tenant!r}" if tenant else "all tenants"))
    return identity.tenant
