"""The migrations lead to the declared tables on both databases, from nothing and from an older floor."""

import subprocess
import sys

from sqlalchemy import func, inspect, select

from cluster import migrate
from cluster.store import metadata, open_engine, read_transaction, write_transaction
from ingest.dead_letter import dead_letters

FIRST = "0001"


def test_migrations_and_tables_agree(empty_database_url: str) -> None:
    """Every table is there, and autogenerate finds nothing left to do."""
    migrate.upgrade(empty_database_url)
    migrate.load_tables()
    engine = open_engine(empty_database_url)
    found = set(inspect(engine).get_table_names())
    engine.dispose()

    assert set(metadata.tables) == found - {"alembic_version"}
    assert migrate.differences(empty_database_url) == []


def test_two_upgrades_at_a_time_do_it_once(empty_database_url: str) -> None:
    """One waits for the other and finds it done, on every node of a floor."""
    program = f"from cluster import migrate; migrate.upgrade({empty_database_url!r})"
    both = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=90)[1] for one in both]

    assert [one.returncode for one in both] == [0, 0], said
    assert migrate.differences(empty_database_url) == []


def test_an_older_floor_keeps_its_rows(empty_database_url: str) -> None:
    """From the first revision to the newest one, with a row in it."""
    migrate.upgrade(empty_database_url, FIRST)
    engine = open_engine(empty_database_url)
    tables = inspect(engine).get_columns("dead_letters")
    values = {column["name"]: _some(column["name"]) for column in tables if column["name"] != "id"}
    with write_transaction(engine) as connection:
        connection.execute(dead_letters.insert().values(values))
    migrate.upgrade(empty_database_url)

    with read_transaction(engine) as connection:
        assert connection.execute(select(func.count()).select_from(dead_letters)).scalar_one() == 1
    engine.dispose()
    assert migrate.differences(empty_database_url) == []


def _some(column: str) -> object:
    return {"payload": b"{", "at": 1.0, "last_at": 1.0, "count": 1, "payload_bytes": 1}.get(column, "x")
