"""`watchfloor export` and the readers of the archive: all of it, in bounded memory, and only what one may see."""

import csv
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fakes_ingest import make_reading

from cluster.store import metadata, open_engine
from ingest.alerts.engine import AlertEngine
from ingest.archive import ROW_GROUP_ROWS, SCHEMA, ArchiveStore, StreamId, day_of
from ingest.choices import FileFormat
from ingest.dead_letter import DeadLetter, DeadLetterStore
from ingest.export import ExportQuery, export_telemetry
from ingest.export_files import open_writer
from ingest.payload import Reason
from serve_apps import cli
from serve_apps.auth import issue_token
from tests.fakes_alerts import FakeClock, device_alert

DAY_MS = 86_400_000
MIDNIGHT_MS = 1_789_948_800_000
KEY = b"0123456789abcdef0123456789abcdef"


def nothing(_done: int, _total: int) -> None:
    """A progress that nobody watches."""


def archive(url: str, days: int = 2, per_day: int = 50) -> ArchiveStore:
    """An archive with several files a day, of two tenants with two devices each."""
    store = ArchiveStore(url)
    for day in range(days):
        for part in range(2):
            numbers = range(part * per_day // 2, (part + 1) * per_day // 2)
            ids: list[StreamId] = [(MIDNIGHT_MS + day * DAY_MS + number, 0) for number in numbers]
            readings = [
                dataclasses.replace(
                    make_reading(
                        seq=number,
                        device=("pump-7", "pump-8")[number // 2 % 2],
                        ts=(MIDNIGHT_MS + day * DAY_MS) / 1000 + number,
                    ),
                    tenant=("acme", "globex")[number % 2],
                    values={"temp": 20.0 + number, "rpm": float(number)},
                )
                for number in numbers
            ]
            store.write(day_of(ids[0]), ids, readings)
    return store


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A floor's data folder as a stopped floor leaves it."""
    folder = tmp_path_factory.mktemp("export") / "data"
    folder.mkdir()
    (folder / "secret").write_bytes(KEY)
    archive((folder / "storage").as_uri())
    engine = open_engine(f"sqlite:///{folder}/floor.db")
    metadata.create_all(engine)
    alerts = [
        device_alert(
            number, tenant=("acme", "globex")[number % 2], alert_type=f"kind_{number}", message="=cmd|' /C calc'!A0"
        )
        for number in range(6)
    ]
    AlertEngine(engine, FakeClock()).raise_device_alerts(alerts)
    letters = [
        DeadLetter(f"wf/{tenant}/pump-7/telemetry", Reason.NOT_JSON, "not JSON", b"\xff{", 2, "0" * 64, 100.0, False)
        for tenant in ("acme", "ac_e", "globex")
    ]
    DeadLetterStore(engine, source="test").add(letters)
    engine.dispose()
    return folder


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What the command printed."""

    stdout: str
    stderr: str


Export = Callable[..., Said]


@pytest.fixture
def export(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Export:
    """Run ``watchfloor export`` as the shell does, in this process."""

    def run(*arguments: str, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["watchfloor", "export", *arguments, "--data-dir", str(data_dir)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = Said(*capsys.readouterr())
        assert ended.value.code == code, said
        return said

    return run


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_telemetry_of_a_tenant_a_device_a_metric_and_a_time(export: Export, tmp_path: Path, ending: str) -> None:
    """Each narrows it; the summary says how much it was."""
    out = tmp_path / f"out.{ending}"
    narrowed = ("--tenant", "acme", "--device", "pump-7", "--metric", "temp", "--since", "2026-09-22T00:00:00Z")
    summary = json.loads(export("telemetry", "--out", str(out), *narrowed, "--json").stdout)
    found = rows(out)

    assert {(row["tenant"], row["device"], row["metric"]) for row in found} == {("acme", "pump-7", "temp")}
    assert {day_of((int(float(row["ts"]) * 1000), 0)) for row in found} == {"2026-09-22"}
    assert summary["rows"] == len(found) == 13
    assert (summary["tenant"], summary["format"], summary["size_bytes"]) == ("acme", ending, out.stat().st_size)


def test_alerts_open_in_a_spreadsheet_without_harm(export: Export, tmp_path: Path) -> None:
    """A text that begins like a formula is a text; in JSON it stays as the device sent it."""
    export("alerts", "--out", str(tmp_path / "a.csv"))
    export("alerts", "--out", str(tmp_path / "a.jsonl"))

    assert {row["text"] for row in rows(tmp_path / "a.csv")} == {"'=cmd|' /C calc'!A0"}
    assert {row["text"] for row in rows(tmp_path / "a.jsonl")} == {"=cmd|' /C calc'!A0"}
    assert {type(row["starts_at"]) for row in rows(tmp_path / "a.jsonl")} == {str}


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_every_way_a_formula_begins_is_defused(begin: str) -> None:
    """In CSV; numbers stay numbers."""
    schema = pa.schema([("text", pa.string()), ("value", pa.float64())])
    sink = io.BytesIO()
    with open_writer(FileFormat.CSV, sink, schema) as writer:
        writer.write(pa.table({"text": [f"{begin}1", None, "a=b"], "value": [-1.5, 2.0, None]}, schema=schema))
    found = pa_csv.read_csv(
        io.BytesIO(sink.getvalue()), parse_options=pa_csv.ParseOptions(newlines_in_values=True)
    ).to_pylist()

    assert [row["text"] for row in found] == [f"'{begin}1", "", "a=b"]
    assert [row["value"] for row in found] == [-1.5, 2.0, None]


def test_dead_letters_of_one_tenant(export: Export, tmp_path: Path) -> None:
    """An underscore in a name is no wildcard; the payload is there, whatever its bytes."""
    out = tmp_path / "letters.jsonl"
    export("dead-letters", "--out", str(out), "--tenant", "ac_e", "--device", "pump-7")

    (found,) = rows(out)
    assert (found["topic"], found["payload"]) == ("wf/ac_e/pump-7/telemetry", "/3s=")


def test_rows_may_go_to_standard_output(export: Export) -> None:
    """For pipes; nothing else is said there."""
    done = export("telemetry", "--out", "-", "--format", "jsonl", "--tenant", "globex")

    assert {json.loads(line)["tenant"] for line in done.stdout.splitlines()} == {"globex"}
    assert "rows written" in done.stderr


@pytest.mark.parametrize(
    ("tenant", "roles", "kind", "message"),
    [
        pytest.param("acme", ["viewer"], "telemetry", None, id="own-tenant"),
        pytest.param("acme", ["viewer"], "dead-letters", "needs the role operator", id="role"),
        pytest.param(None, ["viewer"], "alerts", "may not see all tenants", id="nobodys-viewer"),
        pytest.param(None, ["operator"], "alerts", None, id="floor-wide"),
    ],
)
def test_a_token_bounds_what_leaves(
    export: Export, tmp_path: Path, tenant: str | None, roles: Sequence[str], kind: str, message: str | None
) -> None:
    """As the page would show it to its owner."""
    token = issue_token(KEY, sub="ann", tenant=tenant, roles=roles, ttl_s=60)
    out = tmp_path / "out.jsonl"
    done = export(kind, "--out", str(out), "--token", token, code=2 if message else 0)

    if message:
        assert message in done.stderr
        assert not out.exists()
    else:
        assert {row["tenant"] for row in rows(out)} == ({tenant} if tenant else {"acme", "globex"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("telemetry", "--out", "x.txt"), "give --format csv, parquet or jsonl"),
        (("telemetry", "--out", "-", "--format", "parquet"), "Parquet needs a file"),
        (("telemetry", "--out", "x.csv", "--since", "yesterday"), "not a time: 'yesterday'"),
        (("telemetry", "--out", "x.csv", "--since", "1h", "--until", "2h"), "must be before until"),
        (("telemetry", "--out", "x.csv", "--tenant", "a/b"), "tenant must be 1-64"),
        (("dead-letters", "--out", "x.csv", "--metric", "temp"), "dead letters have no metric"),
        (("alerts", "--out", "/nowhere/x.csv"), "No such file or directory"),
        (("alerts", "--out", "x.csv", "--token", "abc"), "the token is refused"),
    ],
)
def test_a_mistake_is_one_sentence(export: Export, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """And leaves no file behind."""
    placed = [str(tmp_path / part) if part.startswith("x.") else part for part in arguments]
    done = export(*placed, code=2)

    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_large_archive_passes_through_little_memory(tmp_path: Path) -> None:
    """A million rows of one file: never more than a row group or two of it at a time."""
    url = (tmp_path / "storage").as_uri()
    num_rows = 1_000_000
    folder = tmp_path / "storage" / "telemetry" / "date=2026-09-21"
    folder.mkdir(parents=True)
    columns = {
        "tenant": pa.array(["acme"] * num_rows), "device": pa.array(["pump-7"] * num_rows),
        "metric": pa.array(["temp"] * num_rows), "ts": pa.array(range(num_rows), pa.float64()),
        "value": pa.array(range(num_rows), pa.float64()), "boot_id": pa.array(["boot"] * num_rows),
        "seq": pa.array(range(num_rows), pa.int64()), "recorded_at": pa.nulls(num_rows, pa.string()),
        "received_at": pa.array(range(num_rows), pa.float64()), "reading_id": pa.array(["0-1"] * num_rows),
    }  # fmt: skip
    table = pa.table(columns, schema=SCHEMA)
    whole_bytes = table.nbytes
    pq.write_table(
        table,
        folder / f"{MIDNIGHT_MS}-0_{MIDNIGHT_MS + 1}-0.parquet",
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
    )
    del table, columns
    before = pa.total_allocated_bytes()
    most = 0
    found = 0
    for piece in export_telemetry(ArchiveStore(url), ExportQuery(), nothing).tables:
        found += piece.num_rows
        time.sleep(0.01)  # a reader that is slower than the disk
        most = max(most, pa.total_allocated_bytes() - before)

    assert found == num_rows
    assert most < 48 * 1024 * 1024 < whole_bytes


@pytest.fixture(scope="module")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive as other readers find it, with a file that is being written."""
    root = tmp_path_factory.mktemp("readers") / "storage"
    archive(root.as_uri())
    (root / "telemetry" / "date=2026-09-21" / ".1-0_2-0.parquet.tmp").write_bytes(b"PAR1")
    return root / "telemetry"


class TestReaders:
    """The archive is read by whoever reads Parquet with hive partitions; see docs/operations.md."""

    def test_pyarrow_sees_days_as_a_column(self, archive_folder: Path) -> None:
        """A filter on the day opens its files only."""
        found = ds.dataset(archive_folder, format="parquet", partitioning="hive")

        assert found.to_table(filter=ds.field("date") == "2026-09-21").num_rows == 100
        assert found.count_rows() == 200

    def test_duckdb_reads_it(self, archive_folder: Path) -> None:
        """By one line of SQL."""
        duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed: pip install duckdb")
        files = f"read_parquet('{archive_folder}/*/*.parquet', hive_partitioning=true)"
        query = f"SELECT date, count(*), max(value) FROM {files} GROUP BY date ORDER BY date"

        assert [(str(day), number, top) for day, number, top in duckdb.sql(query).fetchall()] == [
            ("2026-09-21", 100, 69.0),
            ("2026-09-22", 100, 69.0),
        ]
