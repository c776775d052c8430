"""The migrations make exactly the tables that the folders declare."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from cluster import migrate
from cluster.errors import ServiceUnavailableError
from cluster.store import metadata, open_engine


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/floor.db"


def revision(url: str) -> str | None:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return found


def test_migrations_and_tables_agree(url: str) -> None:
    """Autogenerate finds nothing left to do; a new table needs a migration."""
    migrate.upgrade(url)

    assert migrate.differences(url) == []


def test_every_declared_table_is_there(url: str) -> None:
    """Those of all folders."""
    migrate.upgrade(url)
    migrate.load_tables()
    engine = open_engine(url)

    assert set(metadata.tables) == set(inspect(engine).get_table_names()) - {"alembic_version"}
    engine.dispose()


def test_a_second_upgrade_changes_nothing(url: str) -> None:
    """Each start of a floor upgrades."""
    migrate.upgrade(url)
    before = revision(url)
    migrate.upgrade(url)

    assert revision(url) == before == migrate.newest_revision()


def test_two_upgrades_at_a_time_do_it_once(url: str) -> None:
    """One waits for the other and finds it done. Processes, not threads: Alembic keeps its context in a module."""
    program = f"from cluster import migrate; migrate.upgrade({url!r})"
    both = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=60)[1] for one in both]

    assert [one.returncode for one in both] == [0, 0], said
    assert revision(url) == migrate.newest_revision()


def test_a_database_that_cannot_be_opened_is_named() -> None:
    """The text names the store and why, without a traceback of SQLAlchemy."""
    with pytest.raises(ServiceUnavailableError, match=r"SQL store at sqlite:////nowhere/floor\.db"):
        migrate.upgrade("sqlite:////nowhere/floor.db")


def test_there_is_a_newest_revision() -> None:
    """For ``watchfloor doctor``."""
    assert migrate.newest_revision() == "0007"
