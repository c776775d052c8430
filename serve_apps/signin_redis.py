"""Which sign-in links were used, remembered in Valkey so that every replica knows.

Knows no tokens. Invariant: for one id ``consume`` answers True at most once within its
time to live, whichever replica asks.
"""

import asyncio

import redis.asyncio
from redis.exceptions import RedisError

from cluster.errors import ServiceUnavailableError

KEY = "wf:signin:{id}"
TIMEOUT_S = 5.0


class UsedLinks:
    """Used sign-in ids."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client

    async def consume(self, link_id: str, ttl_s: float) -> bool:
        """Return True when ``link_id`` is seen for the first time.

        Raises:
            ServiceUnavailableError: Valkey did not answer; nobody is signed in on a guess.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return bool(await self._client.set(KEY.format(id=link_id), b"1", nx=True, px=int(ttl_s * 1000)))
        except (RedisError, OSError, TimeoutError) as error:
            raise ServiceUnavailableError("valkey", "REDIS_URL", str(error) or type(error).__name__) from error
