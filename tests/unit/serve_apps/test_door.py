"""The door: which pages come in, and how many at a time; asked over real sockets."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster.metrics import REGISTRY
from serve_apps.auth import TokenKind, issue_token
from serve_apps.door import DeniedUpgrades, Door
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.limits import Limit, Limits
from serve_apps.origins import Origins
from tests.gateway_server import SECRET, gateway_server

OPS = "https://ops.example"
EVIL = "https://evil.example"


def token(kind: TokenKind = TokenKind.ACCESS, tenant: str | None = None, user: str = "ann") -> str:
    return issue_token(SECRET, sub=user, tenant=tenant, roles=["admin"], ttl_s=600, kind=kind)


def limited(limit: Limit) -> float:
    return REGISTRY.get_sample_value("watchfloor_gateway_limited_total", {"limit": limit.value}) or 0.0


async def websocket_status(host: str, **headers: str) -> int:
    """HTTP status of the upgrade: 101 when it was made and the connect command was answered."""
    try:
        async with connect(f"ws://{host}/connection/websocket", additional_headers=headers) as socket:
            await socket.send(json.dumps({"id": 1, "connect": {"token": token()}}))
            assert "connect" in json.loads(await socket.recv())
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def sse_answer(host: str, **headers: str) -> tuple[int, httpx.Headers]:
    query = {"cf_connect": json.dumps({"token": token()})}
    async with (
        httpx.AsyncClient(base_url=f"http://{host}") as client,
        client.stream("GET", "/connection/uni_sse", params=query, headers=headers) as answer,
    ):
        return answer.status_code, answer.headers


async def test_a_foreign_page_gets_no_connection_whatever_token_it_holds() -> None:
    """Own page, listed page and no browser come in."""
    async with gateway_server(allowed_origins=(OPS,)) as host:
        for headers, status in (
            ({}, 101),
            ({"Origin": f"http://{host}"}, 101),
            ({"Origin": OPS}, 101),
            ({"Origin": EVIL}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": f"{OPS}.evil.example"}, 403),
        ):
            assert await websocket_status(host, **headers) == status, headers
            assert (await sse_answer(host, **headers))[0] == (200 if status == 101 else 403), headers
        assert (await sse_answer(host, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403


async def test_only_a_listed_origin_may_read_answers() -> None:
    """It is named, and never with a star; others are told nothing."""
    async with gateway_server(allowed_origins=(OPS,)) as host, httpx.AsyncClient(base_url=f"http://{host}") as client:
        key = {"X-API-Key": token()}
        body = {"channel": "noc:all", "data": 1}
        listed = await client.post("/api/publish", json=body, headers=key | {"Origin": OPS})
        foreign = await client.post("/api/publish", json=body, headers=key | {"Origin": EVIL})
        page = await client.get("/", headers={"Origin": OPS})
        _, stream = await sse_answer(host, Origin=OPS)
        refused = await client.post("/api/publish", json=body, headers={"Origin": OPS})

    for answer in (listed.headers, stream, refused.headers):
        assert answer["access-control-allow-origin"] == OPS
        assert answer["access-control-allow-credentials"] == "true"
        assert answer["cross-origin-resource-policy"] == "cross-origin"
        assert "Origin" in answer["vary"]
    assert refused.status_code == 401
    assert foreign.status_code == 200  # the token is good; a browser keeps the answer from the page
    for answer in (foreign.headers, page.headers):
        assert not [name for name in answer if name.startswith("access-control-")]


async def test_a_browser_that_asks_first_is_answered() -> None:
    """For a listed origin, and with what the SDKs and ``fetch`` send."""
    question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with gateway_server(allowed_origins=(OPS,)) as host, httpx.AsyncClient(base_url=f"http://{host}") as client:
        listed = await client.options("/api/publish", headers=question | {"Origin": OPS})
        foreign = await client.options("/api/publish", headers=question | {"Origin": EVIL})
        page = await client.options("/static/app.css", headers=question | {"Origin": OPS})

    assert listed.status_code == 204
    assert listed.headers["access-control-allow-origin"] == OPS
    assert {"authorization", "x-api-key"} <= set(listed.headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-origin" not in foreign.headers
    assert (foreign.status_code, page.status_code) == (405, 405)


async def test_without_a_list_nothing_is_said_to_other_origins() -> None:
    """The default."""
    async with gateway_server() as host, httpx.AsyncClient(base_url=f"http://{host}") as client:
        answer = await client.post("/api/publish", json={}, headers={"X-API-Key": token(), "Origin": OPS})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_cookie_counts_from_own_and_listed_pages_only() -> None:
    """Reading as well as changing."""
    async with gateway_server(allowed_origins=(OPS,)) as host, httpx.AsyncClient(base_url=f"http://{host}") as client:
        client.cookies.set(f"watchfloor_session_{host.rpartition(':')[2]}", token(TokenKind.SESSION))
        body = {"channel": "noc:all"}
        statuses = [
            (await client.post("/api/history", json=body, headers={"Origin": origin})).status_code
            for origin in (f"http://{host}", OPS, EVIL)
        ]
        config = (await client.get("/api/v1/config", headers={"Sec-Fetch-Site": "cross-site"})).status_code
    assert statuses == [200, 200, 403]
    assert config == 403


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example", "ops.example", "https://ops.example/", "HTTPS://OPS.example"]
)
def test_a_list_holds_origins_and_no_patterns(origin: str) -> None:
    """A wildcard with cookies would be everybody's."""
    with pytest.raises(ValueError, match="origin"):
        GatewaySettings(allowed_origins=(origin,))


async def test_a_storm_is_refused_before_the_upgrade() -> None:
    """With 503 and when to come back; counted; and after that long the door is open."""
    before = limited(Limit.CONNECTS)
    async with gateway_server(connects_per_s=1.0, connect_burst=2.0) as host:
        assert [await websocket_status(host) for _ in range(2)] == [101, 101]
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{host}/connection/websocket")
        status, headers = await sse_answer(host)
        after = refused.value.response.headers["Retry-After"]
        await asyncio.sleep(int(after) + 0.1)
        again = await websocket_status(host)

    assert refused.value.response.status_code == 503
    assert (status, headers["retry-after"], after) == (503, "1", "1")
    assert again == 101
    assert limited(Limit.CONNECTS) == before + 2


async def test_a_server_without_denial_responses_refuses_with_403() -> None:
    """Then the door can only close."""
    sent: list[Any] = []

    async def never(*_: Any) -> None:
        raise AssertionError("the application was asked")

    async def send(message: Any) -> None:
        sent.append(message)

    door = Door(never, Origins(), Limits(GatewaySettings(), lambda _: None, 0.0))
    scope = {"type": "websocket", "path": "/connection/websocket", "headers": [(b"origin", EVIL.encode())]}
    await door(scope, never, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_a_refused_upgrade_is_no_error_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """uvicorn complains of each; everything else that it says is still heard."""
    uvicorn_log = logging.getLogger("uvicorn.error")
    hush = DeniedUpgrades()
    uvicorn_log.addFilter(hush)
    try:
        async with gateway_server() as host:
            assert await websocket_status(host, Origin=EVIL) == 403
        uvicorn_log.error("something else")
    finally:
        uvicorn_log.removeFilter(hush)
    told = capsys.readouterr().err
    assert "something else" in told
    assert "handshake" not in told


async def test_calls_of_one_user_are_bounded() -> None:
    """429 with Retry-After, whatever route; the others go on."""
    before = limited(Limit.HTTP_CALLS)
    async with (
        gateway_server(http_per_s=1.0, http_burst=3.0) as host,
        httpx.AsyncClient(base_url=f"http://{host}") as client,
    ):
        call = {"url": "/api/history", "json": {"channel": "noc:all"}}
        ann = [await client.post(**call, headers={"X-API-Key": token()}) for _ in range(5)]  # type: ignore[arg-type]
        bob = await client.post(**call, headers={"X-API-Key": token(user="bob")})  # type: ignore[arg-type]

    assert [answer.status_code for answer in ann][:4] == [200, 200, 200, 429]
    assert ann[3].headers["retry-after"] == "1"
    assert ann[3].json()["error"]["code"] == "too_many_requests"
    assert bob.status_code == 200
    assert limited(Limit.HTTP_CALLS) >= before + 1
