"""Bringing the directory to what a file says: all of it, or nothing and the reasons.

The file itself is ``directory_csv.py``'s. Invariants: with one problem nothing is changed; the
same file a second time changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, delete, update

from cluster.store import in_write
from ingest.directory import devices
from ingest.directory_csv import Problem, Sheet
from ingest.directory_entry import Entry, Kind, references, title_of
from ingest.directory_rows import COLUMNS, TABLES, Listed, existing, is_entry, listed, missing, moved, selected, write

MAX_PROBLEMS = 20
"""Problems of a file that are told; the rest is counted."""


@dataclass(slots=True)
class Report:
    """What a file did to the directory, or would do."""

    created: dict[str, int] = field(default_factory=dict)
    """By kind; kinds without any are missing, here and below."""
    updated: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    """The first ``MAX_PROBLEMS``; where there is one, nothing was changed."""
    num_problems: int = 0


def load(
    engine: Engine, sheet: Sheet, user_id: str, at: float, *, prune: bool = False, dry_run: bool = False
) -> Report:
    """Bring the directory to what a file says.

    Args:
        engine: the SQL store.
        sheet: what ``directory_csv.read`` found.
        user_id: who does it.
        at: now, seconds since the epoch.
        prune: of the tenants that the file has rows for, also remove the clients and users that it does not
            name, and forget what was registered about devices that it does not name.
        dry_run: only say what would happen.
    """

    def step(connection: Connection) -> Report:
        return _load(connection, sheet, user_id, at, prune=prune, dry_run=dry_run)

    try:
        return in_write(engine, step)
    except _TakenBackError as taken_back:
        return taken_back.report


class _TakenBackError(Exception):
    """Leaves the transaction with its report and without its changes."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


def _load(connection: Connection, sheet: Sheet, user_id: str, at: float, *, prune: bool, dry_run: bool) -> Report:
    report = Report()
    problems = [*sheet.problems, *_moved(connection, sheet)]
    of_kind = {kind: [entry for entry in sheet.entries.values() if entry.kind is kind] for kind in Kind}
    for kind, entries in of_kind.items():
        _count(connection, kind, entries, report)
        write(connection, kind, entries, user_id, at)
    if prune:
        _prune(connection, of_kind, report)
    problems += _dangling(connection, sheet)
    problems.sort(key=lambda problem: problem.row)
    report.problems, report.num_problems = tuple(problems[:MAX_PROBLEMS]), len(problems)
    if problems or dry_run:
        raise _TakenBackError(report)
    return report


def _count(connection: Connection, kind: Kind, entries: Sequence[Entry], report: Report) -> None:
    before = existing(connection, kind, [entry.key for entry in entries])
    new = sum(entry.key not in before for entry in entries)
    same = sum(before.get(entry.key) == entry for entry in entries)
    for counts, number in (
        (report.created, new),
        (report.updated, len(entries) - new - same),
        (report.unchanged, same),
    ):
        if number:
            counts[kind.value] = number


def _moved(connection: Connection, sheet: Sheet) -> list[Problem]:
    users = {row: entry for row, entry in sheet.entries.items() if entry.kind is Kind.USER}
    before = existing(connection, Kind.USER, [entry.key for entry in users.values()])
    return [Problem(row, text) for row, entry in users.items() if (text := moved(before.get(entry.key), entry))]


def _dangling(connection: Connection, sheet: Sheet) -> list[Problem]:
    wanted = {row: references(entry) for row, entry in sheet.entries.items()}
    gone = missing(connection, {one for of_row in wanted.values() for one in of_row})
    return [
        Problem(row, f"there is no {title_of(kind, key)}")
        for row, of_row in wanted.items()
        for kind, key in of_row
        if (kind, key) in gone
    ]


def _prune(connection: Connection, of_kind: dict[Kind, list[Entry]], report: Report) -> None:
    named = [entry.id for entry in of_kind[Kind.TENANT]]
    for kind in (Kind.CLIENT, Kind.USER, Kind.DEVICE):
        kept = {entry.key for entry in of_kind[kind]}
        query = selected(kind).where(COLUMNS[kind]["tenant"].in_(named))
        if kind is Kind.DEVICE:
            query = query.where(devices.c.known.is_(True))
        found = [listed(kind, row._mapping) for row in connection.execute(query)]
        gone = [one for one in found if one.entry.key not in kept]
        for one in gone:
            _forget(connection, one)
        if gone:
            report.removed[kind.value] = len(gone)


def _forget(connection: Connection, one: Listed) -> None:
    kind = one.entry.kind
    if kind is Kind.DEVICE and one.facts["first_seen_at"] is not None:
        registered = [column.name for name, column in COLUMNS[kind].items() if name not in {"tenant", "id"}]
        values = dict.fromkeys(registered) | {"known": False}
        connection.execute(update(devices).where(is_entry(kind, one.entry.key)).values(values))
    else:
        connection.execute(delete(TABLES[kind]).where(is_entry(kind, one.entry.key)))
