"""The gateway's application on a real server and a hub in this process: no Ray, real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from cluster.ports import LOOPBACK, free_port
from cluster.settings import Settings
from serve_apps.app import create_app
from serve_apps.auth import Authenticator
from serve_apps.deps import GatewayDeps
from serve_apps.gateway_settings import GatewaySettings
from tests.fakes_gateway import LocalHub

SECRET = b"s" * 32


async def _first_use(_id: str, _ttl_s: float) -> bool:
    return True


@asynccontextmanager
async def gateway_server(hub: LocalHub | None = None, **settings: Any) -> AsyncIterator[str]:
    """Yield host and port of a gateway that listens on loopback."""
    port = free_port()
    deps = SimpleNamespace(
        settings=Settings(http_port=port),
        hub=hub or LocalHub(),
        engine=None,
        auth=Authenticator(SECRET, http_port=port, consume=_first_use),
    )
    async with serving(create_app(cast(GatewayDeps, deps), GatewaySettings(**settings)), port) as address:
        yield address


@asynccontextmanager
async def serving(app: FastAPI, port: int) -> AsyncIterator[str]:
    """Yield host and port of an app that has a register of connections; they are drained in the end."""
    server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=port, log_level="error", backlog=4096))
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
    yield f"{LOOPBACK}:{port}"
    await app.state.connections.drain(over_s=0)
    server.should_exit = True
    await task
