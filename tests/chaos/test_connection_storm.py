"""A thousand clients whose sockets were cut at once: all come back within their SDK's backoff, with nothing lost."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from cluster.metrics import REGISTRY
from serve_apps.auth import issue_token
from serve_apps.limits import Limit
from tests.fakes_gateway import LocalHub, draft
from tests.gateway_server import SECRET, gateway_server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

CLIENTS = 1000
ALL_BACK_S = 60.0
"""Far above what was measured (see docs/operations.md): a busy machine must pass too."""


@dataclass
class Client:
    """Reconnects as npm ``centrifuge`` does: 0.5 s and a random part of a doubling span, 20 s at most."""

    user: str
    socket: ClientConnection | None = None
    subs: dict[str, Any] = field(default_factory=dict)
    heard: list[int] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    """Status and Retry-After of each."""

    async def connect(self, url: str) -> None:
        request = {"token": issue_token(SECRET, sub=self.user, tenant="t1", roles=["viewer"], ttl_s=600)}
        if self.subs:
            request |= {"subs": self.subs}
        step = 0
        while True:
            try:
                self.socket = await connect(url, open_timeout=30)
                break
            except InvalidStatus as error:
                self.refusals.append((error.response.status_code, error.response.headers.get("Retry-After", "")))
            await asyncio.sleep(min(20.0, 0.5 + random.uniform(0, min(20.0, 0.5 * 2**step))))
            step += 1
        await self.socket.send(json.dumps({"id": 1, "connect": request}))
        # Publications of a recovered channel are in the reply.
        reply = json.loads((await self.socket.recv()).split("\n")[0])["connect"]
        for channel, sub in reply["subs"].items():
            assert channel not in self.subs or sub["recovered"] is True
            self.heard += [publication["data"] for publication in sub.get("publications", ())]
            self.subs[channel] = {"recover": True, "epoch": sub["epoch"], "offset": sub["offset"]}


@pytest.mark.parametrize(
    ("door", "is_tight"),
    [
        pytest.param({}, False, id="as-it-is-set"),
        pytest.param({"connects_per_s": 100.0, "connect_burst": 300.0}, True, id="tight"),
    ],
)
async def test_a_thousand_reconnect_at_once(door: dict[str, Any], is_tight: bool) -> None:
    """Who is refused at the door comes a moment later; what was missed is in each one's reply."""
    hub = LocalHub()
    async with gateway_server(hub, max_connections_per_tenant=CLIENTS + 1, **door) as host:
        url = f"ws://{host}/connection/websocket"
        clients = [Client(f"user-{number}") for number in range(CLIENTS)]
        await asyncio.gather(*(client.connect(url) for client in clients))
        sockets = [client.socket for client in clients if client.socket is not None]
        await asyncio.gather(*(socket.close() for socket in sockets))
        await asyncio.sleep(4)  # the door's bucket is full again
        await hub.publish([draft("tenant:t1", number) for number in range(5)])
        before = _refused()
        for client in clients:
            client.refusals.clear()

        begun_s = time.monotonic()
        await asyncio.gather(*(client.connect(url) for client in clients))
        took_s = time.monotonic() - begun_s

        refusals = [refusal for client in clients for refusal in client.refusals]
        print(f"{CLIENTS} back after {took_s:.1f} s; {len(refusals)} refusals at the door")
        assert all(client.heard == [0, 1, 2, 3, 4] for client in clients)
        assert _refused() - before == len(refusals)
        assert all(status == 503 and int(after) >= 1 for status, after in refusals)
        assert not is_tight or refusals
        assert took_s < ALL_BACK_S
        await asyncio.gather(*(client.socket.close() for client in clients if client.socket is not None))


def _refused() -> float:
    return REGISTRY.get_sample_value("watchfloor_gateway_limited_total", {"limit": Limit.CONNECTS.value}) or 0.0
