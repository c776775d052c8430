"""Client sockets: the ASGI side of a two-way connection, and its route.

Decides nothing. Invariant: a handler that ends for any reason -- the client's close, a cut
cable, Serve's cancellation -- takes its connection out of the register.
"""

import asyncio
from typing import cast

from fastapi import APIRouter, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect, WebSocketState

from serve_apps.auth import Identity
from serve_apps.authorisation import is_trusted_origin
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.deps import deps_of
from serve_apps.errors import AuthenticationError
from serve_apps.outgoing import Frame
from serve_apps.server_socket import find_socket

router = APIRouter()

CLOSE_GRACE_S = 5.0
"""Seconds the client gets to answer our close frame before its handler ends anyway."""
JSON_SUBPROTOCOL = "centrifuge-json"
WRITE_BUFFER_BYTES = 64 * 1024
"""Bytes waiting in the server for a client above which we wait as well; asyncio's own high-water mark."""


@router.websocket("/connection/websocket")
async def serve_client(websocket: WebSocket) -> None:
    """Serve one client of the Centrifuge JSON protocol."""
    offered = cast(list[str], websocket.scope.get("subprotocols", []))
    # With only Protobuf on offer, JSON would be garbage to the client.
    speaks_json = not offered or JSON_SUBPROTOCOL in offered or "centrifuge-protobuf" not in offered
    await websocket.accept(subprotocol=JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None)
    register = connections_of(websocket)
    connection = register.open(
        WebSocketTransport(websocket),
        cookie_identity=cookie_identity(websocket),
        native_pings=wants_native_pings(websocket),
    )
    if not speaks_json:
        connection.close(CloseCode.INAPPROPRIATE_PROTOCOL)
    await receive_until_end(websocket, register, connection)


class WebSocketTransport:
    """A client's WebSocket, for writing."""

    name = "websocket"

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        # Only now, after the accept: before it the server would take our bytes for a part of its answer.
        self._socket = find_socket(getattr(websocket, "_receive", None))

    def send_now(self, frame: Frame) -> bool:
        """Write one frame, as every connection at the same place has it, past the server's checks.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self._socket is None or self._socket.get_write_buffer_size() >= WRITE_BUFFER_BYTES:
            return False
        if self._socket.is_closing():
            raise ConnectionResetError("the client is gone")
        self._socket.write(frame.websocket)
        return True

    async def send(self, frame: Frame) -> None:
        """Hand one frame to the server, and wait while its buffer for this client is full.

        Raises:
            ConnectionResetError: the client is gone.
        """
        try:
            await self._websocket.send({"type": "websocket.send", "text": frame.text})
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError("the client is gone") from error

    async def close(self, code: CloseCode) -> None:
        """Send the close frame with its reason."""
        if self._websocket.application_state is WebSocketState.DISCONNECTED:
            return
        try:
            await self._websocket.close(int(code), code.reason)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionResetError("the client is gone") from error


async def receive_until_end(
    websocket: WebSocket, register: Connections, connection: Connection, *, ignore_text: bool = False
) -> None:
    """Hand the client's frames to its connection until one side ends it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as patience:
            connection.on_closed = lambda: patience.reschedule(loop.time() + CLOSE_GRACE_S)
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if not ignore_text:
                    text = message.get("text")
                    await connection.on_text(text if text is not None else message["bytes"].decode(errors="replace"))
    except (WebSocketDisconnect, TimeoutError):
        return  # gone without a close frame, or without an answer to ours
    finally:
        # No await here: HAProxy mode ends a handler by cancellation, and a cancelled one may not get further.
        register.close(connection)


def connections_of(websocket: HTTPConnection) -> Connections:
    """Return the replica's register of connections."""
    return cast(Connections, websocket.app.state.connections)


def wants_native_pings(websocket: HTTPConnection) -> bool:
    """Tell whether the client wants the server's native ping frames alone: consoles show every ``{}``."""
    return websocket.query_params.get("cf_ws_frame_ping_pong") == "true"


def cookie_identity(websocket: HTTPConnection) -> Identity | None:
    """Return the identity of the session cookie, if our own page opened the socket."""
    auth = deps_of(websocket).auth
    cookie = websocket.cookies.get(auth.cookie_name)
    if cookie is None or not is_trusted_origin(websocket):
        return None
    try:
        return auth.from_cookie(cookie)
    except AuthenticationError:
        return None
