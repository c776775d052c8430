"""A PostgreSQL that dies or stands still: calls end in time, in our words, and go on by themselves."""

import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from cluster.breaker import get_breaker
from cluster.circuit import CircuitState, SharedState
from cluster.sql_circuit import SqlCircuitOpenError, circuit_of, is_outage
from cluster.store import open_engine, read_transaction
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
    """The connection stays open and nothing answers: the call ends all the same, and the next ones at once."""
    assert is_written(engine)
    circuit = get_breaker().circuit(circuit_of(engine))
    for _ in range(2):  # the third in a row opens the circuit
        circuit.fail(circuit.ticket, time.monotonic())
    migrated_postgres.pause()
    try:
        started_s = time.monotonic()
        assert not is_written(engine)
        # The limit of one answer, of the connection that replaces the broken one, and a busy machine.
        assert time.monotonic() - started_s < 30
        circuit.adopt(SharedState(state=CircuitState.OPEN, remaining_s=60.0), time.monotonic())  # for a slow machine
        with pytest.raises(SqlCircuitOpenError), read_transaction(engine):
            pytest.fail("a transaction began while the circuit is open")
        assert not is_written(engine), "and ingest calls it an outage, like any other"
    finally:
        migrated_postgres.resume()
        assert circuit.last_error
        circuit.adopt(SharedState(state=CircuitState.OPEN, remaining_s=0.0), time.monotonic())

    assert eventually(lambda: is_written(engine))
    assert circuit.state is CircuitState.CLOSED


@pytest.mark.parametrize(
    ("state", "is_away"),
    [
        pytest.param(None, True, id="no-connection"),
        pytest.param("57P01", True, id="it-shuts-down"),
        pytest.param("57014", False, id="a-slow-statement"),
        pytest.param("53100", False, id="its-disk-is-full"),
        pytest.param("40001", False, id="a-collision"),
    ],
)
def test_what_the_server_answers_is_no_outage(state: str | None, is_away: bool) -> None:
    """A circuit that opened for a slow query would take the store from everybody."""
    cause = psycopg.OperationalError("x")
    cause.sqlstate = state

    assert is_outage(OperationalError(None, None, cause)) is is_away


def test_a_row_locked_for_long_is_an_outage_and_no_hang(engine: Engine) -> None:
    """Whoever holds the lock may be a stopped process."""
    directory = DeviceDirectory(engine)
    directory.saw({("acme", "pump-7"): 1.0})
    with engine.connect() as holder, holder.begin():
        holder.exec_driver_sql("SELECT 1 FROM devices FOR UPDATE")

        assert not is_written(engine)

    assert is_written(engine)
