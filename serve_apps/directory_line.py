"""``watchfloor directory``: the directory of a data folder, whether its floor runs or not.

Opens the SQL store itself, as whoever may read its address may write it. Invariant: a store
that no floor uses yet gets its tables first, so a directory can be there before the first start.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from sqlalchemy import Engine

from cluster import migrate
from cluster.settings import Settings
from cluster.store import open_engine
from ingest.directory_csv import MAX_BYTES
from ingest.directory_entry import Key, Kind
from ingest.directory_import import Report
from serve_apps.floor_state import FloorFolder


@contextmanager
def opened(settings: Settings) -> Iterator[Engine]:
    """Open the SQL store of a data folder.

    Raises:
        ServiceUnavailableError: it cannot be reached.
    """
    folder = FloorFolder.of(settings)
    record = folder.read()
    url = settings.database_url or f"sqlite:///{folder.path / 'floor.db'}"
    if record is None or not record.is_running:
        folder.path.mkdir(parents=True, exist_ok=True)
        migrate.upgrade(url)
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def read_file(name: str) -> bytes:
    """Return the content of a file, or of the standard input for ``-``; no more than a directory may have."""
    if name == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parse_key(kind: Kind, text: str) -> Key:
    """Return the key in ``TENANT/ID``, or in ``ID`` where the id alone is one.

    Raises:
        ValueError: it is none.
    """
    tenant, slash, identifier = text.partition("/")
    if kind.has_tenant_key:
        if not slash:
            raise ValueError(f"a {kind} is named as TENANT/ID, got {text!r}")
        return tenant, identifier
    return None, text


def report_json(report: Report, *, dry_run: bool) -> dict[str, Any]:
    """Return a report for scripts."""
    shown = dataclasses.asdict(report) | {"problems": [dataclasses.asdict(problem) for problem in report.problems]}
    return shown | {"dry_run": dry_run, "written": not (dry_run or report.problems)}


def render_report(report: Report, *, dry_run: bool) -> str:
    """Return a report for people."""
    if report.problems:
        lines = [f"  {problem}" for problem in report.problems]
        more = report.num_problems - len(report.problems)
        if more:
            lines.append(f"  and {more} more")
        return "\n".join(["nothing was changed:", *lines])
    lines = []
    for kind in Kind:
        counts = [
            f"{number} {what}"
            for what in ("created", "updated", "unchanged", "removed")
            if (number := getattr(report, what).get(kind.value))
        ]
        if counts:
            lines.append(f"{kind}s: {', '.join(counts)}")
    text = "\n".join(lines) or "the file names nothing"
    return f"{text}\n(a dry run: nothing was changed)" if dry_run else text


def render_entries(rows: Sequence[dict[str, Any]]) -> Table:
    """Return entries, as the API shows them, as a table."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    shown = [name for name in (rows[0] if rows else {"id": ""}) if not name.endswith(("_at", "_name", "_by"))]
    columns = [name for name in shown if name == "id" or any(row[name] is not None for row in rows)]
    for name in columns:
        table.add_column(name, header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in columns))
    return table
