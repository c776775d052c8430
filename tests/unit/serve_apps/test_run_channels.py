"""Channels of runs over a socket: the tenant of the run decides, and it is found out in time."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from cluster.runs import RunRequest
from serve_apps.auth import Role, issue_token
from serve_apps.connection import Connection
from tests.fakes_api import SECRET, ApiFloor
from tests.fakes_gateway import FakeTransport, draft


class Socket:
    """A connection of a tenant's viewer, and what it was told."""

    def __init__(self, api: ApiFloor) -> None:
        self.register = api.app.state.connections
        self.transport = FakeTransport()
        self.connection: Connection = self.register.open(self.transport)
        self._number = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self.connection.on_text(json.dumps({"id": self._number, method: params}))
        await self.transport.until(lambda made: any(line.get("id") == self._number for line in made.lines))
        answer: dict[str, Any] = next(line for line in self.transport.lines if line.get("id") == self._number)
        return answer


@pytest.fixture
async def socket(api: ApiFloor) -> AsyncIterator[Socket]:
    made = Socket(api)
    yield made
    made.register.close(made.connection)
    await made.register.stop()


def run_of(api: ApiFloor, tenant: str | None) -> str:
    wanted = RunRequest(
        task="train_model",
        arguments={"model_type": "anomaly_detector", "dataset_id": "recorded:nyc_taxi"},
        tenant=tenant,
        request_id=f"of-{tenant}",
    )
    return f"run:{api.run_queue.core.submit(wanted).id}"


def token() -> str:
    return issue_token(SECRET, sub="ann", tenant="t1", roles=[Role.VIEWER], ttl_s=600)


async def test_only_the_own_tenants_runs_are_heard(api: ApiFloor, socket: Socket) -> None:
    """By subscribing, reading, and asking who is there."""
    own, others, floors = (run_of(api, tenant) for tenant in ("t1", "t2", None))
    await socket.ask("connect", token=token())
    for channel, code in ((own, None), (others, 103), (floors, 103), ("run:nobodys", 103)):
        for method in ("history", "presence", "presence_stats", "subscribe"):
            answer = await socket.ask(method, channel=channel)
            assert answer.get("error", {}).get("code") == code, f"{method} {channel}"


async def test_a_run_that_is_registered_later_is_found_then(api: ApiFloor, socket: Socket) -> None:
    """A refusal is not remembered."""
    await socket.ask("connect", token=token())
    channel = run_of(api, "t1")
    api.app.state.connections.runs._known.clear()
    assert "subscribe" in await socket.ask("subscribe", channel=channel)


async def test_runs_named_in_the_connect_command_are_found_before_it_is_decided(api: ApiFloor, socket: Socket) -> None:
    """That is how an SDK keeps what a service subscribed it to; recovery included."""
    own, others = run_of(api, "t1"), run_of(api, "t2")
    (first,) = await api.hub.publish([draft(own, "before")])
    await api.hub.publish([draft(own, "missed"), draft(others, "foreign")])
    position = {"recover": True, "offset": first.offset, "epoch": first.epoch}

    answer = await socket.ask("connect", token=token(), subs={own: position, others: position})

    subs = answer["connect"]["subs"]
    assert [one["data"] for one in subs[own]["publications"]] == ["missed"]
    assert others not in subs


async def test_a_service_can_subscribe_a_tenants_user_to_its_run(api: ApiFloor, socket: Socket) -> None:
    """And to no other's, whoever asks."""
    own, others = run_of(api, "t1"), run_of(api, "t2")
    await socket.ask("connect", token=token())
    await socket.connection.subscribe(own)
    await socket.connection.subscribe(others)
    assert own in socket.connection.session.channels
    assert others not in socket.connection.session.channels


async def test_a_store_that_is_away_is_a_temporary_error(
    api: ApiFloor, socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100: the SDK asks again. 103 would be its last word."""

    def away(_run_ids: object) -> dict[str, str | None]:
        raise OperationalError("select", {}, Exception("locked"))

    monkeypatch.setattr(socket.register.runs, "_find", away)
    own = run_of(api, "t1")
    async with api.caller("viewer", tenant="t1") as caller:
        over_http = await caller.post("/api/history", json={"channel": own})
    refused = await socket.ask("connect", token=token(), subs={own: {}})

    assert refused["error"]["code"] == 100
    assert over_http.status_code == 503
