"""Both SDKs renew the token of a channel: ``getToken``, sub_refresh, and the end of who does not.

The gateway's application in this process, whose grace after a token's end is short.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve_apps.auth import issue_channel_token, issue_token
from tests.gateway_server import SECRET, gateway_server
from tests.integration.sdk_clients import SDK, javascript, python
from tests.integration.test_sdk_centrifuge import Sdk


def channel_token(channel: str = "group:x", ttl_s: float = 600, now_s: float | None = None) -> str:
    return issue_channel_token(SECRET, sub="ann", tenant=None, channel=channel, ttl_s=ttl_s, now_s=now_s)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with gateway_server(expiry_grace_s=0.5) as host:
        yield f"ws://{host}/connection/websocket"


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
    # A JWT's expiry counts in whole seconds: it has one and a half at least.
    tokens = [channel_token(ttl_s=2.5), channel_token()]
    async with sdk(address, token(), "group:x", channel_tokens=tokens) as listener:
        await listener.until(lambda heard: heard.count("sub-subscribed") == 1)
        await asyncio.sleep(4)  # beyond the first token and its grace
        assert listener.count("sub-unsubscribed") == 0
        assert listener.count("sub-subscribed") == 1


async def test_a_channel_of_another_is_refused(address: str, sdk: Sdk) -> None:
    """103 is final, and the connection stays."""
    async with sdk(address, token(), "group:x", channel_tokens=[channel_token("group:y")]) as listener:
        await listener.until(lambda heard: heard.count("sub-unsubscribed") == 1)
    (ended,) = [event for event in listener.events if event["event"] == "sub-unsubscribed"]
    assert ended["code"] == 103


async def test_an_expired_token_makes_the_sdk_fetch_another(address: str, sdk: Sdk) -> None:
    """109 at the first try, and the second one is good."""
    expired = channel_token(ttl_s=9, now_s=time.time() - 10)
    async with sdk(address, token(), "group:x", channel_tokens=[expired, channel_token()]) as listener:
        await listener.until(lambda heard: heard.count("sub-subscribed") == 1)
