"""The SQL store: one metadata for all folders, one way to open and to write.

Each folder declares its tables on ``metadata`` beside the code that owns them; the
schema itself is created by the migrations only. Invariants: on SQLite every write
transaction is BEGIN IMMEDIATE, because a deferred one that reads first fails with
"database is locked" as soon as two processes write; on PostgreSQL every transaction is
REPEATABLE READ, so of two that read a row and then write it the second one fails, and
never overwrites what it has not seen. ``in_write`` begins such a one again.
"""

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from cluster.sql_circuit import GuardedTransaction

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

STATEMENT_TIMEOUT_S = 10.0
"""Longest work of PostgreSQL on one statement."""
MAX_ATTEMPTS = 8
"""Tries of a transaction that others are in the way of (PostgreSQL only: SQLite lets one writer in at a time)."""
LONGEST_PAUSE_S = 0.05
BEGIN_AGAIN = frozenset({"40001", "40P01"})
"""SQLSTATEs of PostgreSQL for a transaction that did not work out and would, begun again: serialization, deadlock."""

T = TypeVar("T")


def open_engine(url: str, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> Engine:
    """Return an engine for ``url`` with the durability that the floor promises.

    SQLite gets WAL, ``synchronous=FULL`` (a commit has reached the disk when it returns)
    and a busy time-out; PostgreSQL gets a limit on every wait.
    """
    codec: dict[str, Any] = {"json_serializer": to_json, "json_deserializer": orjson.loads}
    if make_url(url).get_backend_name() != "sqlite":
        from cluster.postgres import open_postgres  # its driver takes 80 ms to load

        return open_postgres(url, statement_timeout_s=statement_timeout_s, **codec)
    arguments = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **codec)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_deferred)
    return engine


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that may write; it commits on leaving and rolls back on an error."""
    with _guarded(engine), engine.connect().execution_options(wf_write=True) as connection, connection.begin():
        yield connection


def in_write(engine: Engine, step: Callable[[Connection], T]) -> T:
    """Run ``step`` in a write transaction and return its result; again from the start while others collide with it.

    For whoever decides by what it reads: on PostgreSQL ``write_transaction`` alone raises when another writer
    changed that meanwhile.

    Raises:
        sqlalchemy.exc.DBAPIError: the last collision, after ``MAX_ATTEMPTS``; what ``step`` raises passes at once.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            with write_transaction(engine) as connection:
                return step(connection)
        except DBAPIError as error:
            if attempt == MAX_ATTEMPTS or not is_collision(error):
                raise
            time.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311 -- jitter, so that two do not meet again
    raise AssertionError("unreachable")


def is_collision(error: DBAPIError) -> bool:
    """Say whether the transaction failed only because another one ran at the same time."""
    return getattr(error.orig, "sqlstate", None) in BEGIN_AGAIN


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads: a consistent view, no lock held against writers."""
    with _guarded(engine), engine.connect() as connection, connection.begin():
        yield connection


def _guarded(engine: Engine) -> AbstractContextManager[object]:
    """Return the circuit around a transaction: while a server is away, nobody waits for its time-outs one by one."""
    if engine.dialect.name == "sqlite":
        return nullcontext()  # a file is there or it is not, and says so at once
    return GuardedTransaction(engine)


def to_json(value: Any) -> str:
    """Return ``value`` as a JSON column keeps it."""
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
