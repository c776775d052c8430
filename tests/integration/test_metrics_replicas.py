"""``/metrics`` of a floor with two gateway replicas: the sum of all processes, whichever replica answers."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from serve_apps.auth import issue_token
from tests.integration.gateway_process import Gateway, running_gateway

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.timeout(240)]

SECRET = b"s" * 64
SOCKETS = (3, 2)
"""Connections that each replica gets."""

Samples = dict[str, float]
"""Value by name and labels, as Prometheus writes them."""


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Gateway]:
    with running_gateway("haproxy", redis_url, {"WATCHFLOOR_GATEWAY_NUM_REPLICAS": str(len(SOCKETS))}) as started:
        yield started


async def replicas(client: httpx.AsyncClient, gateway: Gateway) -> list[str]:
    """Return the addresses at which replicas answer themselves, without HAProxy."""
    found = []
    for port in gateway.replica_ports:
        try:
            await client.get(f"http://127.0.0.1:{port}/metrics")
        except httpx.ConnectError:
            continue
        found.append(f"127.0.0.1:{port}")
    return found


async def samples(client: httpx.AsyncClient, address: str) -> Samples:
    text = (await client.get(f"http://{address}/metrics")).raise_for_status().text
    return {
        f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_every_replica_gives_the_sum_of_all_processes(gateway: Gateway) -> None:
    """Sockets on both replicas, a broadcast by a task: each replica and HAProxy give the same, exact figures."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["operator"], ttl_s=600)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=10))
        addresses = await replicas(client, gateway)
        assert len(addresses) == len(SOCKETS)
        sockets = [
            await stack.enter_async_context(connect(gateway.websocket(address)))
            for address, count in zip(addresses, SOCKETS, strict=True)
            for _ in range(count)
        ]
        for socket in sockets:
            await socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
            assert "connect" in json.loads(await asyncio.wait_for(socket.recv(), 10))

        assert await asyncio.to_thread(gateway.command, "broadcast") == {"confirmed": True}
        for socket in sockets:
            heard = json.loads(await asyncio.wait_for(socket.recv(), 10))["push"]
            assert (heard["channel"], heard["pub"]["data"]["data"]) == ("user:ann", {"answer": 42})

        expected: Samples = {
            'watchfloor_gateway_connections{"transport": "websocket"}': 5,
            'watchfloor_gateway_connects_total{"transport": "websocket"}': 5,
            'watchfloor_gateway_sent_messages_total{"kind": "user"}': 5,
            'websocket_broadcast_success_total{"kind": "user", "priority": "normal"}': 1,
            'websocket_broadcast_failure_total{"kind": "invalid", "reason": "invalid"}': 1,
            'websocket_broadcast_duration_seconds_count{"kind": "user"}': 1,
            'watchfloor_task_duration_seconds_count{"lane": "general", "outcome": "succeeded"}': 1,
        }
        # Each process pushes its own every two seconds.
        async with asyncio.timeout(20):
            while expected.items() - (await samples(client, addresses[0])).items():  # noqa: ASYNC110 -- asked, not told
                await asyncio.sleep(0.5)
        front = gateway.url.removeprefix("http://")
        for address in (*addresses, front, front, front, front):
            assert not expected.items() - (await samples(client, address)).items(), address
