"""Sign-in links across replicas: what one has used, none accepts again."""

import asyncio

import pytest
import redis.asyncio

from cluster.errors import ServiceUnavailableError
from cluster.ports import free_port
from serve_apps.auth import Authenticator, issue_signin_key
from serve_apps.errors import AuthenticationError
from serve_apps.signin_redis import UsedLinks

pytestmark = pytest.mark.redis

SECRET = b"s" * 32


async def test_ten_replicas_give_one_session(redis_url: str) -> None:
    """All ask Valkey at the same moment."""
    clients = [redis.asyncio.from_url(redis_url) for _ in range(10)]
    replicas = [Authenticator(SECRET, http_port=1, consume=UsedLinks(client).consume) for client in clients]
    key = issue_signin_key(SECRET, sub="ann", tenant=None, roles=["operator"])

    outcomes = await asyncio.gather(*(replica.redeem(key) for replica in replicas), return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, AuthenticationError)]
    assert len(refused) == 9
    for client in clients:
        await client.aclose()


async def test_without_valkey_nobody_is_signed_in_on_a_guess() -> None:
    """The link stays unused and works when Valkey is back."""
    client = redis.asyncio.from_url(f"redis://127.0.0.1:{free_port()}/0")
    replica = Authenticator(SECRET, http_port=1, consume=UsedLinks(client).consume)
    key = issue_signin_key(SECRET, sub="ann", tenant=None, roles=["operator"])

    with pytest.raises(ServiceUnavailableError, match="valkey"):
        await replica.redeem(key)
    await client.aclose()
