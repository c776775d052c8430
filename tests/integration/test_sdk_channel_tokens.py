"""Both SDKs renew the token of a channel: ``getToken``, sub_refresh, and the end of who does not.

The gateway's application in this process, with a clock of its own for the tokens: theirs
live for seconds, those of a floor for minutes.
"""

import asyncio
import dataclasses
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import uvicorn

from cluster.ports import LOOPBACK, free_port
from cluster.settings import Settings
from serve_apps.app import create_app
from serve_apps.auth import Authenticator, Identity, issue_token
from serve_apps.deps import GatewayDeps
from serve_apps.errors import NotAllowedError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import LocalHub
from tests.integration.sdk_clients import SDK, javascript, python
from tests.integration.test_sdk_centrifuge import Sdk

SECRET = b"s" * 64


def authorise(_identity: Identity, channel: str, token: str) -> float | None:
    """A token of a channel says the channel and how many seconds it lives from its first use on."""
    of, _, ttl_s = token.partition("|")
    if of != channel:
        raise NotAllowedError("of another channel")
    if float(ttl_s) <= 0:
        raise TokenExpiredError
    return time.time() + float(ttl_s)


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


@pytest.fixture
async def address() -> AsyncIterator[str]:
    port = free_port()
    auth = Authenticator(SECRET, http_port=port, consume=_first_use)
    deps = SimpleNamespace(settings=Settings(http_port=port), hub=LocalHub(), auth=auth)
    app = create_app(cast(GatewayDeps, deps), GatewaySettings(expiry_grace_s=0.5))
    register = app.state.connections
    register._rules = dataclasses.replace(register._rules, authorise_subscription=authorise)
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    yield f"ws://{LOOPBACK}:{port}/connection/websocket"
    await register.drain(over_s=0)
    server.should_exit = True
    await serving


@pytest.fixture(params=["javascript", "python"])
def sdk(request: pytest.FixtureRequest) -> Sdk:
    if not (SDK / "node_modules" / "centrifuge").exists():
        npm = Path(sys.executable).parent / "npm"
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=SDK, check=True, timeout=120)
    return javascript if request.param == "javascript" else python


def token() -> str:
    return issue_token(SECRET, sub="ann", tenant=None, roles=["viewer"], ttl_s=600)


async def test_a_renewed_channel_goes_on(address: str, sdk: Sdk) -> None:
    """The SDK asks for a second token before the first one ends, and nothing is interrupted."""
    tokens = ["group:x|1", "group:x|600"]
    async with sdk(address, token(), "group:x", channel_tokens=tokens) as listener:
        await listener.until(lambda heard: heard.count("sub-subscribed") == 1)
        await asyncio.sleep(3)  # beyond the first token and its grace
        assert listener.count("sub-unsubscribed") == 0
        assert listener.count("sub-subscribed") == 1


async def test_a_channel_of_another_is_refused(address: str, sdk: Sdk) -> None:
    """103 is final, and the connection stays."""
    async with sdk(address, token(), "group:x", channel_tokens=["group:y|600"]) as listener:
        await listener.until(lambda heard: heard.count("sub-unsubscribed") == 1)
    (ended,) = [event for event in listener.events if event["event"] == "sub-unsubscribed"]
    assert ended["code"] == 103


async def test_an_expired_token_makes_the_sdk_fetch_another(address: str, sdk: Sdk) -> None:
    """109 at the first try, and the second one is good."""
    async with sdk(address, token(), "group:x", channel_tokens=["group:x|0", "group:x|600"]) as listener:
        await listener.until(lambda heard: heard.count("sub-subscribed") == 1)
