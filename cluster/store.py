"""The SQL store: one metadata for all folders, one way to open and to write.

Each folder declares its tables on ``metadata`` beside the code that owns them; the
schema itself is created by the migrations only. Invariant: on SQLite every write
transaction is BEGIN IMMEDIATE, because a deferred one that reads first fails with
"database is locked" as soon as two processes write.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import make_url

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

BUSY_TIMEOUT_MS = 5000
BUSY_RETRY_S = 0.01


def open_engine(url: str) -> Engine:
    """Return an engine for ``url`` with the durability that the floor promises.

    SQLite gets WAL, ``synchronous=FULL`` (a commit has reached the disk when it returns)
    and a busy time-out; other databases keep their own defaults.
    """
    codec: dict[str, Any] = {"json_serializer": _to_json, "json_deserializer": orjson.loads}
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_timeout=10, **codec)
    arguments = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **codec)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_deferred)
    return engine


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that may write; it commits on leaving and rolls back on an error."""
    with engine.connect().execution_options(wf_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads: a consistent view, no lock held against writers."""
    with engine.connect() as connection, connection.begin():
        yield connection


def _to_json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a number beyond 64 bits, a key that is no text
        return json.dumps(value)


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver's own transaction handling is switched off: BEGIN is ours (see _begin_deferred).
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    # Two processes that open a new database at the same moment both want to change its mode, and for that
    # SQLite does not wait: the busy time-out would let them wait for each other.
    give_up_at_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= give_up_at_s:
                raise
            time.sleep(BUSY_RETRY_S)
        else:
            return


def _begin_deferred(connection: Connection) -> None:
    writes = connection.get_execution_options().get("wf_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
