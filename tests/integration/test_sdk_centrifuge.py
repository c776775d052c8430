"""Unmodified Centrifuge SDKs against the gateway under Ray Serve, behind HAProxy and behind its Python proxy."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cent import AsyncClient, ChannelsRequest, DisconnectRequest, InfoRequest, PublishRequest, SubscribeRequest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from serve_apps.auth import TokenKind, cookie_name, issue_token
from tests.integration.gateway_process import Gateway, running_gateway
from tests.integration.sdk_clients import SDK, Listener, RefusedError, javascript, python
from tests.tcp_proxy import TcpProxy

pytestmark = [
    pytest.mark.ray,
    pytest.mark.redis,
    pytest.mark.timeout(240),
]

SECRET = b"s" * 64
LIMITS = {
    # Sockets are renewed with 3001 while the tests run, and a slow client is found out within seconds.
    "WATCHFLOOR_GATEWAY_MIN_AGE_S": "3",
    "WATCHFLOOR_GATEWAY_MAX_AGE_S": "4",
    "WATCHFLOOR_GATEWAY_CREDIT_TIMEOUT_S": "1.5",
    "WATCHFLOOR_GATEWAY_RING_AGE_S": "3",
}

RESTART_S = 60.0
"""Ray's own time to start a replica or the hub again, on a busy machine."""

Sdk = Callable[..., AbstractAsyncContextManager[Listener]]


@pytest.fixture(scope="module", params=["haproxy", "proxy"])
def gateway(request: pytest.FixtureRequest, redis_server: str) -> Iterator[Gateway]:
    with running_gateway(request.param, redis_server, LIMITS) as started:
        yield started


@pytest.fixture(scope="module")
def _node_modules() -> None:
    """Install the SDK that the lock file pins, once."""
    if not (SDK / "node_modules" / "centrifuge").exists():
        npm = Path(sys.executable).parent / "npm"
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=SDK, check=True, timeout=120)


@pytest.fixture(params=["javascript", "python"])
def sdk(request: pytest.FixtureRequest, _node_modules: None) -> Sdk:
    return javascript if request.param == "javascript" else python


@pytest.fixture
async def publisher(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {token('robot', 'engineer')}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as client:
        yield client


def token(user: str, role: str = "operator", kind: TokenKind = TokenKind.ACCESS, groups: tuple[str, ...] = ()) -> str:
    return issue_token(SECRET, sub=user, tenant=None, roles=[role], groups=groups, ttl_s=600, kind=kind)


async def publish(
    publisher: httpx.AsyncClient, channel: str, data: object, key: str = "", within_s: float = 30.0
) -> int:
    """Publish until the gateway says that the hub has it; returns the offset."""
    body = {"channel": channel, "data": data, "idempotency_key": key or os.urandom(8).hex()}
    give_up_s = time.monotonic() + within_s
    while True:
        try:
            response = await publisher.post("/api/publish", json=body)
            if response.status_code == 200:
                return int(response.json()["result"]["offset"])
        except httpx.TransportError:
            pass  # the replica was killed: the key makes the repetition safe
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.1)


async def open_session(gateway: Gateway, user: str, **options: Any) -> ClientConnection:
    socket = await connect(gateway.websocket(), **options)
    with contextlib.suppress(ConnectionClosed):  # a draining replica may be faster
        await socket.send(json.dumps({"id": 1, "connect": {"token": token(user)}}))
    return socket


def sample(metrics: str, name: str) -> float:
    """Return the value of one of the gateway's samples without labels; 0 while it is not there."""
    found = re.search(rf"^watchfloor_gateway_{name} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def frames_written(client: httpx.AsyncClient) -> tuple[float, float]:
    """Return how many frames all replicas have sent, and how many of them had to wait."""
    text = (await client.get("/metrics")).text
    return sample(text, "sent_frames_total"), sample(text, "waited_frames_total")


async def close_code(socket: ClientConnection, timeout_s: float = 15.0) -> tuple[int, str]:
    """Read until the server ends the socket."""
    async with asyncio.timeout(timeout_s):
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                pass
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def frames_of_a_visit(gateway: Gateway, publisher: httpx.AsyncClient) -> tuple[float, float]:
    """Connect, hear of one publication, go; return how many frames that took, and how many of them had to wait."""
    before = await frames_written(publisher)  # by the replica behind the other proxy and by earlier visits
    async with python(gateway.websocket(), token("direct")) as listener:
        await listener.until(lambda heard: heard.count("connected") == 1)
        offset = await publish(publisher, "noc:all", "written")
        await listener.until(lambda heard: offset in heard.offsets("noc:all"))
    sent = waited = 0.0
    for _ in range(30):  # the replica pushes its own every two seconds
        now = await frames_written(publisher)
        sent, waited = now[0] - before[0], now[1] - before[1]
        if sent >= 2:
            break
        await asyncio.sleep(0.5)
    return sent, waited


async def test_frames_are_written_past_the_server(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """Behind HAProxy each frame goes straight to its Unix socket; a new Serve or uvicorn that hides it fails here.

    The first test of the module: others make frames wait on purpose.
    """
    for _ in range(20):
        sent, waited = await frames_of_a_visit(gateway, publisher)
        if gateway.mode != "haproxy" or waited == 0:
            break
        # HAProxy sends whom it meets before it knows the replica, in its first seconds, to Serve's own proxy.
        await asyncio.sleep(0.5)

    assert sent >= 2
    configs = [path.read_text() for path in gateway.folder.glob("h/*/haproxy.cfg.sockets")]
    assert all(" unix@" in config for config in configs)
    assert len(configs) == (gateway.mode == "haproxy")
    assert waited == (0 if gateway.mode == "haproxy" else sent)


async def test_sdk_is_cut_and_misses_nothing(gateway: Gateway, sdk: Sdk, publisher: httpx.AsyncClient) -> None:
    """Cables torn twice and sockets renewed with 3001 meanwhile: every offset once, in order."""
    user, run = os.urandom(4).hex(), f"run:{os.urandom(4).hex()}"
    expected: dict[str, list[int]] = {"noc:all": [], run: []}
    with TcpProxy("127.0.0.1", gateway.port) as wire:
        async with sdk(gateway.websocket(wire.address), token(user), run) as listener:
            await listener.until(lambda heard: heard.count("connected") == 1 and heard.count("sub-subscribed") == 1)
            for number in range(80):
                channel = run if number % 2 else "noc:all"
                expected[channel].append(await publish(publisher, channel, {"number": number}))
                if number in {20, 55}:
                    wire.reset()
                await asyncio.sleep(0.05)
            for channel, offsets in expected.items():
                await listener.until(lambda heard, name=channel, last=offsets[-1]: last in heard.offsets(name))
            # Long enough under way for a renewal.
            await listener.until(lambda heard: any(event.get("code") == 3001 for event in heard.events))
            await listener.until(lambda heard: heard.count("connected") >= 4)

    for channel, offsets in expected.items():
        assert listener.offsets(channel) == offsets
        assert listener.recoveries(channel)
        assert all(listener.recoveries(channel))


async def test_sdk_without_a_valid_token_stays_out(gateway: Gateway, sdk: Sdk) -> None:
    """3500 with its reason is final for both."""
    async with sdk(gateway.websocket(), "forged") as listener:
        await listener.until(lambda heard: heard.count("disconnected") == 1)
        await asyncio.sleep(0.5)

    assert [event["code"] for event in listener.events if event["event"] == "disconnected"] == [3500]
    assert listener.count("connecting") == 1


async def test_sdk_is_refused_a_foreign_channel(gateway: Gateway, sdk: Sdk) -> None:
    """103 ends the subscription; the connection stays."""
    async with sdk(gateway.websocket(), token("ann"), "user:bob") as listener:
        await listener.until(lambda heard: heard.count("sub-unsubscribed") == 1 and heard.count("connected") == 1)

    (ended,) = [event for event in listener.events if event["event"] == "sub-unsubscribed"]
    assert ended["code"] == 103
    assert listener.count("disconnected") <= 1


async def until_heard(
    listener: Listener, event: str, user: str, channel: str, visit: Callable[[], AbstractAsyncContextManager[Listener]]
) -> None:
    """Let ``user`` come and go by ``visit`` until ``listener`` hears of it.

    Joins and leaves are told at most once, and the sockets here are renewed all the time: one that falls into a
    renewal of the listener's is gone.
    """
    for _ in range(10):
        async with visit() as visitor:
            await visitor.until(lambda heard: heard.count("sub-subscribed") >= 1)
            if event == "join" and await comes_true(listener, lambda heard: user in heard.heard(event, channel)):
                return
        if event == "leave" and await comes_true(listener, lambda heard: user in heard.heard(event, channel)):
            return
    raise AssertionError(f"{event} of {user} on {channel} was never heard")


async def comes_true(listener: Listener, condition: Callable[[Listener], bool], timeout_s: float = 5.0) -> bool:
    with contextlib.suppress(TimeoutError):
        await listener.until(condition, timeout_s)
        return True
    return False


async def until_answered(listener: Listener, expected: Callable[[Any], bool], method: str, *args: Any) -> None:
    """Ask until the answer is as expected: a member whose socket is being renewed is away for a moment."""
    answer = None
    for _ in range(200):
        answer = await listener.ask(method, *args)
        if expected(answer):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the last answer to {method} was {answer}")


async def test_sdks_see_each_other_and_talk(gateway: Gateway, sdk: Sdk, publisher: httpx.AsyncClient) -> None:
    """Presence and its numbers, joins and leaves, publishing with the sender's name, rpc, and their refusals."""
    group, run = os.urandom(4).hex(), f"run:{os.urandom(4).hex()}"
    crew, ann, bob = f"group:{group}", f"ann-{group}", f"bob-{group}"

    def visit() -> AbstractAsyncContextManager[Listener]:
        return python(gateway.websocket(), token(bob, groups=(group,)), run)

    async with sdk(gateway.websocket(), token(ann, groups=(group,)), run) as listener:
        await listener.until(lambda heard: ann in heard.heard("join", run))
        for channel in (run, crew):
            for event in ("join", "leave"):
                await until_heard(listener, event, bob, channel, visit)
        async with visit() as other:
            await until_answered(listener, lambda members: set(members) == {ann, bob}, "presence", run)
            # An old socket may still be among the members.
            await until_answered(listener, lambda stats: stats[0] >= 2 and stats[1] == 2, "presence_stats", crew)

            await listener.ask("publish", crew, {"text": "hi"})
            await other.until(lambda heard: ann in heard.heard("publication", crew))
            for method, args, code in (
                ("publish", (run, {}), 103), ("presence", (f"user:{ann}",), 103), ("rpc", ("no-such", {}), 104),
            ):  # fmt: skip
                with pytest.raises(RefusedError) as refused:
                    await other.ask(method, *args)
                assert refused.value.args == (code,), (method, args)

            mine = {crew, run, f"user:{ann}"}
            await until_answered(listener, lambda names: mine <= set(names), "rpc", "channels", {})
            assert (await listener.ask("rpc", "config", {}))["user"]["id"] == ann
            assert "services" in await listener.ask("rpc", "status", {})
        members = {bob}
        async with asyncio.timeout(10):
            while bob in members:
                answer = await publisher.post("/api/presence", json={"channel": run})
                members = {one["user"] for one in answer.json()["result"]["presence"].values()}
                await asyncio.sleep(0.05)


async def test_cent_acts_on_connections(gateway: Gateway, sdk: Sdk) -> None:
    """Subscribe, unsubscribe and disconnect reach the SDK, by PyPI ``cent`` over either proxy."""
    user, run = os.urandom(4).hex(), f"run:{os.urandom(4).hex()}"
    cent = AsyncClient(f"{gateway.url}/api", token("root", "admin"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cent.close)
        listener = await stack.enter_async_context(sdk(gateway.websocket(), token(user)))
        await listener.until(lambda heard: heard.count("connected") >= 1)
        for _ in range(10):
            # Such a subscription is the connection's, and ends with it: here sockets are renewed all the time.
            await cent.subscribe(SubscribeRequest(user=user, channel=run))
            # The own join: by then the hub knows of it.
            if not await comes_true(listener, lambda heard: user in heard.heard("join", run)):
                continue
            await cent.publish(PublishRequest(channel=run, data={"a": 1}))
            if await comes_true(listener, lambda heard: bool(heard.heard("publication", run))):
                break
        assert listener.heard("publication", run)
        assert run in (await cent.channels(ChannelsRequest(pattern="run:*"))).channels
        assert sum(node.num_clients for node in (await cent.info(InfoRequest())).nodes) >= 1
        await cent.disconnect(DisconnectRequest(user=user))
        await listener.until(lambda heard: any(event.get("code") == 3503 for event in heard.events))


async def test_client_that_never_reads_is_closed_as_slow(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """3008 for the one who sleeps; the others get everything."""
    channel = "noc:all"
    payload = "x" * 60_000
    # One message of the client's own buffer, and small socket buffers: the rest stays with the server.
    sleeper = await open_session(gateway, "sleeper", max_queue=1, ping_interval=None)
    async with python(gateway.websocket(), token("reader")) as reader:
        await reader.until(lambda heard: heard.count("connected") >= 1)
        offsets = [await publish(publisher, channel, payload) for _ in range(60)]
        await reader.until(lambda heard: offsets[-1] in heard.offsets(channel))
        assert [offset for offset in reader.offsets(channel) if offset in offsets] == offsets
        await asyncio.sleep(3.0)

        assert await close_code(sleeper) == (3008, "slow")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        pytest.param("x" * 65_537, 1009, id="too-big"),
        pytest.param("nonsense", 3501, id="no-json"),
        pytest.param("", 3501, id="empty"),
        pytest.param("{}", 3501, id="unasked-pong"),
        pytest.param('{"id":1,"connect":{}}', 3501, id="no-identity"),
    ],
)
async def test_bad_frames_end_the_socket(gateway: Gateway, frame: str, code: int) -> None:
    """The code arrives with its reason through either proxy."""
    async with connect(gateway.websocket()) as socket:
        await socket.send(frame)
        received, reason = await close_code(socket)

    assert received == code
    assert reason


async def test_protobuf_only_client_is_told(gateway: Gateway) -> None:
    """3506 instead of JSON that it cannot read."""

    async with connect(
        gateway.websocket(), subprotocols=[Subprotocol("centrifuge-protobuf"), Subprotocol("centrifuge-json")]
    ) as socket:
        assert socket.subprotocol == "centrifuge-json"


async def test_cookie_opens_a_socket_for_our_own_page_only(gateway: Gateway) -> None:
    """A foreign page's socket carries the browser's cookie too, and is refused before the upgrade."""
    cookie = f"{cookie_name(gateway.port)}={token('ann', kind=TokenKind.SESSION)}"

    async def first_line(origin: str) -> dict[str, Any]:
        async with connect(gateway.websocket(), additional_headers={"Cookie": cookie, "Origin": origin}) as socket:
            await socket.send('{"id":1,"connect":{}}')
            line: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 5))
            return line

    assert "user:ann" in (await first_line(gateway.url))["connect"]["subs"]
    with pytest.raises(InvalidStatus) as refused:
        await first_line("http://evil.example")
    assert refused.value.response.status_code == 403
    # The door's own answer, not the server's: with a connect too many it is 503 and carries Retry-After.
    assert b"another origin" in (refused.value.response.body or b"")


async def test_unidirectional_clients_only_listen(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """curl and EventSource get bare pushes: connect first, then publications."""
    request = json.dumps({"token": token("uni")})
    async with (
        connect(gateway.websocket(path="uni_websocket")) as socket,
        httpx.AsyncClient(base_url=gateway.url, timeout=10) as client,
        client.stream("GET", f"/connection/uni_sse?cf_connect={quote(request)}") as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        events = (line.removeprefix("data: ") async for line in response.aiter_lines() if line)
        await socket.send(request)
        connected = json.loads(await asyncio.wait_for(socket.recv(), 5))
        assert "user:uni" in connected["connect"]["subs"]
        assert "user:uni" in json.loads(await anext(events))["connect"]["subs"]

        offset = await publish(publisher, "user:uni", {"to": "both"})

        for line in (await asyncio.wait_for(socket.recv(), 5), await anext(events)):
            pushed = json.loads(line)
            assert (pushed["channel"], pushed["pub"]["offset"]) == ("user:uni", offset)
            assert pushed["pub"]["data"] == {"to": "both"}


async def test_event_stream_without_a_proof_is_refused_by_status(gateway: Gateway) -> None:
    """EventSource stops at a status; it would come back after the end of a stream."""
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        response = await client.get("/connection/uni_sse?cf_connect=%7B%7D")

    assert response.status_code == 401


async def test_publish_answers_in_centrifugos_shape(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """A result with the position, an error inside 200, and one publication per idempotency key."""
    body = {"channel": f"run:{os.urandom(4).hex()}", "data": 1, "idempotency_key": os.urandom(8).hex()}
    first = await publisher.post("/api/publish", json=body)
    again = await publisher.post("/api/publish", json=body)
    assert first.json() == again.json()
    assert set(first.json()["result"]) == {"offset", "epoch"}

    many = await publisher.post("/api/broadcast", json={"channels": [body["channel"], "no such"], "data": 1})
    good, bad = many.json()["result"]["responses"]
    assert good["result"]["offset"] == first.json()["result"]["offset"] + 1
    assert bad["error"]["code"] == 102

    info = await publisher.post("/api/info", json={})
    assert info.json()["result"]["nodes"][0]["num_clients"] >= 0


async def test_metrics_show_the_gateway(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """Connections, messages, latency and closes by reason."""
    async with python(gateway.websocket(), token("meter")) as listener:
        await listener.until(lambda heard: heard.count("connected") == 1)
        offset = await publish(publisher, "noc:all", "counted")
        await listener.until(lambda heard: offset in heard.offsets("noc:all"))
    wanted = {
        'watchfloor_gateway_connections{transport="websocket"}',
        'watchfloor_gateway_sent_messages_total{kind="noc"}',
        "watchfloor_gateway_send_latency_seconds_bucket",
        'watchfloor_gateway_closes_total{code="1000"}',
    }
    missing = wanted
    for _ in range(30):  # the replica pushes its own every two seconds
        text = (await publisher.get("/metrics")).text
        missing = {sample for sample in wanted if sample not in text}
        if not missing:
            break
        await asyncio.sleep(0.5)
    assert missing == set()


async def test_a_drain_sends_sdks_away_and_they_come_back(
    gateway: Gateway, sdk: Sdk, publisher: httpx.AsyncClient
) -> None:
    """Refused while it holds, recovered when it is over: what was published meanwhile arrives once, in order."""
    channel = f"run:{os.urandom(4).hex()}"
    async with sdk(gateway.websocket(), token("ann"), channel) as listener:
        await listener.until(lambda heard: heard.count("sub-subscribed") >= 1)
        offsets = [await publish(publisher, channel, {"n": 0})]
        await listener.until(lambda heard: offsets[0] in heard.offsets(channel))
        told = await publisher.post(
            "/api/v1/drain",
            json={"over_s": 0.2, "hold_s": 3.0},
            headers={"Authorization": f"Bearer {token('root', 'admin')}"},
        )
        assert told.status_code == 202, told.text
        await asyncio.sleep(1.0)
        late = await open_session(gateway, "late")
        assert await close_code(late) == (3001, "shutdown")
        offsets += [await publish(publisher, channel, {"n": number}) for number in (1, 2)]
        await listener.until(lambda heard: offsets[-1] in heard.offsets(channel), 40)

    assert listener.offsets(channel) == offsets
    assert all(listener.recoveries(channel))


async def test_killed_replica_and_restarted_hub_lose_nothing(gateway: Gateway, publisher: httpx.AsyncClient) -> None:
    """Another replica, and a hub from its journal, serve the same positions."""
    channel = "noc:all"
    async with python(gateway.websocket(), token(os.urandom(4).hex())) as listener:
        await listener.until(lambda heard: heard.count("connected") == 1)
        offsets = [await publish(publisher, channel, number) for number in range(10)]
        await asyncio.to_thread(gateway.command, "kill-replica")
        offsets += [await publish(publisher, channel, number, within_s=RESTART_S) for number in range(10, 20)]
        await listener.until(lambda heard: offsets[-1] in heard.offsets(channel), timeout_s=RESTART_S)
        await asyncio.to_thread(gateway.command, "restart-hub")
        offsets += [await publish(publisher, channel, number, within_s=RESTART_S) for number in range(20, 30)]
        await listener.until(lambda heard: offsets[-1] in heard.offsets(channel), timeout_s=RESTART_S)

    assert listener.offsets(channel) == offsets
    assert all(listener.recoveries(channel))


@pytest.mark.parametrize("gateway", ["proxy"], indirect=True)
async def test_redeploy_that_nobody_announced_closes_with_3001(gateway: Gateway) -> None:
    """Pins the private flag of Ray that the replica watches; behind HAProxy it is the same replica class."""
    redeploy = asyncio.create_task(asyncio.to_thread(gateway.command, "redeploy"))
    ends: list[tuple[int, float]] = []

    async def come_again() -> None:
        while not redeploy.done():
            opened_s = time.monotonic()
            with contextlib.suppress(OSError, InvalidHandshake):
                async with await open_session(gateway, "redeployed") as socket:
                    code, _ = await close_code(socket)
                    ends.append((code, time.monotonic() - opened_s))

    # Of all ages, so that the redeploy meets young ones however busy the machine is.
    await asyncio.gather(*(come_again() for _ in range(12)))
    assert (await redeploy)["redeployed"]
    # Younger than the least age of a renewal, so it was the redeploy.
    assert any(code == 3001 and age_s < 2.5 for code, age_s in ends), ends


async def test_drain_closes_with_3001_and_refuses_newcomers(gateway: Gateway) -> None:
    """Last, as a drained replica takes nobody any more."""
    for _ in range(50):  # the replica before the redeploy may still take the socket, to send it away
        socket = await open_session(gateway, "leaving")
        with contextlib.suppress(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
            break
        await asyncio.sleep(0.2)

    assert (await asyncio.to_thread(gateway.command, "drain"))["drained"] >= 1

    assert await close_code(socket) == (3001, "shutdown")
    late = await open_session(gateway, "late")
    assert await close_code(late) == (3001, "shutdown")
