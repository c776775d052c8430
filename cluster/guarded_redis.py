"""Clients of Valkey whose commands go through its circuit: while it is away they fail at once.

Network file. A client behaves as redis-py's own, and a refusal is a ``redis.ConnectionError``:
whoever handles an outage handles it. Invariants: what the server *answers*, be it that it is
full or read-only, is no outage; only a server that cannot be reached or does not answer
counts. Not for pipelines and pub/sub, which take connections of their own.
"""

import re
from typing import Any

import redis
import redis.asyncio

from cluster.breaker import get_breaker
from cluster.errors import CircuitOpenError

OUTAGES = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ClusterDownError, OSError)


class ValkeyCircuitOpenError(redis.ConnectionError):
    """Valkey did not answer a moment ago; this command was not sent."""


class GuardedRedis(redis.Redis):
    """``redis.Redis`` behind the circuit of its server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._service = _circuit_of(self.connection_pool.connection_kwargs)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command; repetitions after an error count as one call."""
        try:
            with get_breaker().call(self._service):
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except CircuitOpenError as error:
            raise ValkeyCircuitOpenError(str(error)) from error


class GuardedAsyncRedis(redis.asyncio.Redis):
    """``redis.asyncio.Redis`` behind the circuit of its server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._service = _circuit_of(self.connection_pool.connection_kwargs)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command; see ``GuardedRedis``."""
        try:
            async with get_breaker().call(self._service):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except CircuitOpenError as error:
            raise ValkeyCircuitOpenError(str(error)) from error


def _circuit_of(connection: dict[str, Any]) -> str:
    """Return the circuit's name, and tell the breaker what counts: one circuit for each server."""
    where = connection.get("path") or f"{connection.get('host', 'localhost')}-{connection.get('port', 6379)}"
    service = "valkey." + re.sub(r"[^a-z0-9_.-]", "-", str(where).lower())[-50:]
    get_breaker().count_only(service, lambda error: isinstance(error, OUTAGES))
    return service
