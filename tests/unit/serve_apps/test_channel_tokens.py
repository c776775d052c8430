"""Channel tokens: one user, one channel, one tenant, for a while; never in another token's place."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from typer.testing import CliRunner

from serve_apps.auth import Authenticator, Identity, Role, TokenKind, issue_channel_token, issue_token, verify_token
from serve_apps.authorisation import may_subscribe_by_token
from serve_apps.cli import app
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.errors import AuthenticationError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import FakeTransport, LocalHub, draft

SECRET = b"s" * 32


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


AUTH = Authenticator(SECRET, http_port=1, consume=_first_use)


@pytest.fixture
async def hub() -> LocalHub:
    return LocalHub()


@pytest.fixture
async def register(hub: LocalHub) -> AsyncIterator[Connections]:
    made = Connections(hub, AUTH, GatewaySettings(expiry_grace_s=0.0))  # type: ignore[arg-type]
    yield made
    await made.stop()


async def connected(register: Connections, tenant: str | None = "t1") -> tuple[Connection, FakeTransport]:
    transport = FakeTransport()
    connection = register.open(transport)
    token = issue_token(SECRET, sub="ann", tenant=tenant, roles=[Role.VIEWER], ttl_s=600)
    await connection.on_text(json.dumps({"id": 1, "connect": {"token": token}}))
    await transport.until(lambda made: bool(made.frames))
    return connection, transport


async def asked(connection: Connection, transport: FakeTransport, channel: str, token: str) -> dict[str, Any]:
    before = len(transport.lines)
    await connection.on_text(json.dumps({"id": 2, "subscribe": {"channel": channel, "token": token}}))
    await transport.until(lambda made: len(made.lines) > before)
    answer: dict[str, Any] = transport.lines[before]
    return answer


def granted(channel: str = "group:ops", *, sub: str = "ann", tenant: str | None = "t1", ttl_s: float = 900) -> str:
    return issue_channel_token(SECRET, sub=sub, tenant=tenant, channel=channel, ttl_s=ttl_s)


async def test_a_token_opens_a_channel_that_the_role_does_not(register: Connections, hub: LocalHub) -> None:
    """Its publications come, its history may be read, and the client is told for how long."""
    connection, transport = await connected(register)
    assert (await asked(connection, transport, "group:ops", ""))["error"]["code"] == 103

    answer = await asked(connection, transport, "group:ops", granted())
    await hub.publish([draft("group:ops", "news")])
    await transport.until(lambda made: bool(made.publications("group:ops")))
    await connection.on_text('{"id":3,"history":{"channel":"group:ops","limit":10}}')

    assert answer["subscribe"]["expires"] is True
    assert 800 <= answer["subscribe"]["ttl"] <= 900
    await transport.until(lambda made: any(line.get("id") == 3 for line in made.lines))
    (history,) = [line["history"] for line in transport.lines if line.get("id") == 3]
    assert [one["data"] for one in history["publications"]] == ["news"]


async def test_the_end_of_the_token_is_the_end_of_the_subscription(register: Connections, hub: LocalHub) -> None:
    """2501, after which the SDK asks for a new token; nothing comes after it."""
    connection, transport = await connected(register)
    await asked(connection, transport, "group:ops", granted(ttl_s=1.5))

    await transport.until(lambda made: any("unsubscribe" in line.get("push", {}) for line in made.lines))
    await hub.publish([draft("group:ops", "too late"), draft("user:ann", "still here")])
    await transport.until(lambda made: bool(made.publications("user:ann")))

    (push,) = [line["push"] for line in transport.lines if "unsubscribe" in line.get("push", {})]
    assert push == {"channel": "group:ops", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
    assert transport.publications("group:ops") == []
    await connection.on_text('{"id":4,"history":{"channel":"group:ops","limit":10}}')
    await transport.until(lambda made: any(line.get("id") == 4 for line in made.lines))
    assert next(line for line in transport.lines if line.get("id") == 4)["error"]["code"] == 103


@pytest.mark.parametrize(
    ("token", "code"),
    [
        pytest.param("rubbish", 103, id="no-token"),
        pytest.param(granted(sub="bob"), 103, id="of-another-user"),
        pytest.param(granted(tenant="t2"), 103, id="of-another-tenant"),
        pytest.param(granted(tenant=None), 103, id="of-no-tenant"),
        pytest.param(granted("group:dev"), 103, id="for-another-channel"),
        pytest.param(
            issue_channel_token(
                SECRET, sub="ann", tenant="t1", channel="group:ops", ttl_s=9, now_s=time.time() - 10
            ),
            109,
            id="expired",
        ),
        pytest.param(issue_token(SECRET, sub="ann", tenant="t1", roles=["admin"], ttl_s=900), 103, id="access-token"),
        pytest.param(
            jwt.encode({"sub": "ann", "tenant": "t1", "channel": "group:ops", "exp": time.time() + 900, "jti": "1"},
                       SECRET, algorithm="HS256"),
            103,
            id="kind-left-out",
        ),
        pytest.param(
            jwt.encode({"sub": "ann", "channel": "group:ops", "kind": "channel", "exp": time.time() + 900, "jti": "1"},
                       SECRET, algorithm="HS256"),
            103,
            id="tenant-left-out",
        ),
    ],
)  # fmt: skip
async def test_a_token_that_is_not_for_this_is_refused(register: Connections, token: str, code: int) -> None:
    """103 is final; 109 sends the SDK for a new token."""
    connection, transport = await connected(register)
    answer = await asked(connection, transport, "group:ops", token)
    assert answer["error"]["code"] == code
    assert connection.session.channels == ("user:ann", "tenant:t1")


@pytest.mark.parametrize("channel", ["tenant:t2", "device:t2/d", "noc:all", "user:bob", "run:unknown", "group:x#bob"])
async def test_no_token_leads_out_of_the_tenant_or_past_a_limit(register: Connections, channel: str) -> None:
    """It stands for a role, not for another tenant, whoever signed it."""
    connection, transport = await connected(register)
    assert (await asked(connection, transport, channel, granted(channel)))["error"]["code"] == 103


def test_what_a_token_can_stand_for() -> None:
    """Own devices and runs without the role of a viewer; for a user without a tenant, what the token says."""
    nobody = Identity(user_id="ann", tenant="t1", roles=frozenset(), expires_at=0)
    loose = Identity(user_id="ann", tenant=None, roles=frozenset(), expires_at=0)
    assert may_subscribe_by_token(nobody, "device:t1/d")
    assert may_subscribe_by_token(nobody, "run:r", {"r": "t1"})
    assert not may_subscribe_by_token(nobody, "run:r", {"r": None})
    assert may_subscribe_by_token(nobody, "noc:client-7")
    assert may_subscribe_by_token(nobody, "group:ops#ann")
    assert all(may_subscribe_by_token(loose, channel) for channel in ("noc:all", "device:t1/d", "run:r", "user:bob"))
    assert not may_subscribe_by_token(loose, "group:ops#bob")


@pytest.mark.parametrize("kind", list(TokenKind))
def test_no_token_passes_for_one_of_another_kind(kind: TokenKind) -> None:
    """Not the one way and not the other."""
    with pytest.raises(AuthenticationError):
        verify_token(SECRET, granted(), kind if kind is not TokenKind.CHANNEL else TokenKind.ACCESS)
    token = issue_token(SECRET, sub="ann", tenant="t1", roles=["admin"], ttl_s=60, kind=kind)
    with pytest.raises(AuthenticationError):
        AUTH.from_channel_token(token)


def test_an_old_token_says_so() -> None:
    """The SDK fetches a new one for an expired token, and only then."""
    with pytest.raises(TokenExpiredError):
        AUTH.from_channel_token(
            issue_channel_token(SECRET, sub="ann", tenant=None, channel="noc:all", ttl_s=1, now_s=time.time() - 2)
        )


@pytest.mark.parametrize("arguments", [{"channel": "nonsense"}, {"sub": ""}, {"ttl_s": 0}])
def test_issuing_checks_its_arguments(arguments: dict[str, Any]) -> None:
    """The mistake is the issuer's."""
    good: dict[str, Any] = {"sub": "ann", "tenant": None, "channel": "noc:all", "ttl_s": 60.0}
    with pytest.raises(ValueError, match=r"channel|sub|ttl_s"):
        issue_channel_token(SECRET, **(good | arguments))


def test_the_command_line_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a token carries no role, so none can be asked for."""
    (tmp_path / "secret").write_bytes(SECRET)
    monkeypatch.setenv("WATCHFLOOR_DATA_DIR", str(tmp_path))
    wanted = ["token", "--channel", "group:ops", "--user", "ann", "--tenant", "t1"]

    made = CliRunner().invoke(app, wanted)

    assert AUTH.from_channel_token(made.stdout.strip()).channel == "group:ops"
    assert CliRunner().invoke(app, [*wanted, "--role", "admin"]).exit_code == 2
    assert CliRunner().invoke(app, ["token", "--channel", "nonsense"]).exit_code == 2


async def test_token_that_ends_while_the_hub_is_asked_starts_nothing(hub: LocalHub, register: Connections) -> None:
    """The reply says so; no publication follows it."""
    connection, transport = await connected(register)
    held = asyncio.Event()

    async def wait(operation: str) -> None:
        if operation == "positions":
            await held.wait()

    hub.before_answer = wait
    asking = asyncio.create_task(asked(connection, transport, "group:ops", granted(ttl_s=1.5)))
    await transport.until(lambda made: any("unsubscribe" in line.get("push", {}) for line in made.lines))
    held.set()
    await asking
    await transport.until(lambda made: any(line.get("id") == 2 for line in made.lines))
    assert next(line for line in transport.lines if line.get("id") == 2)["error"]["code"] == 103
    assert "group:ops" not in connection.session.channels
