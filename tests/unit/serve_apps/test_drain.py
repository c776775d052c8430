"""Emptying all replicas before a redeploy, and taking clients again after it."""

import asyncio
import json
from typing import Any

from realtime import notices
from realtime.channels import GATEWAY_ALL
from realtime.publication import Draft
from serve_apps.codes import CloseCode
from tests.fakes_api import ApiFloor
from tests.fakes_gateway import FakeTransport, LocalHub
from tests.unit.serve_apps.test_connections import connected, make

DRAIN = "/api/v1/drain"


async def test_a_notice_drains_every_replica_and_lets_clients_back_in() -> None:
    """Closed with 3001, sent away with 3001 for as long as it was said, then welcome."""
    hub = LocalHub()
    replicas = [make(hub), make(hub)]
    transports = [(await connected(replica, f"u{number}"))[1] for number, replica in enumerate(replicas * 2)]
    await asyncio.sleep(0.05)  # both hear the gateways' channel

    await hub.publish([Draft(GATEWAY_ALL, notices.write(notices.Drain(over_s=0.1, hold_s=1.5)))])

    for transport in transports:
        await transport.until(lambda made: made.close_code is CloseCode.SHUTDOWN)
    early = FakeTransport()
    replicas[0].open(early)
    await early.until(lambda made: made.close_code is CloseCode.SHUTDOWN)
    await asyncio.sleep(2.2)
    _, late = await connected(replicas[1], "late")
    assert (late.close_code, "connect" in late.lines[0]) == (None, True)
    for replica in replicas:
        await replica.stop()


async def test_a_replica_that_is_taken_down_stays_closed() -> None:
    """Its own drain has no end, whatever a notice says."""
    hub = LocalHub()
    register = make(hub)
    await connected(register)
    await register.drain(over_s=0.0)

    register.perform(notices.Drain(over_s=0.0, hold_s=0.0))
    await asyncio.sleep(0.7)

    assert register.is_draining
    await register.stop()


async def test_the_route_tells_all_replicas(api: ApiFloor) -> None:
    """An admin of the whole floor only; a repeated request is one drain."""
    body = {"over_s": 1, "hold_s": 2, "request_id": "request-1"}
    async with api.caller("admin") as admin:
        answers = [(await admin.post(DRAIN, json=body)) for _ in range(2)]
    refused: list[Any] = []
    for roles, tenant in ((("engineer",), None), (("admin",), "demo")):
        async with api.caller(*roles, tenant=tenant) as other:
            refused.append((await other.post(DRAIN, json=body)).status_code)

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (202, {"clients": 0, "over_s": 1.0, "hold_s": 2.0})
    ] * 2
    assert refused == [403, 403]
    told = api.hub.core.history(GATEWAY_ALL, None, 10).publications
    assert [json.loads(item.data) for item in told] == [{"drain": {"over_s": 1.0, "hold_s": 2.0}}]
