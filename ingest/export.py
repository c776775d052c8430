"""Stored telemetry, alerts and dead letters as streams of tables, piece by piece.

Reads only. Invariants: no more than one piece is in memory, however much is asked for; a
query with a tenant yields rows of that tenant and of no other.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, Engine, Float, Integer, Select, Table, func, or_, select

from cluster.store import read_transaction
from ingest.alerts.tables import alerts
from ingest.archive import SCHEMA, ArchiveStore
from ingest.dead_letter import dead_letters
from ingest.sql_errors import translated

PAGE_ROWS = 1000
SQL = "sql"

Progress = Callable[[int, int], None]
"""Hears how many units of how many are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuery:
    """Which rows are wanted; None and empty mean all."""

    tenant: str | None = None
    devices: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    since: float | None = None
    """From this time on, in seconds since the epoch: of the device (telemetry), of the beginning (alerts), of the
    last arrival (dead letters)."""
    until: float | None = None
    """Before this time."""


@dataclass(frozen=True, slots=True)
class Export:
    """A stream of tables of one schema."""

    schema: pa.Schema
    tables: Iterator[pa.Table]


def export_telemetry(archive: ArchiveStore, query: ExportQuery, progress: Progress) -> Export:
    """Return archived readings in the order of their arrival; ``progress`` counts bytes of files.

    What came within the last seconds is not archived yet. An archived file is read in row groups.
    """
    conditions = [
        *([pc.field("tenant") == query.tenant] if query.tenant is not None else []),
        *([pc.field("device").isin(list(query.devices))] if query.devices else []),
        *([pc.field("metric").isin(list(query.metrics))] if query.metrics else []),
        *([pc.field("ts") >= query.since] if query.since is not None else []),
        *([pc.field("ts") < query.until] if query.until is not None else []),
    ]
    wanted = None
    for condition in conditions:
        wanted = condition if wanted is None else wanted & condition

    def tables() -> Iterator[pa.Table]:
        files = archive.files()
        total = sum(file.size_bytes for file in files)
        done = 0
        for file in files:
            for piece in archive.read_pieces(file, wanted):
                if piece.num_rows:
                    yield piece
            done += file.size_bytes
            progress(done, total)

    return Export(SCHEMA, tables())


def export_alerts(engine: Engine, query: ExportQuery, progress: Progress) -> Export:
    """Return alerts as they are now, oldest first, without their evidence; ``progress`` counts rows."""
    conditions = [
        *_conditions(query, tenant=alerts.c.tenant, device=alerts.c.device_id, at=alerts.c.starts_at),
        *([alerts.c.metric.in_(query.metrics)] if query.metrics else []),
    ]
    columns = [column for column in alerts.c if column.name not in {"evidence", "severity_rank"}]
    return _export_rows(engine, alerts, select(*columns).where(*conditions), progress)


def export_dead_letters(engine: Engine, topic_root: str, query: ExportQuery, progress: Progress) -> Export:
    """Return dead letters, the first one first, with what was kept of their payload in base64.

    Raises:
        ValueError: metrics are asked for; what cannot be used has none.
    """
    if query.metrics:
        raise ValueError("dead letters have no metric to choose by")
    conditions = _conditions(query, tenant=None, device=None, at=dead_letters.c.last_at)
    if query.tenant is not None:
        conditions.append(dead_letters.c.topic.startswith(f"{topic_root}/{query.tenant}/", autoescape=True))
    if query.devices:
        of_devices = (device.replace("_", r"\_") for device in query.devices)
        conditions.append(or_(*(dead_letters.c.topic.like(f"%/{device}/%", escape="\\") for device in of_devices)))
    columns = [column for column in dead_letters.c if column.name != "key"]
    return _export_rows(engine, dead_letters, select(*columns).where(*conditions), progress)


def _conditions(query: ExportQuery, *, tenant: Any | None, device: Any | None, at: Any) -> list[ColumnElement[bool]]:
    return [
        *([tenant == query.tenant] if tenant is not None and query.tenant is not None else []),
        *([device.in_(query.devices)] if device is not None and query.devices else []),
        *([at >= query.since] if query.since is not None else []),
        *([at < query.until] if query.until is not None else []),
    ]


def _export_rows(engine: Engine, table: Table, wanted: Select[Any], progress: Progress) -> Export:
    (key,) = table.primary_key
    names = [column.name for column in wanted.selected_columns]
    schema = pa.schema([(name, _type_of(table, name)) for name in names])

    def tables() -> Iterator[pa.Table]:
        # A page is a transaction of its own: none is held open for as long as somebody's disk takes.
        last: Any = None
        done = 0
        with translated(SQL), read_transaction(engine) as connection:
            total = int(connection.execute(select(func.count()).select_from(wanted.subquery())).scalar_one())
        while True:
            page = wanted.order_by(key).limit(PAGE_ROWS)
            if last is not None:
                page = page.where(key > last)
            with translated(SQL), read_transaction(engine) as connection:
                rows = connection.execute(page).all()
            if not rows:
                return
            last = rows[-1]._mapping[key.name]
            columns = list(zip(*rows, strict=True))
            arrays = [_array(column, field) for column, field in zip(columns, schema, strict=True)]
            yield pa.Table.from_arrays(arrays, schema=schema)
            done += len(rows)
            progress(done, max(done, total))

    return Export(schema, tables())


def _type_of(table: Table, name: str) -> pa.DataType:
    if name == "at" or name.endswith("_at"):
        # Of a recorded reading it is the device's own text.
        return pa.string() if name == "recorded_at" else pa.timestamp("ms", tz="UTC")
    kind = table.c[name].type
    if isinstance(kind, Integer):
        return pa.int64()
    return pa.float64() if isinstance(kind, Float) else pa.string()


def _array(column: tuple[Any, ...], field: pa.Field) -> pa.Array:
    if pa.types.is_timestamp(field.type):
        return pa.array([None if at is None else round(at * 1000) for at in column], pa.int64()).cast(field.type)
    if pa.types.is_string(field.type):
        return pa.array([_text(value) for value in column], field.type)
    return pa.array(column, field.type)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
