"""What the broker keeps for ingest: which client ids have a session there, with which filters.

A table and its reads and writes. A broker cannot be asked; without this, a filter that was
taken out of the settings would stay subscribed for ever, and the messages kept for an actor
that no longer exists would be lost. Invariant: a session is in the table before the broker
has it, and until the broker has it no more.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import JSON, Boolean, Column, Engine, Float, String, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from cluster.store import metadata, read_transaction, write_transaction

ingest_sessions = Table(
    "ingest_sessions",
    metadata,
    Column("client_id", String(128), primary_key=True),
    Column("filters", JSON, nullable=False),
    Column("is_settled", Boolean, nullable=False),
    Column("updated_at", Float, nullable=False),
)
"""``filters``: all that may be subscribed; ``is_settled``: the broker confirmed them and has no others."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session at the broker."""

    client_id: str
    filters: tuple[str, ...]
    is_settled: bool


class SessionStore:
    """The sessions in the SQL store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> tuple[Session, ...]:
        """Return every session, by client id."""
        query = select(ingest_sessions).order_by(ingest_sessions.c.client_id)
        with read_transaction(self._engine) as connection:
            return tuple(
                Session(row.client_id, tuple(row.filters), row.is_settled) for row in connection.execute(query)
            )

    def get(self, client_id: str) -> Session | None:
        """Return one session, or None."""
        return next((session for session in self.all() if session.client_id == client_id), None)

    def remember(self, client_id: str, filters: Sequence[str], *, is_settled: bool) -> None:
        """Note what a session has, replacing what was noted."""
        values = {"filters": list(filters), "is_settled": is_settled, "updated_at": time.time()}
        with write_transaction(self._engine) as connection:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            statement = insert(ingest_sessions).values(client_id=client_id, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=["client_id"], set_=values))

    def forget(self, client_id: str) -> None:
        """Note that the broker has no such session any more."""
        with write_transaction(self._engine) as connection:
            connection.execute(delete(ingest_sessions).where(ingest_sessions.c.client_id == client_id))
