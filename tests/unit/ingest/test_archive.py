"""The Parquet archive: written once, readable whole, compacted, bounded."""

import dataclasses
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from fakes_ingest import make_reading

from ingest.archive import (
    SCHEMA,
    ArchiveSettings,
    ArchiveStore,
    StreamId,
    day_of,
    read_telemetry,
    stream_id,
)
from ingest.payload import Reading

DAY = "2026-09-21"
MIDNIGHT_MS = 1_789_948_800_000


def ids(first: int, count: int) -> list[StreamId]:
    return [(MIDNIGHT_MS + number, 0) for number in range(first, first + count)]


def readings(first: int, count: int) -> list[Reading]:
    return [make_reading(seq=number, ts=MIDNIGHT_MS / 1000 + number) for number in range(first, first + count)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/storage"


@pytest.fixture
def store(url: str) -> ArchiveStore:
    return ArchiveStore(url)


def test_an_empty_archive_is_an_empty_table(url: str) -> None:
    """Training on nothing gets a table it can look at, not an error."""
    table = read_telemetry(url)

    assert (table.num_rows, table.schema) == (0, SCHEMA)


def test_what_is_written_is_read(url: str, store: ArchiveStore) -> None:
    """One row per metric, with all that identifies it."""
    reading = dataclasses.replace(
        readings(1, 1)[0], values={"temp": 20.5, "rpm": 3.0}, recorded_at="2013-12-02T21:15:00Z"
    )
    store.write(DAY, ids(1, 1), [reading])

    assert read_telemetry(url).to_pylist() == [
        {
            "tenant": "acme",
            "device": "pump-7",
            "metric": metric,
            "ts": reading.ts,
            "value": value,
            "boot_id": "b1",
            "seq": 1,
            "recorded_at": "2013-12-02T21:15:00Z",
            "received_at": reading.received_at,
            "reading_id": f"{MIDNIGHT_MS + 1}-0",
        }
        for metric, value in (("rpm", 3.0), ("temp", 20.5))
    ]


def test_a_reader_chooses_tenant_devices_and_time(url: str, store: ArchiveStore) -> None:
    """Filters apply before anything is loaded."""
    mixed = [make_reading(1, "a", ts=10.0), make_reading(1, "b", ts=20.0), make_reading(1, "c", ts=30.0)]
    store.write(DAY, ids(1, 3), mixed)

    assert read_telemetry(url, devices=["a", "b"]).column("device").to_pylist() == ["a", "b"]
    assert read_telemetry(url, tenant="acme", since=20.0).column("device").to_pylist() == ["b", "c"]
    assert read_telemetry(url, tenant="beta").num_rows == 0


def test_other_tools_read_the_folder(url: str, store: ArchiveStore, tmp_path: Path) -> None:
    """It is a plain hive-partitioned data set; an unfinished file does not disturb it."""
    store.write(DAY, ids(1, 3), readings(1, 3))
    (tmp_path / "storage" / "telemetry" / f"date={DAY}" / ".unfinished.parquet.tmp").write_bytes(b"PAR1")

    table = ds.dataset(f"{tmp_path}/storage/telemetry", partitioning="hive").to_table()

    assert table.num_rows == 3
    assert set(table.column("date").to_pylist()) == {DAY}


def test_what_a_killed_writer_left_goes(store: ArchiveStore, tmp_path: Path) -> None:
    """With the next look at the day, and nothing else does."""
    store.write(DAY, ids(1, 3), readings(1, 3))
    folder = tmp_path / "storage" / "telemetry" / f"date={DAY}"
    (folder / ".1-0_2-0.parquet.77-77.tmp").write_bytes(b"PAR1")
    kept = {one.name for one in folder.glob("*.parquet")}
    store.compact(DAY, ArchiveSettings())

    assert {one.name for one in folder.iterdir()} == kept


def test_the_archive_knows_how_far_it_got(store: ArchiveStore) -> None:
    """That is how a reading delivered again is recognised."""
    assert store.archived_through(DAY) == (0, 0)
    store.write(DAY, ids(1, 3), readings(1, 3))
    store.write(DAY, ids(4, 3), readings(4, 3))

    assert store.archived_through(DAY) == (MIDNIGHT_MS + 6, 0)


def test_small_files_become_one(url: str, store: ArchiveStore) -> None:
    """The rows stay, the files go."""
    for first in range(0, 30, 3):
        store.write(DAY, ids(first, 3), readings(first, 3))

    assert store.compact(DAY, ArchiveSettings(compact_files=10)) == 10
    assert len(store.files()) == 1
    assert read_telemetry(url).column("seq").to_pylist() == list(range(30))
    assert store.compact(DAY, ArchiveSettings(compact_files=10)) == 0


def test_big_files_are_left_alone(store: ArchiveStore) -> None:
    """And what lies on both sides of one is not merged across it."""
    store.write(DAY, ids(0, 2), readings(0, 2))
    big = store.write(DAY, ids(2, 500), readings(2, 500))
    store.write(DAY, ids(502, 2), readings(502, 2))
    store.write(DAY, ids(504, 2), readings(504, 2))

    assert store.compact(DAY, ArchiveSettings(compact_files=2, small_bytes=big.size_bytes)) == 2
    assert [(file.first[0] - MIDNIGHT_MS, file.last[0] - MIDNIGHT_MS) for file in store.files()] == [
        (0, 1),
        (2, 501),
        (502, 505),
    ]


def test_a_compaction_that_was_killed_shows_nothing_twice(url: str, store: ArchiveStore) -> None:
    """The whole is there, its parts not yet gone: readers see each row once, and the next turn tidies."""
    for first in (0, 3, 6):
        store.write(DAY, ids(first, 3), readings(first, 3))
    store.write(DAY, ids(0, 9), readings(0, 9))

    assert read_telemetry(url).column("seq").to_pylist() == list(range(9))
    store.compact(DAY, ArchiveSettings())
    assert len(store.files()) == 1
    assert read_telemetry(url).num_rows == 9


def test_old_days_leave_first(store: ArchiveStore) -> None:
    """By age, then by size; today always stays."""
    for day in ("2026-01-01", "2026-09-19", "2026-09-20", DAY):
        store.write(day, ids(1, 3), readings(1, 3))

    assert store.expire(DAY, ArchiveSettings(max_age_days=90)) == ["2026-01-01"]
    assert store.expire(DAY, ArchiveSettings(max_bytes=1)) == ["2026-09-19", "2026-09-20"]
    assert {file.day for file in store.files()} == {DAY}


def test_days_are_utc_days_of_arrival() -> None:
    """The day comes from the stream id, so it is the same whoever computes it."""
    assert day_of((MIDNIGHT_MS, 0)) == DAY
    assert day_of((MIDNIGHT_MS - 1, 0)) == "2026-09-20"
    assert stream_id("1789948800000-7") == (MIDNIGHT_MS, 7)
