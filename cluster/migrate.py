"""The SQL schema: brought to the newest version by Alembic, without an ``alembic.ini``.

Tables are declared by the folders that own them; this file knows their modules by name
only. Invariant: ``upgrade`` may run in two processes at a time, one of them does the work.
"""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cluster.errors import ServiceUnavailableError
from cluster.store import metadata, open_engine, write_transaction

logger = logging.getLogger(__name__)

TABLE_MODULES = (
    "cluster.runs",
    "ingest.command_tables",
    "ingest.dead_letter",
    "ingest.directory",
    "ingest.directory_tables",
    "ingest.live_models",
    "ingest.model_trial",
    "ingest.presence",
    "ingest.session_store",
    "ingest.alerts.tables",
    "ingest.notify.tables",
    "training.data.catalogue",
    "training.labelling.labels",
    "training.registry.promotion",
)
"""Modules that declare tables. By name: this folder imports none of the folders above it."""

MIGRATION_TIMEOUT_S = 600
LOCK_KEY = 7_701_966
"""Advisory lock on PostgreSQL, where DDL does not exclude a second migrator; any constant would do."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at ``url`` to ``revision``.

    Raises:
        ServiceUnavailableError: the database cannot be reached or refused.
    """
    engine = open_engine(url, statement_timeout_s=MIGRATION_TIMEOUT_S)
    try:
        with _migrating(engine) as connection:
            command.upgrade(_config(connection), revision)
    except SQLAlchemyError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ServiceUnavailableError("SQL store", engine.url.render_as_string(), reason) from error
    finally:
        engine.dispose()


def differences(url: str) -> list[Any]:
    """Return what separates the database at ``url`` from the declared tables; empty when nothing does."""
    load_tables()
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, metadata))
    finally:
        engine.dispose()


def new_revision(url: str, message: str, revision: str) -> Path:
    """Write the migration from the database at ``url`` to the declared tables; for developers.

    Returns:
        The new file under ``cluster/migrations/versions``, to be read before it is committed.
    """
    load_tables()
    engine = open_engine(url)
    try:
        with write_transaction(engine) as connection:
            script = command.revision(_config(connection), message=message, autogenerate=True, rev_id=revision)
    finally:
        engine.dispose()
    assert script is not None
    assert not isinstance(script, list)
    return Path(script.path)


def newest_revision() -> str:
    """Return the revision that ``upgrade`` leads to."""
    head = ScriptDirectory.from_config(_config(None)).get_current_head()
    assert head is not None
    return head


def load_tables() -> None:
    """Import every module that declares tables, so that ``metadata`` is complete."""
    for module in TABLE_MODULES:
        importlib.import_module(module)


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """Open the one transaction that migrates; a second migrator waits and finds all done."""
    if engine.dialect.name == "sqlite":
        with write_transaction(engine) as connection:
            yield connection
        return
    # A snapshot taken before the lock was granted would not show what the first migrator did.
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        # A large table takes its time, and so does the other migrator.
        for limit in ("statement_timeout", "lock_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = '{MIGRATION_TIMEOUT_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        yield connection


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
