"""Which model version the detectors use: one row per alias, changed by compare-and-set.

The row is a pointer; versions themselves are immutable folders that the registry in
``training`` owns, and the history of pointers is its journal. Invariant: ``revision``
grows by one with every change of an alias, so "has it changed" is one comparison.
"""

from dataclasses import dataclass

from sqlalchemy import Column, Connection, Float, Integer, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.store import metadata
from ingest.errors import StaleRevisionError

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"

live_models = Table(
    "live_models",
    metadata,
    Column("alias", String(32), primary_key=True),
    Column("scorer", String(64), nullable=False),
    Column("version", String(128), nullable=False),
    Column("uri", String(1024), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("updated_at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A model version that an alias points to."""

    alias: str
    """``champion`` scores and raises alerts; ``challenger`` and ``previous`` do not."""
    scorer: str
    """Entry point that loads it, in the group ``watchfloor.scorers``."""
    version: str
    """Immutable version of the model."""
    uri: str
    """Folder of that version on the floor's storage."""
    revision: int
    """1 for the first value of this alias, plus one with every change."""
    updated_at: float
    """Seconds since the Unix epoch."""


def read_live_model(connection: Connection, alias: str = CHAMPION) -> LiveModel | None:
    """Return what ``alias`` points to; None when nothing was ever promoted to it."""
    row = connection.execute(select(live_models).where(live_models.c.alias == alias)).one_or_none()
    return None if row is None else LiveModel(**row._mapping)


def write_live_model(
    connection: Connection,
    *,
    alias: str = CHAMPION,
    scorer: str,
    version: str,
    uri: str,
    expected_revision: int,
    at: float,
) -> LiveModel:
    """Point ``alias`` to a version, inside the caller's write transaction.

    Args:
        connection: of ``cluster.store.write_transaction``.
        alias: pointer to move.
        scorer: entry point that loads the version.
        version: immutable version of the model.
        uri: folder of that version.
        expected_revision: revision the caller has read, 0 for an alias never set.
        at: seconds since the Unix epoch.

    Returns:
        The new value, with ``revision`` one above ``expected_revision``.

    Raises:
        StaleRevisionError: another writer moved the alias in between; nothing was changed.
    """
    values = {"scorer": scorer, "version": version, "uri": uri, "revision": expected_revision + 1, "updated_at": at}
    if expected_revision == 0:
        try:
            # A savepoint: on PostgreSQL a failed INSERT would otherwise end the caller's transaction.
            with connection.begin_nested():
                connection.execute(insert(live_models).values(alias=alias, **values))
        except IntegrityError as error:
            raise StaleRevisionError(alias, expected_revision) from error
    else:
        statement = (
            update(live_models)
            .where(live_models.c.alias == alias, live_models.c.revision == expected_revision)
            .values(**values)
        )
        if connection.execute(statement).rowcount != 1:
            raise StaleRevisionError(alias, expected_revision)
    return LiveModel(alias=alias, **values)  # type: ignore[arg-type]
