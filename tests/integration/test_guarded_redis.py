"""Clients of Valkey behind its circuit, over a real one that comes and goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from ingest_parts import StoppableService, eventually, own_valkey

from cluster.guarded_redis import GuardedAsyncRedis, GuardedRedis, ValkeyCircuitOpenError

pytestmark = pytest.mark.redis

OPTIONS: dict[str, Any] = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "retry": None}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[StoppableService]:
    valkey = own_valkey(tmp_path)
    valkey.start()
    yield valkey
    valkey.stop()


def test_while_valkey_is_away_commands_fail_at_once_and_then_go_on(valkey: StoppableService) -> None:
    """Three errors in a row, then refusals that look like any lost connection; back by itself within seconds."""
    with GuardedRedis.from_url(valkey.url, **OPTIONS) as client:
        assert client.set("a", 1)
        valkey.kill()
        seen: list[type[Exception]] = []
        while ValkeyCircuitOpenError not in seen:
            with pytest.raises(redis.ConnectionError) as refused:
                client.get("a")
            seen.append(refused.type)
        assert 3 <= len(seen) <= 5
        valkey.start()

        def is_back() -> bool:
            try:
                return bool(client.get("a"))
            except redis.ConnectionError:
                return False

        assert eventually(is_back)


def test_what_valkey_answers_opens_nothing(valkey: StoppableService) -> None:
    """A wrong type, a script that fails, a full memory: it is there, and says so."""
    with GuardedRedis.from_url(valkey.url, **OPTIONS) as client:
        client.set("text", "x")
        for _ in range(10):
            with pytest.raises(redis.ResponseError):
                client.lpush("text", 1)

        assert client.get("text") == b"x"


async def test_the_async_client_does_the_same(valkey: StoppableService) -> None:
    """For the gateway."""
    async with GuardedAsyncRedis.from_url(valkey.url, **OPTIONS) as client:
        assert await client.set("a", 1)
        valkey.kill()
        seen: list[type[Exception]] = []
        while ValkeyCircuitOpenError not in seen:
            with pytest.raises(redis.ConnectionError) as refused:
                await client.get("a")
            seen.append(refused.type)

        assert 3 <= len(seen) <= 5
