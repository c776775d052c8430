"""What commands take up, and how those that have ended leave.

Invariants: a command leaves whole, with its history; one that is open never leaves.
"""

from sqlalchemy import Connection, Engine, delete, select

from cluster.row_sizes import estimated_bytes
from cluster.store import in_write, read_transaction
from ingest.command_tables import command_events, commands
from ingest.store_bounds import StoreUsage


class CommandRetention:
    """The table of commands as a store with a bound."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def usage(self) -> StoreUsage:
        """Return the size of commands and histories, and when the oldest ended one ended."""
        oldest = select(commands.c.ended_at).where(commands.c.ended_at.is_not(None)).order_by(commands.c.ended_at)
        with read_transaction(self._engine) as connection:
            size = estimated_bytes(connection, commands) + estimated_bytes(connection, command_events)
            return StoreUsage(size, connection.execute(oldest.limit(1)).scalar_one_or_none())

    def expire(self, before: float, limit: int) -> int:
        """Delete commands that ended before ``before``, at most ``limit``; return how many."""
        return self._delete(limit, before)

    def shed(self, limit: int) -> int:
        """Delete the commands that ended first, at most ``limit``; return how many."""
        return self._delete(limit, None)

    def _delete(self, limit: int, before: float | None) -> int:
        is_over = commands.c.ended_at.is_not(None) if before is None else commands.c.ended_at < before
        query = select(commands.c.id).where(is_over).order_by(commands.c.ended_at).limit(limit)

        def write(connection: Connection) -> int:
            ids = list(connection.scalars(query))
            connection.execute(delete(command_events).where(command_events.c.command_id.in_(ids)))
            connection.execute(delete(commands).where(commands.c.id.in_(ids)))
            return len(ids)

        with read_transaction(self._engine) as connection:
            if connection.execute(query.limit(1)).first() is None:
                return 0
        return in_write(self._engine, write)
