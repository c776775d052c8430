"""The telemetry archive: Parquet files by day of arrival, and how they are read back.

    {storage}/telemetry/date=2026-11-23/1764000000000-0_1764000004999-3.parquet

A file is named after the first and the last stream id in it and holds *every* reading of
its day between them. That makes writing idempotent without a journal: a reading whose id
lies inside a file of its day is archived. Knows files and tables; no Valkey, no Ray.
Invariant: a file appears complete or not at all, and files of a day do not overlap --
except for one moment of a compaction, which readers see through and the next one tidies.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from cluster.whole_file import is_unfinished, replacing
from ingest.payload import Reading
from ingest.store_bounds import StoreUsage

logger = logging.getLogger(__name__)

FOLDER = "telemetry"
ROW_GROUP_ROWS = 131_072
"""What a reader holds at least: 10 MiB or so."""
PIECE_ROWS = 32_768
SCHEMA = pa.schema(
    [
        ("tenant", pa.string()),
        ("device", pa.string()),
        ("metric", pa.string()),
        ("ts", pa.float64()),
        ("value", pa.float64()),
        ("boot_id", pa.string()),
        ("seq", pa.int64()),
        ("recorded_at", pa.string()),
        ("received_at", pa.float64()),
        ("reading_id", pa.string()),
    ]
)
"""One row per metric of a reading. ``seq`` is null where the device gave no key; ``reading_id`` is the stream id."""

LEAVES_AT = 0.95
"""Part of the size bound at which the oldest days leave: at the bound itself ingest stops."""

_NAME = re.compile(r"(\d+-\d+)_(\d+-\d+)\.parquet")
_DAY = re.compile(r"date=(\d{4}-\d{2}-\d{2})")

StreamId = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """How often the archive is written, and how much of it is kept."""

    flush_s: float = 5.0
    """Longest time a reading waits for its file, in seconds."""
    flush_rows: int = 50_000
    """Readings after which a file is written at once."""
    compact_files: int = 24
    """Small files of a day that are merged into one."""
    small_bytes: int = 16 * 1024 * 1024
    """Size below which a file counts as small, in bytes."""
    max_age_days: int = 90
    """Days kept; older ones are deleted whole."""
    max_bytes: int = 20 * 1024**3
    """Bound of the archive's size, in bytes: shortly before it the oldest days are deleted; today always stays,
    and if it alone reaches the bound, ingest stops acknowledging readings."""

    def __post_init__(self) -> None:
        if self.flush_s <= 0 or self.flush_rows < 1:
            raise ValueError("flush_s and flush_rows must be positive")
        if self.compact_files < 2:
            raise ValueError(f"compact_files must be at least 2, got {self.compact_files}")
        if self.max_age_days < 1 or self.max_bytes < 1 or self.small_bytes < 1:
            raise ValueError("max_age_days, max_bytes and small_bytes must be at least 1")


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of the archive, by its name."""

    path: str
    day: str
    first: StreamId
    last: StreamId
    size_bytes: int

    def covers(self, other: "ArchiveFile") -> bool:
        """Say whether all of ``other`` is inside this file too."""
        return self != other and self.day == other.day and self.first <= other.first and other.last <= self.last


def read_telemetry(
    storage_url: str,
    tenant: str | None = None,
    devices: Sequence[str] | None = None,
    since: float | None = None,
) -> pa.Table:
    """Return archived telemetry, ordered by tenant, device, metric, ts and seq.

    Args:
        storage_url: the floor's storage, as ``Settings.storage_url``.
        tenant: this tenant only; None: all.
        devices: these devices only; None: all.
        since: device time in seconds since the epoch from which on rows are wanted; None: all.

    Returns:
        A table of ``SCHEMA``; empty when nothing is archived yet.
    """
    store = ArchiveStore(storage_url)
    wanted = None
    for condition in (
        pc.field("tenant") == tenant if tenant is not None else None,
        pc.field("device").isin(list(devices)) if devices is not None else None,
        pc.field("ts") >= since if since is not None else None,
    ):
        if condition is not None:
            wanted = condition if wanted is None else wanted & condition
    tables = [store.read(file, wanted) for file in store.files()]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    order = [(name, "ascending") for name in ("tenant", "device", "metric", "ts", "seq")]
    return table.sort_by(order)


class ArchiveStore:
    """The archive's files under one storage URL."""

    def __init__(self, storage_url: str) -> None:
        self._fs, root = fs.FileSystem.from_uri(storage_url)
        self._root = f"{root.rstrip('/')}/{FOLDER}"

    def files(self) -> list[ArchiveFile]:
        """Return the files that hold the archive, in stream order; leftovers of a compaction are left out."""
        found = self._listed()
        covered = set(_covered(found))
        return [file for file in found if file not in covered]

    def archived_through(self, day: str) -> StreamId:
        """Return the last stream id archived for ``day``; (0, 0) when none is."""
        return max((file.last for file in self._listed(day)), default=(0, 0))

    def write(self, day: str, ids: Sequence[StreamId], readings: Sequence[Reading]) -> ArchiveFile:
        """Write one file; when this returns, it is durable. ``ids`` ascend and belong to ``readings``."""
        table = to_table(ids, readings)
        return self._write_table(day, ids[0], ids[-1], table)

    def read(self, file: ArchiveFile, wanted: pc.Expression | None = None) -> pa.Table:
        """Return the rows of one file."""
        return pq.read_table(file.path, filesystem=self._fs, filters=wanted, schema=SCHEMA, partitioning=None)

    def read_pieces(self, file: ArchiveFile, wanted: pc.Expression | None = None) -> Iterator[pa.Table]:
        """Yield the rows of one file in pieces of at most ``PIECE_ROWS``; only one is in memory."""
        source = ds.dataset(file.path, filesystem=self._fs, schema=SCHEMA, format="parquet")
        (whole,) = source.get_fragments()
        # A row group at a time: read as a whole, the next ones are fetched while a slow reader has the first.
        for group in whole.split_by_row_group(wanted, schema=SCHEMA):
            for piece in group.to_batches(
                schema=SCHEMA, filter=wanted, batch_size=PIECE_ROWS, batch_readahead=0, use_threads=False
            ):
                yield pa.Table.from_batches([piece], schema=SCHEMA)

    def compact(self, day: str, settings: ArchiveSettings) -> int:
        """Merge the small files of a day when there are enough of them; return how many went into one.

        What a killed writer left unfinished goes. For the one writer of the archive.
        """
        self._remove(_covered(self._listed(day)))
        self._remove_unfinished(day)
        merged = 0
        for run in _small_runs(self._listed(day), settings.small_bytes):
            if len(run) < settings.compact_files:
                continue
            table = pa.concat_tables([self.read(file) for file in run])
            self._write_table(day, run[0].first, run[-1].last, table)
            # A crash here leaves the parts beside the whole: readers ignore them, the next call removes them.
            self._remove(run)
            merged += len(run)
        return merged

    def size_bytes(self) -> int:
        """Return the size of all files together."""
        return sum(file.size_bytes for file in self._listed())

    def usage(self) -> StoreUsage:
        """Return the size of all files together, and when the oldest day began."""
        files = self._listed()
        oldest = min((_start_of(file.day) for file in files), default=None)
        return StoreUsage(sum(file.size_bytes for file in files), oldest)

    def expire(self, today: str, settings: ArchiveSettings) -> list[str]:
        """Delete the days beyond the age or the size bound, oldest first; return them."""
        files = self._listed()
        sizes: dict[str, int] = {}
        for file in files:
            sizes[file.day] = sizes.get(file.day, 0) + file.size_bytes
        oldest = _start_of(today) - settings.max_age_days * 86_400
        total = sum(sizes.values())
        deleted = []
        for day in sorted(sizes):
            too_old = _start_of(day) < oldest
            if day == today or not (too_old or total > settings.max_bytes * LEAVES_AT):
                continue
            self._fs.delete_dir(f"{self._root}/date={day}")
            total -= sizes[day]
            deleted.append(day)
        return deleted

    def _listed(self, day: str | None = None) -> list[ArchiveFile]:
        folder = f"{self._root}/date={day}" if day else self._root
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)
        found = []
        for info in self._fs.get_file_info(selector):
            name = _NAME.fullmatch(info.base_name)
            place = _DAY.search(info.path)
            if name and place:
                found.append(ArchiveFile(info.path, place[1], stream_id(name[1]), stream_id(name[2]), info.size))
        return sorted(found, key=lambda file: (file.day, file.first, file.last))

    def _write_table(self, day: str, first: StreamId, last: StreamId, table: pa.Table) -> ArchiveFile:
        folder = f"{self._root}/date={day}"
        path = f"{folder}/{_id_text(first)}_{_id_text(last)}.parquet"
        if isinstance(self._fs, fs.LocalFileSystem):
            Path(folder).mkdir(parents=True, exist_ok=True)
            with replacing(Path(path)) as file:
                pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        else:
            # Object stores show an object only when its upload has ended.
            pq.write_table(table, path, filesystem=self._fs, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        return ArchiveFile(path, day, first, last, self._fs.get_file_info(path).size)

    def _remove_unfinished(self, day: str) -> None:
        """Delete what writers that were killed have left; there is no other writer, and no bound counts these files."""
        selector = fs.FileSelector(f"{self._root}/date={day}", allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if is_unfinished(info.base_name):
                self._fs.delete_file(info.path)

    def _remove(self, files: Iterable[ArchiveFile]) -> None:
        for file in files:
            self._fs.delete_file(file.path)


def to_table(ids: Sequence[StreamId], readings: Sequence[Reading]) -> pa.Table:
    """Return one row per metric of each reading."""
    rows: list[tuple[object, ...]] = []
    for entry_id, reading in zip(ids, readings, strict=True):
        text = _id_text(entry_id)
        rows.extend(
            (
                reading.tenant,
                reading.device,
                metric,
                reading.ts,
                value,
                reading.boot_id,
                reading.seq,
                reading.recorded_at,
                reading.received_at,
                text,
            )
            for metric, value in reading.values.items()
        )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(SCHEMA)
    return pa.Table.from_arrays(
        [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def stream_id(text: str) -> StreamId:
    """Return a stream id in the form that sorts."""
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def _start_of(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


def day_of(entry_id: StreamId) -> str:
    """Return the day (UTC) on which a reading arrived, from its stream id."""
    return datetime.fromtimestamp(entry_id[0] / 1000, UTC).date().isoformat()


def _id_text(entry_id: StreamId) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


def _covered(files: Sequence[ArchiveFile]) -> list[ArchiveFile]:
    found = []
    whole: ArchiveFile | None = None
    # Widest first among those that begin together, so one pass meets every part after its whole.
    for file in sorted(files, key=lambda file: (file.day, file.first, (-file.last[0], -file.last[1]))):
        if whole is not None and whole.covers(file):
            found.append(file)
        else:
            whole = file
    return found


def _small_runs(files: Sequence[ArchiveFile], small_bytes: int) -> list[list[ArchiveFile]]:
    runs: list[list[ArchiveFile]] = [[]]
    for file in files:
        if file.size_bytes < small_bytes:
            runs[-1].append(file)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
