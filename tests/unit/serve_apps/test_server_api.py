"""The server API by PyPI ``cent`` over a real socket, with listeners on the same gateway."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from cent import (
    AsyncClient,
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentTransportError,
    ChannelsRequest,
    Disconnect,
    DisconnectRequest,
    HistoryRemoveRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)
from fakes_gateway import LocalHub
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster.ports import free_port
from serve_apps import websocket
from serve_apps.api import batch, control, history, presence, publish, uni
from serve_apps.auth import Authenticator, issue_token
from serve_apps.connections import Connections
from serve_apps.gateway_settings import GatewaySettings
from tests.gateway_server import serving

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
    app = FastAPI(version="1.2.3")
    app.state.deps = Parts(hub, auth)
    app.state.connections = Connections(hub, auth, GatewaySettings())  # type: ignore[arg-type]
    for module in (publish, history, presence, control, batch, websocket, uni):
        app.include_router(module.router)
    async with serving(app, port) as address:
        yield f"http://{address}/api"
    await app.state.connections.stop()


@contextlib.asynccontextmanager
async def client(url: str, tenant: str | None = None, role: str = "engineer") -> AsyncIterator[AsyncClient]:
    """The official client, as one user."""
    token = issue_token(SECRET, sub="ann", tenant=tenant, roles=[role], ttl_s=60)
    cent = AsyncClient(url, token)
    try:
        yield cent
    finally:
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
    token = issue_token(SECRET, sub="ann", tenant=tenant, roles=[role], ttl_s=60)
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/batch", json={"commands": commands}, headers={"X-API-Key": token})
    content: dict[str, Any] = answer.json()
    return content


@contextlib.asynccontextmanager
async def listener(url: str, user: str, *, path: str = "websocket", **claims: Any) -> AsyncIterator[ClientConnection]:
    """A connected client of the protocol, after its connect reply."""
    token = issue_token(SECRET, sub=user, tenant=claims.pop("tenant", None), roles=["operator"], ttl_s=60, **claims)
    address = url.replace("http", "ws").replace("/api", f"/connection/{path}")
    async with connect(address) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": token}}))
        assert "connect" in json.loads(await asyncio.wait_for(socket.recv(), 5))
        yield socket


async def pushes(socket: ClientConnection, what: str) -> dict[str, Any]:
    """Wait for the next push of a kind."""
    async with asyncio.timeout(5):
        async for text in socket:
            for line in str(text).split("\n"):
                push = json.loads(line).get("push", {})
                if what in push:
                    return dict(push)
    raise AssertionError(f"the socket ended without {what}")


async def test_who_is_where(url: str) -> None:
    """By name, by number, by channel, and on which replica."""
    async with client(url, role="admin") as cent, listener(url, "ann", groups=["crew"]), listener(url, "ann"):
        async with asyncio.timeout(5):
            while len((await cent.presence(PresenceRequest(channel="user:ann"))).presence) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        found = (await cent.presence(PresenceRequest(channel="group:crew"))).presence
        stats = await cent.presence_stats(PresenceStatsRequest(channel="user:ann"))
        channels = (await cent.channels(ChannelsRequest(pattern="user:*"))).channels
        everything = (await cent.channels(ChannelsRequest())).channels
        (node,) = (await cent.info(InfoRequest())).nodes

    assert [(key == one.client, one.user) for key, one in found.items()] == [(True, "ann")]
    assert (stats.num_clients, stats.num_users) == (2, 1)
    assert {name: one.num_clients for name, one in channels.items()} == {"user:ann": 2}
    assert set(everything) == {"user:ann", "group:crew", "noc:all"}
    assert (node.num_clients, node.num_users, node.version, node.name) == (2, 1, "1.2.3", "watchfloor")


async def test_a_tenant_sees_its_own_channels_only(url: str) -> None:
    """No names and no members of others."""
    async with client(url, "t1", "admin") as cent, listener(url, "bob", tenant="t2"), listener(url, "cy", tenant="t1"):
        async with asyncio.timeout(5):
            while not (await cent.channels(ChannelsRequest())).channels:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert set((await cent.channels(ChannelsRequest())).channels) == {"tenant:t1"}
        with pytest.raises(CentApiResponseError) as refused:
            await cent.presence(PresenceRequest(channel="tenant:t2"))
        assert refused.value.code == 103
        with pytest.raises(CentApiResponseError) as refused:
            await cent.presence_stats(PresenceStatsRequest(channel="user:bob"))
        assert refused.value.code == 103


async def test_disconnect_reaches_a_users_connections(url: str) -> None:
    """With its code; a second time it finds nobody, and says so to nobody."""
    async with client(url, role="admin") as cent, listener(url, "ann") as ann, listener(url, "bob") as bob:
        await cent.disconnect(DisconnectRequest(user="ann"))
        with pytest.raises(ConnectionClosed):
            await pushes(ann, "never")
        await cent.disconnect(DisconnectRequest(user="ann"))
        await cent.disconnect(DisconnectRequest(user="bob", disconnect=Disconnect(code=3011, reason="again")))
        with pytest.raises(ConnectionClosed):
            await pushes(bob, "never")
    assert (ann.close_code, ann.close_reason, bob.close_code) == (3503, "force disconnect", 3011)


async def test_a_tenants_admin_disconnects_its_own_users_only(url: str) -> None:
    """Names of users are not unique over tenants."""
    async with client(url, "t1", "admin") as cent, listener(url, "ann", tenant="t2") as foreign:
        async with listener(url, "ann", tenant="t1") as own:
            await cent.disconnect(DisconnectRequest(user="ann"))
            with pytest.raises(ConnectionClosed):
                await pushes(own, "never")
        await (await foreign.ping())
        assert foreign.close_code is None


async def test_subscribe_and_unsubscribe_are_pushed(url: str) -> None:
    """And publications flow in between."""
    async with client(url, role="admin") as cent, listener(url, "ann") as socket:
        await cent.subscribe(SubscribeRequest(user="ann", channel="run:r1"))
        assert (await pushes(socket, "subscribe"))["channel"] == "run:r1"
        await cent.publish(PublishRequest(channel="run:r1", data=1))
        assert (await pushes(socket, "pub"))["pub"]["data"] == 1
        await cent.unsubscribe(UnsubscribeRequest(user="ann", channel="run:r1"))
        assert (await pushes(socket, "unsubscribe"))["unsubscribe"]["code"] == 2000


async def test_a_repeated_key_is_told_once(url: str) -> None:
    """An answer that was lost may be asked for again."""
    async with client(url, role="admin") as cent, listener(url, "ann") as socket:
        request = SubscribeRequest.model_validate({"user": "ann", "channel": "run:r1", "idempotency_key": "k"})
        undo = UnsubscribeRequest.model_validate({"user": "ann", "channel": "run:r1", "idempotency_key": "k"})
        await cent.subscribe(request)
        await pushes(socket, "subscribe")
        await cent.unsubscribe(undo)  # the same key of another call is another key
        await pushes(socket, "unsubscribe")
        await cent.subscribe(request)
        await cent.publish(PublishRequest(channel="user:ann", data="last"))
        assert (await pushes(socket, "pub"))["channel"] == "user:ann"


async def test_a_removed_history_is_gone(url: str) -> None:
    """And may be removed again."""
    async with client(url, role="admin") as cent:
        published = await cent.publish(PublishRequest(channel="run:r1", data=1))
        for _ in range(2):
            await cent.history_remove(HistoryRemoveRequest(channel="run:r1"))
        found = await cent.history(HistoryRequest(channel="run:r1", limit=10))
    assert (found.publications, found.offset, found.epoch) == ([], published.offset, published.epoch)


@pytest.mark.parametrize("role", ["viewer", "operator", "engineer"])
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("disconnect", {"user": "ann"}),
        ("subscribe", {"user": "ann", "channel": "run:r1"}),
        ("unsubscribe", {"user": "ann", "channel": "run:r1"}),
        ("history_remove", {"channel": "run:r1"}),
    ],
)
async def test_only_admins_act_on_others(url: str, role: str, method: str, body: dict[str, Any]) -> None:
    """Alone by status, in a batch by code."""
    requests: dict[str, Any] = {
        "disconnect": DisconnectRequest, "subscribe": SubscribeRequest, "unsubscribe": UnsubscribeRequest,
        "history_remove": HistoryRemoveRequest,
    }  # fmt: skip
    async with client(url, role=role) as cent:
        with pytest.raises(CentTransportError) as refused:
            await getattr(cent, method)(requests[method](**body))
    assert refused.value.status_code == 403
    (reply,) = (await raw_batch(url, None, role, [{method: body}]))["replies"]
    assert reply["error"]["code"] == 103


async def test_a_batch_of_everything(url: str) -> None:
    """Each call has its place in it."""
    requests = [
        PublishRequest(channel="run:r1", data=1),
        BroadcastRequest(channels=["run:r1", "run:r2"], data=2),
        HistoryRequest(channel="run:r1", limit=5),
        PresenceRequest(channel="run:r1"),
        PresenceStatsRequest(channel="run:r1"),
        ChannelsRequest(),
        InfoRequest(),
        HistoryRemoveRequest(channel="run:r1"),
        SubscribeRequest(user="ann", channel="run:r1"),
        UnsubscribeRequest(user="ann", channel="run:r1"),
        DisconnectRequest(user="ann"),
    ]
    async with client(url, role="admin") as cent:
        replies = (await cent.batch(BatchRequest(requests=requests))).replies
    assert len(replies) == len(batch.METHODS) == len(requests)
    assert [one.data for one in replies[2].publications] == [1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        pytest.param("disconnect", {"user": "ann", "disconnect": {"code": 1}}, 107, id="no-such-close-code"),
        pytest.param("subscribe", {"user": "ann", "channel": "news"}, 102, id="no-such-kind"),
        pytest.param("unsubscribe", {"user": "ann", "channel": "news"}, 102, id="no-such-kind-either"),
        pytest.param("presence", {"channel": "gateway:all"}, 103, id="internal-presence"),
        pytest.param("history", {"channel": "gateway:all"}, 103, id="internal-history"),
        pytest.param("history_remove", {"channel": "gateway:all"}, 103, id="internal-history-remove"),
        pytest.param("publish", {"channel": "gateway:all", "data": 1}, 103, id="internal-publish"),
    ],
)
async def test_what_admins_may_not_either(url: str, method: str, body: dict[str, Any], code: int) -> None:
    """The gateways' own channel is nobody's."""
    (reply,) = (await raw_batch(url, None, "admin", [{method: body}]))["replies"]
    assert reply["error"]["code"] == code


async def test_a_payload_that_json_cannot_say_again_is_refused(url: str) -> None:
    """Python's parser reads it, and no client could."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["engineer"], ttl_s=60)
    headers = {"X-API-Key": token, "content-type": "application/json"}
    deep = "[" * 300 + "]" * 300
    async with httpx.AsyncClient(headers=headers) as http:
        for data in (r'"\ud800"', deep):
            answer = await http.post(f"{url}/publish", content=f'{{"channel":"run:r1","data":{data}}}')
            assert (answer.status_code, answer.json()["error"]["code"]) == (200, 107)


async def _until(lines: AsyncIterator[str], text: str) -> AsyncIterator[str]:
    """Yield lines, the last of them the first that has ``text``."""
    async for line in lines:
        yield line
        if text in line:
            return


async def test_lines_for_who_only_listens(url: str) -> None:
    """One JSON object a line, by GET and by POST, from a named channel and its position on."""
    token = issue_token(SECRET, sub="ann", tenant=None, roles=["operator"], ttl_s=60)
    stream = url.replace("/api", "/connection/uni_http_stream")
    async with client(url) as cent, httpx.AsyncClient(timeout=5) as http:
        first = await cent.publish(PublishRequest(channel="run:r1", data=1))
        await cent.publish(PublishRequest(channel="run:r1", data=2))
        position = {"recover": True, "offset": first.offset, "epoch": first.epoch}
        request = {"token": token, "subs": {"run:r1": position, "run:r2": {}, "user:bob": {}}}
        for options in (
            {"method": "GET", "params": {"cf_connect": json.dumps(request)}},
            {"method": "POST", "json": request},
        ):
            async with http.stream(url=stream, **options) as response:  # type: ignore[arg-type]
                lines = response.aiter_lines()
                connected = json.loads(await anext(lines))["connect"]
                assert set(connected["subs"]) == {"user:ann", "noc:all", "run:r1", "run:r2"}
                assert [one["data"] for one in connected["subs"]["run:r1"]["publications"]] == [2]
                await cent.publish(PublishRequest(channel="run:r2", data="live"))
                live = [json.loads(line) async for line in _until(lines, '"pub"')][-1]  # a ping may come first
                assert live["pub"]["data"] == "live"
        refused = await http.post(stream, json={})
    assert (refused.status_code, refused.text) == (401, "bad request")


async def test_native_pings_leave_no_trace_in_the_stream(url: str) -> None:
    """For consoles: no ping is announced, and a publication comes all the same."""
    async with client(url) as cent, listener(url, "ann", path="websocket?cf_ws_frame_ping_pong=true") as socket:
        await cent.publish(PublishRequest(channel="user:ann", data=1))
        assert (await pushes(socket, "pub"))["pub"]["data"] == 1
