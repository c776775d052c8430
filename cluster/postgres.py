"""PostgreSQL as the SQL store: a connection of which no call waits for ever.

The server ends what it works on for too long; a server that is stopped, or a network that
swallows packets, ends nothing, so the client's own wait has a limit as well. Invariant: a
connection whose answer did not come in time is closed, never used again.
"""

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 5.0
"""Longest wait for another writer's lock."""
IDLE_TIMEOUT_S = 15.0
"""A transaction of ours that does nothing for so long belongs to a stopped process; its locks are freed."""
GRACE_S = 2.0
"""What the client's limit is longer than the server's: mostly it is the server that says what was too slow."""

RV = TypeVar("RV")


def open_postgres(url: str, *, statement_timeout_s: float, **more: Any) -> Engine:
    """Return an engine whose connections give up in time; see ``cluster.store`` for what a transaction sees."""
    server_side = {
        "statement_timeout": statement_timeout_s,
        "lock_timeout": LOCK_TIMEOUT_S,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S,
    }
    options = " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in server_side.items())
    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=10,
        isolation_level="REPEATABLE READ",
        **more,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": options, "application_name": "watchfloor"},
    )

    def connect(_dialect: Any, _record: Any, arguments: Any, named: dict[str, Any]) -> "BoundedConnection":
        connection = BoundedConnection.connect(*arguments, **named)
        connection.answer_timeout_s = statement_timeout_s + GRACE_S
        return connection

    event.listen(engine, "do_connect", connect)
    return engine


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that waits for the server for so long and no longer."""

    answer_timeout_s = 10.0 + GRACE_S

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See ``psycopg.Connection.wait``; every call of the connection goes through it."""
        limit_s = self.answer_timeout_s if timeout is None else timeout
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.errors._WaitTimeout as error:
            if timeout is not None:
                raise  # of a call inside psycopg that handles it
            self.close()
            raise psycopg.OperationalError(f"the server did not answer within {limit_s:g} s") from error
