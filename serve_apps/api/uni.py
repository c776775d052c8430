"""Unidirectional transports: a WebSocket, server-sent events and a stream of lines that only listen.

For curl, EventSource and consoles without an SDK. The client sends one bare connect
request; all its subscriptions are server-side. Invariant: nobody who cannot acknowledge
is sent more than a budget of bytes; then it has to reconnect.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

from serve_apps import frames
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection
from serve_apps.connections import Connections
from serve_apps.errors import FrameError
from serve_apps.outgoing import Frame
from serve_apps.websocket import (
    WebSocketTransport,
    connections_of,
    cookie_identity,
    receive_until_end,
    wants_native_pings,
)

router = APIRouter()

QUEUE_FRAMES = 16
FIRST_MESSAGE_TIMEOUT_S = 10.0
HTTP_STATUS = {CloseCode.INVALID_TOKEN: 401, CloseCode.BAD_REQUEST: 401, CloseCode.CONNECTION_LIMIT: 429}
CONNECT_BODY: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "description": "Connect request."}
}


def streams(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route says about its answers: a body that goes on, or why there is none."""
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        200: {"content": {media_type: {"schema": {"type": "string"}}}, "description": "Pushes, until one side ends."},
        401: text | {"description": "No valid proof of identity in the connect request."},
        429: text | {"description": "Too many connections of this user."},
        503: text | {"description": "Try again."},
    }


class UniWebSocketTransport(WebSocketTransport):
    """A WebSocket that only writes."""

    name = "uni_websocket"


class LinesTransport:
    """The body of a response that goes on: one JSON object a line."""

    name = "uni_http_stream"
    media_type = "application/json"

    def __init__(self) -> None:
        # Bounded: where the server does push back, the connection's writer waits here, and its ring bounds the rest.
        self._frames: asyncio.Queue[str | None] = asyncio.Queue(QUEUE_FRAMES)
        self._is_closed = False

    def send_now(self, frame: Frame) -> bool:
        """Queue one frame for the response's body, if there is room."""
        if self._frames.full():
            return False
        self._frames.put_nowait(frame.text)
        return True

    async def send(self, frame: Frame) -> None:
        """Queue one frame for the response's body."""
        await self._frames.put(frame.text)

    async def close(self, code: CloseCode) -> None:
        """Queue the goodbye and the end of the body."""
        if not self._is_closed:
            self._is_closed = True
            await self._frames.put(frames.unwrap(frames.push_disconnect(code)).decode())
            await self._frames.put(None)

    async def body(self) -> AsyncIterator[str]:
        """Yield the stream's text until the transport is closed."""
        while (text := await self._frames.get()) is not None:
            yield self.encode(text)

    def encode(self, text: str) -> str:
        """Return a frame as it stands in the body."""
        return f"{text}\n"


class SseTransport(LinesTransport):
    """The body of an event stream: one event a line."""

    name = "uni_sse"
    media_type = "text/event-stream"

    def encode(self, text: str) -> str:
        """Return a frame as events."""
        return "".join(f"data: {line}\n\n" for line in text.split("\n"))


@router.websocket("/connection/uni_websocket")
async def serve_uni_websocket(websocket: WebSocket) -> None:
    """Serve one listener on a WebSocket; its first message, or ``cf_connect``, is the connect request."""
    await websocket.accept()
    register = connections_of(websocket)
    connection = register.open(
        UniWebSocketTransport(websocket),
        cookie_identity=cookie_identity(websocket),
        unidirectional=True,
        native_pings=wants_native_pings(websocket),
    )
    try:
        request = websocket.query_params.get("cf_connect")
        if request is None:
            async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT_S):
                request = await websocket.receive_text()
        await connect(connection, request)
    except (WebSocketDisconnect, TimeoutError, KeyError):
        connection.close(CloseCode.STALE)
    except BaseException:
        register.close(connection)
        raise
    await receive_until_end(websocket, register, connection, ignore_text=True)


@router.get("/connection/uni_sse", response_class=StreamingResponse, responses=streams("text/event-stream"))
async def serve_uni_sse(request: Request, cf_connect: str = "") -> Response:
    """Serve one listener by server-sent events; the query's ``cf_connect`` is the connect request."""
    return await _serve_body(request, SseTransport(), cf_connect)


@router.get("/connection/uni_http_stream", response_class=StreamingResponse, responses=streams("application/json"))
async def serve_uni_http_stream(request: Request, cf_connect: str = "") -> Response:
    """Serve one listener by a response that goes on; the query's ``cf_connect`` is the connect request."""
    return await _serve_body(request, LinesTransport(), cf_connect)


@router.post(
    "/connection/uni_http_stream",
    response_class=StreamingResponse,
    responses=streams("application/json"),
    openapi_extra=CONNECT_BODY,
)
async def post_uni_http_stream(request: Request) -> Response:
    """Serve one listener by a response that goes on; the body is the connect request."""
    body = await request.body()
    return await _serve_body(request, LinesTransport(), body.decode(errors="replace"))


async def connect(connection: Connection, request: str) -> None:
    """Open a unidirectional session by its bare connect request."""
    try:
        await connection.on_command(frames.parse_connect_request(request))
    except FrameError:
        connection.close(CloseCode.BAD_REQUEST)


async def _serve_body(request: Request, transport: LinesTransport, connect_request: str) -> Response:
    register = connections_of(request)
    connection = register.open(transport, cookie_identity=cookie_identity(request), unidirectional=True)
    try:
        await connect(connection, connect_request)
    except BaseException:
        register.close(connection)
        raise
    if not connection.session.is_open:
        register.close(connection)
        # A status, not an event: EventSource comes back after the end of a stream, not after an error.
        code = connection.closing or CloseCode.INTERNAL
        return Response(code.reason, HTTP_STATUS.get(code, 503), media_type="text/plain")
    headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    body = _body(register, connection, transport)
    return StreamingResponse(body, media_type=transport.media_type, headers=headers)


async def _body(register: Connections, connection: Connection, transport: LinesTransport) -> AsyncIterator[str]:
    try:
        async for text in transport.body():
            yield text
    finally:
        register.close(connection)
