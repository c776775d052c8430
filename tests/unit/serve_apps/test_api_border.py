"""What holds for every route: bodies, types, limits, identities, one shape of error."""

from typing import Any

import pytest

from serve_apps.http_guard import MAX_BODY_BYTES
from tests.fakes_api import ApiFloor

ACTIONS = "/api/v1/alerts/actions"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        pytest.param(b"{", JSON, 400, id="not-json"),
        pytest.param(b"\xff\xfe", JSON, 400, id="not-utf-8"),
        pytest.param(b"[" * 100_000, JSON, 400, id="nest-without-end"),
        pytest.param(b"[]", JSON, 422, id="array"),
        pytest.param(b'{"action":"close","ids":["a"],"admin":true}', JSON, 422, id="unknown-field"),
        pytest.param(b'{"action":"explode","ids":["a"]}', JSON, 422, id="unknown-action"),
        pytest.param(b'{"action":"close","ids":[]}', JSON, 422, id="no-ids"),
        pytest.param(b'{"action":"close","ids":["../x"]}', JSON, 422, id="path-as-id"),
        pytest.param(b'{"action":"verdict","ids":["a"]}', JSON, 422, id="verdict-missing"),
        pytest.param(b'{"action":"note","ids":["a"]}', JSON, 422, id="text-missing"),
        pytest.param(b'{"action":"note","ids":["a"],"args":{"text":"\\ud800"}}', JSON, 422, id="lone-surrogate"),
        pytest.param(b'{"action":"note","ids":["a"],"args":{"text":"a\\u0000b"}}', JSON, 422, id="nul"),
        pytest.param(b'{"action":"close","ids":["a"],"request_id":"x"}', JSON, 422, id="short-request-id"),
        pytest.param(b"{}", {"content-type": "text/plain"}, 415, id="other-type"),
        pytest.param(b"x=1", {"content-type": "multipart/form-data; boundary=x"}, 415, id="multipart"),
        pytest.param(b" " * (MAX_BODY_BYTES + 1), JSON, 413, id="too-large"),
        pytest.param(b'{"action":"close","ids":["nobody"]}', JSON, 404, id="unknown-alert"),
    ],
)
async def test_bad_bodies_are_refused(api: ApiFloor, content: bytes, headers: dict[str, str], status: int) -> None:
    """Every kind of bad input has its status and one shape of answer."""
    async with api.caller("operator") as caller:
        answer = await caller.post(ACTIONS, content=content, headers=headers)

    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message"}


async def test_a_body_without_a_length_is_counted(api: ApiFloor) -> None:
    """Chunks add up to the same limit."""

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * (MAX_BODY_BYTES // 16)

    async with api.caller("operator") as caller:
        answer = await caller.post(ACTIONS, content=chunks(), headers=JSON)

    assert answer.status_code == 413


@pytest.mark.parametrize("limit", ["0", "-1", "501", "1000000000", "many"])
@pytest.mark.parametrize("path", ["alerts", "runs", "dead-letters", "models", "datasets"])
async def test_pages_are_bounded(api: ApiFloor, path: str, limit: str) -> None:
    """No list can be asked for more than 500 rows."""
    async with api.caller("admin") as caller:
        answer = await caller.get(f"/api/v1/{path}?limit={limit}")

    assert answer.status_code == 422


@pytest.mark.parametrize("cursor", ["zzz", "9-A", "'; drop table alerts", "0-" + "A" * 300])
async def test_foreign_cursors_are_refused(api: ApiFloor, cursor: str) -> None:
    """A cursor that is not ours is the caller's mistake."""
    async with api.caller("admin") as caller:
        answer = await caller.get("/api/v1/alerts", params={"cursor": cursor})

    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "role", "least"),
    [
        pytest.param("GET", "/api/v1/alerts", None, 401, id="nobody-reads"),
        pytest.param("POST", ACTIONS, "viewer", 403, id="viewer-acts"),
        pytest.param("POST", "/api/v1/runs", "operator", 403, id="operator-trains"),
        pytest.param("POST", "/api/v1/commands", "viewer", 403, id="viewer-commands"),
        pytest.param("GET", "/api/v1/dead-letters", "viewer", 403, id="viewer-reads-dead-letters"),
        pytest.param("GET", "/api/v1/alerts", "viewer", 403, id="viewer-without-tenant"),
    ],
)
async def test_roles_are_asked_for(api: ApiFloor, method: str, path: str, role: str | None, least: int) -> None:
    """Who is nobody gets 401, who may not gets 403."""
    async with api.caller(*([role] if role else [])) as caller:
        answer = await caller.request(method, path, json={} if method == "POST" else None)

    assert answer.status_code == least
    if least == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_answers_carry_the_security_headers(api: ApiFloor) -> None:
    """Also errors: no sniffing, no framing, a strict content policy."""
    async with api.caller() as caller:
        answer = await caller.get("/api/v1/alerts")

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
