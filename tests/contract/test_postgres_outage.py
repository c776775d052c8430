"""A PostgreSQL that dies or stands still: calls end in time, in our words, and go on by themselves."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from cluster.store import open_engine
from ingest.directory import DeviceDirectory
from ingest.errors import StoreUnavailableError
from ingest.sql_errors import translated
from tests.ingest_parts import eventually
from tests.postgres import MIGRATED, Postgres

pytestmark = pytest.mark.postgres

ANSWER_S = 1.0


@pytest.fixture
def engine(migrated_postgres: Postgres) -> Iterator[Engine]:
    for url in migrated_postgres.lend_database(MIGRATED):
        engine = open_engine(url, statement_timeout_s=ANSWER_S)
        yield engine
        engine.dispose()


def is_written(engine: Engine) -> bool:
    """Try to write, as a lane of ingest does."""
    try:
        with translated("sql"):
            DeviceDirectory(engine).saw({("acme", "pump-7"): time.time()})
    except StoreUnavailableError:
        return False
    return True


def test_a_killed_server_is_unavailable_and_comes_back(engine: Engine, migrated_postgres: Postgres) -> None:
    """Pooled connections that died with it are replaced without anyone noticing."""
    assert is_written(engine)
    migrated_postgres.kill()
    try:
        assert not is_written(engine)
    finally:
        migrated_postgres.start()

    assert eventually(lambda: is_written(engine))
    assert DeviceDirectory(engine).get("acme", "pump-7") is not None


def test_a_stopped_server_blocks_nobody_for_long(engine: Engine, migrated_postgres: Postgres) -> None:
    """The connection stays open and nothing answers: the call ends all the same."""
    assert is_written(engine)
    migrated_postgres.pause()
    try:
        started_s = time.monotonic()
        assert not is_written(engine)
        # The limit of one answer, of the connection that replaces the broken one, and a busy machine.
        assert time.monotonic() - started_s < 30
    finally:
        migrated_postgres.resume()

    assert eventually(lambda: is_written(engine))


def test_a_row_locked_for_long_is_an_outage_and_no_hang(engine: Engine) -> None:
    """Whoever holds the lock may be a stopped process."""
    directory = DeviceDirectory(engine)
    directory.saw({("acme", "pump-7"): 1.0})
    with engine.connect() as holder, holder.begin():
        holder.exec_driver_sql("SELECT 1 FROM devices FOR UPDATE")

        assert not is_written(engine)

    assert is_written(engine)
