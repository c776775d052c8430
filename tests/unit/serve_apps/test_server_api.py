"""``history`` and ``batch`` of the HTTP API, by PyPI ``cent`` over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from cent import AsyncClient, BatchRequest, CentApiResponseError, HistoryRequest, PublishRequest, StreamPosition
from fakes_gateway import LocalHub
from fastapi import FastAPI

from cluster.ports import LOOPBACK, free_port
from serve_apps.api import batch, history, publish
from serve_apps.auth import Authenticator, issue_token
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32


class Parts:
    """What these routes need of a gateway."""

    def __init__(self, hub: LocalHub, auth: Authenticator) -> None:
        self.hub = hub
        self.auth = auth


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Address of an app with these routes alone."""
    hub, port = LocalHub(), free_port()
    auth = Authenticator(SECRET, http_port=port, consume=_first_use)
    app = FastAPI()
    app.state.deps = Parts(hub, auth)
    app.state.connections = Connections(hub, auth, GatewaySettings())  # type: ignore[arg-type]
    for module in (publish, history, batch):
        app.include_router(module.router)
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    yield f"http://{LOOPBACK}:{port}/api"
    server.should_exit = True
    await serving


@contextlib.asynccontextmanager
async def client(url: str, tenant: str | None = None, role: str = "engineer") -> AsyncIterator[AsyncClient]:
    """The official client, as one user."""
    token = issue_token(SECRET, sub="ann", tenant=tenant, roles=[role], ttl_s=60)
    cent = AsyncClient(url, token)
    yield cent
    await cent.close()


async def test_what_was_published_is_in_the_history(url: str) -> None:
    """All of it, a part of it, backwards, or only the position."""
    async with client(url) as cent:
        for number in range(5):
            await cent.publish(PublishRequest(channel="run:r1", data={"number": number}))
        whole = await cent.history(HistoryRequest(channel="run:r1", limit=100))
        since = StreamPosition(offset=whole.publications[2].offset, epoch=whole.epoch)
        rest = await cent.history(HistoryRequest(channel="run:r1", limit=100, since=since))
        newest = await cent.history(HistoryRequest(channel="run:r1", limit=1, reverse=True))
        position = await cent.history(HistoryRequest(channel="run:r1"))

    assert [one.data["number"] for one in whole.publications] == [0, 1, 2, 3, 4]
    assert [one.data["number"] for one in rest.publications] == [3, 4]
    assert [one.data["number"] for one in newest.publications] == [4]
    assert (position.publications, position.offset) == ([], whole.publications[-1].offset)


async def test_a_lost_position_is_said(url: str) -> None:
    """Of another life of the stream."""
    async with client(url) as cent:
        await cent.publish(PublishRequest(channel="run:r1", data=1))
        with pytest.raises(CentApiResponseError) as refused:
            await cent.history(
                HistoryRequest(channel="run:r1", limit=5, since=StreamPosition(offset=1, epoch="another"))
            )
    assert refused.value.code == 112


@pytest.mark.parametrize(
    ("tenant", "role", "channel", "code"),
    [
        pytest.param("t1", "viewer", "tenant:t1", None, id="own-tenant"),
        pytest.param("t1", "viewer", "device:t1/pump", None, id="own-device"),
        pytest.param("t1", "admin", "tenant:t2", 103, id="another-tenant"),
        pytest.param("t1", "admin", "device:t2/pump", 103, id="another-tenants-device"),
        pytest.param("t1", "admin", "noc:all", 103, id="all-tenants"),
        pytest.param("t1", "admin", "user:bob", 103, id="another-user"),
        pytest.param(None, "operator", "noc:all", None, id="floor-wide-operator"),
        pytest.param(None, "operator", "user:bob", 103, id="another-user-operator"),
        pytest.param(None, "engineer", "user:bob", None, id="floor-wide-engineer"),
        pytest.param(None, "admin", "no such", 102, id="no-channel"),
    ],
)
async def test_nobody_reads_what_was_not_meant_for_them(
    url: str, tenant: str | None, role: str, channel: str, code: int | None
) -> None:
    """Alone and inside a batch."""
    request = HistoryRequest(channel=channel, limit=10)
    async with client(url, tenant, role) as cent:
        if code is None:
            await cent.history(request)
            await cent.batch(BatchRequest(requests=[request]))
            return
        with pytest.raises(CentApiResponseError) as refused:
            await cent.history(request)
        assert refused.value.code == code
        (reply,) = (await raw_batch(url, tenant, role, [{"history": {"channel": channel, "limit": 10}}]))["replies"]
        assert reply["error"]["code"] == code


async def test_a_batch_answers_each_in_its_place(url: str) -> None:
    """In order: the history sees what the publish before it did."""
    async with client(url) as cent:
        replies = (
            await cent.batch(
                BatchRequest(
                    requests=[
                        PublishRequest(channel="run:r1", data="a", idempotency_key="k"),
                        PublishRequest(channel="run:r1", data="b", idempotency_key="k"),
                        HistoryRequest(channel="run:r1", limit=10),
                    ]
                )
            )
        ).replies
    first, second, found = replies
    assert (first.offset, first.epoch) == (second.offset, second.epoch)  # type: ignore[attr-defined]
    assert [one.data for one in found.publications] == ["a"]  # type: ignore[attr-defined]


async def test_what_one_command_is_refused_changes_nothing_about_the_others(url: str) -> None:
    """A viewer's batch reads and does not publish."""
    commands = [
        {"publish": {"channel": "tenant:t1", "data": 1}},
        {"broadcast": {"channels": ["tenant:t1"], "data": 1}},
        {"history": {"channel": "tenant:t1", "limit": 10}},
    ]
    replies = (await raw_batch(url, "t1", "viewer", commands))["replies"]
    assert [reply.get("error", {}).get("code") for reply in replies] == [103, 103, None]
    assert replies[2]["history"]["publications"] == []


@pytest.mark.parametrize("command", [{}, {"publish": {}}, {"no_such": {}}, {"publish": {}, "history": {}}])
async def test_a_command_that_is_none_is_refused_whole(url: str, command: dict[str, Any]) -> None:
    """Nothing of such a batch is carried out."""
    assert "replies" not in await raw_batch(url, None, "admin", [command])


async def raw_batch(url: str, tenant: str | None, role: str, commands: list[dict[str, Any]]) -> dict[str, Any]:
    import httpx

    token = issue_token(SECRET, sub="ann", tenant=tenant, roles=[role], ttl_s=60)
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/batch", json={"commands": commands}, headers={"X-API-Key": token})
    content: dict[str, Any] = answer.json()
    return content
