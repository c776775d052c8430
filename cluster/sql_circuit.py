"""The circuit around the transactions of a database server: while it is away they fail at once.

One circuit per server and process. Invariants: what the server *answers* -- a collision, a
full disk, a statement that took too long -- is no outage; and a refusal is SQLAlchemy's own
``OperationalError``, so whoever handles an outage of the store handles it.
"""

import re
from types import TracebackType

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cluster.breaker import get_breaker
from cluster.errors import CircuitOpenError

UNREACHABLE = ("08", "57P")
"""Beginnings of SQLSTATEs of a server that cannot be used: connection errors, shutting down, starting up."""


class SqlCircuitOpenError(OperationalError):
    """The server did not answer a moment ago; this transaction was not begun."""

    def __init__(self, refusal: BaseException) -> None:
        super().__init__(None, None, refusal)

    def __reduce__(self) -> tuple[type["SqlCircuitOpenError"], tuple[BaseException | None]]:
        return SqlCircuitOpenError, (self.orig,)


class GuardedTransaction:
    """A transaction behind the circuit of its server."""

    def __init__(self, engine: Engine) -> None:
        self._call = get_breaker().call(circuit_of(engine))

    def __enter__(self) -> None:
        try:
            self._call.__enter__()
        except CircuitOpenError as error:
            raise SqlCircuitOpenError(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.__exit__(kind, error, trace)


def circuit_of(engine: Engine) -> str:
    """Return the name of the circuit of an engine's server; known to the breaker from then on."""
    address = f"{engine.url.host or 'socket'}-{engine.url.port or 5432}"
    service = "sql." + re.sub(r"[^a-z0-9_.-]", "-", address.lower())[-50:]
    get_breaker().count_only(service, is_outage)
    return service


def is_outage(error: BaseException) -> bool:
    """Tell whether the server could not be reached or did not answer."""
    if isinstance(error, PoolTimeoutError):
        return True  # every connection of the pool waits for the server
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    return not state or state.startswith(UNREACHABLE)
