"""Data sets as files that people bring and take: CSV, Parquet, and NAB's folder.

Every file is somebody's: what is too large is refused by its size before it is read, and whatever is
wrong with it is said with the file's name. Invariants: nothing is written over a file that is there;
what was written by ``write_file`` and is read by ``read_file`` has the same readings and labels
(NAB: to the microsecond, and anomalies only).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pyarrow.lib import ArrowException

from ingest.export_files import without_formulas
from training.data import nab
from training.data.labels import NO_LABELS, LabelSnapshot
from training.data.snapshots import Dataset, Series
from training.data.tabular import IMPORTED, READ, VALUE, Readings, from_table, to_table
from training.errors import DatasetFileError

T = TypeVar("T")


class DatasetFormat(StrEnum):
    """How a data set lies in files."""

    CSV = "csv"
    PARQUET = "parquet"
    NAB = "nab"
    """A folder of CSV files with ``windows.json``, or one such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """How large a data set may be that somebody brings."""

    max_bytes: int = 512 * 1024**2
    """Bytes of all its files together; of Parquet, also of its columns unpacked."""
    max_readings: int = 20_000_000
    """Readings of all its series together."""
    max_series: int = 10_000
    """Series."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_readings", "max_series"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def format_of(path: Path) -> DatasetFormat:
    """Return the format that a path's name stands for.

    Raises:
        DatasetFileError: it stands for none.
    """
    if path.is_dir():
        return DatasetFormat.NAB
    try:
        return DatasetFormat(path.suffix.lstrip(".").lower())
    except ValueError:
        raise DatasetFileError(str(path), "say by --format whether it is csv, parquet or nab") from None


def read_file(path: Path, kind: DatasetFormat, settings: ImportSettings, labels: Path | None = None) -> Readings:
    """Return what a file, or a folder of them, holds.

    Args:
        path: the file; of NAB's format also a folder.
        kind: what is in it.
        settings: how large it may be.
        labels: NAB's windows, when they are not in the folder; of NAB's format only.

    Raises:
        DatasetFileError: it cannot be read, is too large, or does not hold what it should.
    """
    if labels is not None and kind is not DatasetFormat.NAB:
        raise DatasetFileError(str(labels), f"a file of labels belongs to nab; {kind} has them in a column label")
    if not path.exists():
        raise DatasetFileError(str(path), "there is no such file")
    if path.is_dir() and kind is not DatasetFormat.NAB:
        raise DatasetFileError(str(path), f"it is a folder; {kind} is one file")
    found = _read_nab(path, settings, labels) if kind is DatasetFormat.NAB else _read_one(path, kind, settings)
    if not found.series:
        raise DatasetFileError(str(path), "it holds no readings")
    readings = sum(len(one.ts) for one in found.series)
    _check_count(path, readings, settings.max_readings, "readings")
    _check_count(path, len(found.series), settings.max_series, "series")
    return found


def write_file(dataset: Dataset, path: Path, kind: DatasetFormat) -> list[Path]:
    """Write a data set and return the files that were made.

    Raises:
        DatasetFileError: there is something at ``path`` already, or it cannot be written.
    """
    if path.exists():
        raise DatasetFileError(str(path), "it is there already, and nothing is written over")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind is DatasetFormat.NAB:
            return _write_nab(dataset, path)
        table = to_table(dataset)
        if kind is DatasetFormat.CSV:
            table = table.set_column(0, "series", without_formulas(table.column("series")))
            pa_csv.write_csv(table, str(path))
        else:
            pq.write_table(table, str(path), compression="zstd")
    except (OSError, OverflowError, ValueError, ArrowException) as error:
        raise DatasetFileError(str(path), str(error)) from error
    return [path]


def _read_one(path: Path, kind: DatasetFormat, settings: ImportSettings) -> Readings:
    _check_size(path, path.stat().st_size, settings)
    read = _read_csv if kind is DatasetFormat.CSV else _read_parquet
    return _told(path, lambda: from_table(read(path, settings), _stem(path.stem)))


def _read_csv(path: Path, _settings: ImportSettings) -> pa.Table:
    with path.open("rb") as file:
        header = file.readline(65_536)
    names = pa_csv.read_csv(pa.BufferReader(header.rstrip(b"\r\n") + b"\n")).column_names if header.strip() else []
    # Times as text: what they are is decided by all of them, not by those of the first block.
    kinds = {name: pa.float64() if name == VALUE else pa.string() for name in names if name in READ}
    options = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
    return pa_csv.read_csv(path, convert_options=options)


def _read_parquet(path: Path, settings: ImportSettings) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _check_count(path, file.metadata.num_rows, settings.max_readings, "readings")
        names = [name for name in file.schema_arrow.names if name in READ]
        ignored = [name for name in file.schema_arrow.names if name not in READ]
        pieces, size = [], 0
        # Piece by piece: a small file may unpack to more than there is memory.
        for piece in file.iter_batches(columns=names):
            size += piece.nbytes
            _check_size(path, size, settings)
            pieces.append(piece)
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        table = pa.Table.from_batches(pieces, schema=pieces[0].schema if pieces else schema)
    for name in ignored:
        table = table.append_column(name, pa.nulls(table.num_rows))
    return table


def _read_nab(path: Path, settings: ImportSettings, labels: Path | None) -> Readings:
    root = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    if labels is None:
        labels = next((root / name for name in nab.WINDOW_FILES if (root / name).is_file()), None)
    elif not labels.is_file():
        raise DatasetFileError(str(labels), "there is no such file")
    _check_size(path, sum(file.stat().st_size for file in (*files, *([labels] if labels else []))), settings)
    series: list[Series] = []
    keys: dict[str, str] = {}
    dropped = 0
    for file in files:
        relative = file.relative_to(root).as_posix()
        key = nab.key_of(relative)
        if "/" not in key:
            key = f"{IMPORTED}/{_stem(key)}/{VALUE}"
        found = _told(file, partial(_one_nab, file, key, settings))
        if key in keys.values():
            raise DatasetFileError(str(file), f"another file of the folder is the series {key} as well")
        series += found.series
        keys[relative] = key
        dropped += found.dropped
    snapshot: LabelSnapshot = NO_LABELS
    if labels is not None:
        windows = labels
        snapshot = _told(windows, lambda: nab.labels_of(nab.parse_windows(windows.read_bytes()), keys, IMPORTED))
    return Readings(series=tuple(series), labels=snapshot, dropped=dropped)


def _one_nab(file: Path, key: str, settings: ImportSettings) -> Readings:
    table = _read_csv(file, settings)
    columns = {name: table.column(name) for name in table.column_names}
    return from_table(pa.table(columns | {"series": [key] * table.num_rows}), key)


def _write_nab(dataset: Dataset, folder: Path) -> list[Path]:
    paths = {one.key: nab.path_of(one.key) for one in dataset.series}
    made = []
    for one in dataset.series:
        file = folder / paths[one.key]
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(_nab_lines(one))
        made.append(file)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / nab.WINDOWS).write_bytes(nab.dump_windows(dataset.labels, paths))
    return [*made, folder / nab.WINDOWS]


def _nab_lines(one: Series) -> Iterator[str]:
    yield "timestamp,value\n"
    for ts, value in zip(one.ts.tolist(), one.values.tolist(), strict=True):
        yield f"{nab.time_text(ts)},{value!r}\n"


def _check_size(path: Path, size: int, settings: ImportSettings) -> None:
    if size > settings.max_bytes:
        raise DatasetFileError(
            str(path), f"it has {size} bytes, {settings.max_bytes} are let in (WATCHFLOOR_IMPORT_MAX_BYTES)"
        )


def _check_count(path: Path, count: int, most: int, what: str) -> None:
    if count > most:
        limit = f"{most} are let in (WATCHFLOOR_IMPORT_MAX_{what.upper()})"
        raise DatasetFileError(str(path), f"it holds {count} {what}, {limit}")


def _told(path: Path, work: Callable[[], T]) -> T:
    """Do something with a file; whatever is wrong with it names the file."""
    try:
        return work()
    except (OSError, ValueError, ArrowException) as error:
        raise DatasetFileError(str(path), str(error)) from error


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)[:64] or IMPORTED
