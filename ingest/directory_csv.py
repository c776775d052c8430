"""The directory as a CSV: one file for all kinds, one row for an entry.

    kind,id,tenant,name,role,client,site,supervisor,type,disabled
    tenant,acme,,Acme Water,,,,,,
    client,north,acme,Northern Waterworks,,,,,,
    user,nora,acme,Nora Berg,operator,,,,,
    device,pump-7,acme,Pump 7,,north,plant 2,nora,pump,

Pure. Columns may stand in any order and be left out, but for ``kind`` and ``id``; an empty cell
is nothing. Invariant: what ``write`` writes, ``read`` reads as the same entries, and no
spreadsheet takes a cell of it for a formula.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from ingest.directory_entry import COLUMNS, Entry, Key, Kind, checked

MAX_BYTES = 64 * 1024 * 1024
MAX_ROWS = 200_000
QUOTED = ("=", "+", "-", "@", "'")
"""What a spreadsheet takes for the beginning of a formula gets a quote before it, and so does a quote."""
_FLAGS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file cannot be used; ``row`` is the line in a spreadsheet, 0: the whole file."""

    row: int
    text: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.text}" if self.row else self.text


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a file holds."""

    entries: dict[int, Entry]
    """By row; only rows without a problem."""
    problems: tuple[Problem, ...]


def read(data: bytes) -> Sheet:
    """Return what a file holds, and everything that is wrong with it."""
    if len(data) > MAX_BYTES:
        return _unusable(f"the file has {len(data)} bytes, at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _unusable(f"the file is not UTF-8 (byte {error.start}); save it as CSV UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        problem = _header_problem(header)
        if problem:
            return _unusable(problem)
        return _rows(reader, header)
    except csv.Error as error:
        return _unusable(f"line {reader.line_num} is no CSV: {error}")


def write(entries: Iterable[Entry]) -> str:
    """Return entries as a file."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow([_cell(getattr(entry, name)) for name in COLUMNS])
    return out.getvalue()


def _unusable(text: str) -> Sheet:
    return Sheet({}, (Problem(0, text),))


def _header_problem(header: list[str]) -> str | None:
    missing = [name for name in ("kind", "id") if name not in header]
    unknown = [name[:40] for name in header if name not in COLUMNS]
    if missing or unknown or len(set(header)) < len(header):
        what = f"no column {', '.join(missing)}" if missing else f"unknown or repeated columns {', '.join(unknown)}"
        return f"the first row must name columns out of {', '.join(COLUMNS)}: {what}"
    return None


def _rows(reader: "Iterable[list[str]]", header: list[str]) -> Sheet:
    entries: dict[int, Entry] = {}
    problems: list[Problem] = []
    rows_of: dict[tuple[Kind, Key], int] = {}
    for number, cells in enumerate(reader, start=2):
        if number > MAX_ROWS + 1:
            return _unusable(f"the file has more than {MAX_ROWS} rows")
        if not any(cells):
            continue
        try:
            entry = _entry(header, cells)
        except ValueError as error:
            problems.append(Problem(number, str(error)))
            continue
        first = rows_of.setdefault((entry.kind, entry.key), number)
        if first == number:
            entries[number] = entry
        else:
            problems.append(Problem(number, f"{entry.title} is in row {first} already"))
    return Sheet(entries, tuple(problems))


def _entry(header: list[str], cells: list[str]) -> Entry:
    if len(cells) > len(header):
        raise ValueError(f"{len(cells)} cells, but {len(header)} columns")
    row = {name: _text(cell) for name, cell in zip(header, cells, strict=False)}
    kind, identifier, disabled = row.pop("kind", ""), row.pop("id", ""), row.pop("disabled", "").lower()
    if kind not in Kind.__members__.values():
        raise ValueError(f"kind must be {', '.join(Kind)}, got {kind[:40]!r}")
    if disabled not in _FLAGS:
        raise ValueError(f"disabled must be true or false, got {disabled[:40]!r}")
    given = {name: text for name, text in row.items() if text}
    return checked(Entry(kind=Kind(kind), id=identifier, disabled=_FLAGS[disabled], **given))


def _text(cell: str) -> str:
    text = cell.strip()
    return text[1:] if text.startswith("'") and text[1:].startswith(QUOTED) else text


def _cell(value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    text = "true" if value is True else str(value)
    return f"'{text}" if text.startswith(QUOTED) else text
