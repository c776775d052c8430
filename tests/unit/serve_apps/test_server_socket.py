"""Frames written past the server: they arrive whole, between its own, or not at all."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster.ports import free_port
from serve_apps.outgoing import Frame
from serve_apps.server_socket import ServerSocket, find_socket
from serve_apps.websocket import WRITE_BUFFER_BYTES, WebSocketTransport

LINE = json.dumps({"push": {"text": "é" * 300}}, ensure_ascii=False)


async def _both_ways(websocket: WebSocket) -> None:
    """Send numbered frames by both ways in turns, as many as the client asks for, then close."""
    await websocket.accept()
    transport = WebSocketTransport(websocket)
    for number in range(int(await websocket.receive_text())):
        frame = Frame(f"{number} {LINE}".encode())
        if number % 2:
            await transport.send(frame)
        else:
            assert transport.send_now(frame)
    await websocket.close(3001, "done")


async def _flood(websocket: WebSocket) -> None:
    """Write at once until that is refused; tell by the close code whether the buffer has its bound."""
    await websocket.accept()
    transport, frame = WebSocketTransport(websocket), Frame(b"x" * 60_000)
    socket = transport._socket
    assert socket is not None
    written = 0
    while transport.send_now(frame) and written < 1000:
        written += 1
    is_bounded = written < 1000 and socket.get_write_buffer_size() < WRITE_BUFFER_BYTES + frame.num_bytes + 100
    await websocket.close(3000 if is_bounded else 3500)


async def _write_to_the_gone(websocket: WebSocket) -> None:
    """Write once the client has left."""
    await websocket.accept()
    transport = WebSocketTransport(websocket)
    try:
        while True:
            await websocket.receive_text()
    except (WebSocketDisconnect, RuntimeError):
        pass
    try:
        transport.send_now(Frame(b"{}"))
    except ConnectionResetError:
        websocket.app.state.outcome.set_result("reset")
    else:
        websocket.app.state.outcome.set_result("written")


@pytest.fixture
async def app() -> Starlette:
    made = Starlette(
        routes=[
            WebSocketRoute("/both", _both_ways),
            WebSocketRoute("/flood", _flood),
            WebSocketRoute("/gone", _write_to_the_gone),
        ]
    )
    made.state.outcome = asyncio.get_running_loop().create_future()
    return made


@pytest.fixture
async def url(app: Starlette) -> AsyncIterator[str]:
    """The server that Ray Serve runs in a replica, with its defaults."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{port}"
    server.should_exit = True
    await serving


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_both_ways_arrive_in_order(url: str, compression: str | None) -> None:
    """Compressed frames of the server and plain ones of ours make one stream of messages."""
    async with connect(f"{url}/both", compression=compression) as client:
        await client.send("100")
        texts = await received(client)

    assert texts == [f"{number} {LINE}" for number in range(100)]
    assert client.close_code == 3001


async def test_full_buffer_is_not_written_to(url: str) -> None:
    """A client that reads nothing gets what the buffer takes; the rest has to wait in its ring."""
    async with connect(f"{url}/flood", max_queue=1) as client:
        await received(client)

    assert client.close_code == 3000


async def test_client_that_is_gone_is_an_error(url: str, app: Starlette) -> None:
    """Not silence: its connection must end."""
    async with connect(f"{url}/gone") as client:
        await client.send("hello")

    assert await asyncio.wait_for(app.state.outcome, 5) == "reset"


async def received(client: ClientConnection) -> list[str | bytes]:
    """Return all messages until the server closes."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(await client.recv())
    return messages


class _Wrapper:
    """As Serve wraps a server's ``receive``."""

    def __init__(self, receive: Any) -> None:
        self._receive = receive

    async def __call__(self) -> Any:
        return await self._receive()


class WebSocketsSansIOProtocol:
    """Named as uvicorn's, for the look of it."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.transport = transport
        self.loop = loop or asyncio.get_running_loop()

    async def receive(self) -> Any: ...


class OtherProtocol(WebSocketsSansIOProtocol):
    """A relative keeps the way of writing."""


class Unknown:
    """Another server."""

    transport = None

    async def receive(self) -> Any: ...


class Socket:
    """What is used of a transport."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def test_found_behind_wrappers_or_not_at_all() -> None:
    """Whatever else serves the WebSocket, nothing is guessed."""
    socket = Socket()
    assert isinstance(socket, ServerSocket)

    assert find_socket(_Wrapper(OtherProtocol(socket).receive)) is socket
    for receive in (Unknown().receive, WebSocketsSansIOProtocol(object()).receive, _Wrapper(None), None, endless()):
        assert find_socket(receive) is None


async def test_transport_of_another_loop_is_left_alone() -> None:
    """Where Serve runs the application in a thread of its own, its sockets are another thread's."""
    loop = asyncio.new_event_loop()
    try:
        assert find_socket(WebSocketsSansIOProtocol(Socket(), loop).receive) is None
    finally:
        loop.close()


def endless() -> _Wrapper:
    wrapper = _Wrapper(None)
    wrapper._receive = wrapper
    return wrapper
