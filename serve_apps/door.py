"""The door of the gateway: who may not come in is turned away before anything is set up.

Plain ASGI, around every route. Proves no identity. Invariants: a page of a foreign origin
gets no connection, whatever token it holds; a connection that is one too many at the
moment is refused before the WebSocket upgrade, and costs no session.
"""

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.error_response import error_response
from serve_apps.limits import Limits
from serve_apps.origins import Origins

CONNECTION_PATHS = "/connection/"
DENIAL = "websocket.http.response"


class DeniedUpgrades(logging.Filter):
    """Leaves out uvicorn's complaint about an upgrade that was answered with a status on purpose.

    Its handshake never completes, of course; in a storm that would be an error a line for each client.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every other record pass."""
        return record.msg != "ASGI callable returned without completing handshake."


class Door:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, origins: Origins, limits: Limits) -> None:
        self._app = app
        self._origins = origins
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may come in."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        cors = self._origins.cors_headers(path, headers)

        async def cors_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(cors)
            await send(message)

        answer = self._preflight(scope, headers) or self._refusal(scope, headers)
        if answer is None:
            await self._app(scope, receive, cors_send if cors and scope["type"] == "http" else send)
        elif scope["type"] == "http":
            await answer(scope, receive, cors_send)
        elif DENIAL in scope.get("extensions", {}):
            await answer(scope, receive, send)
        else:  # a server that can refuse an upgrade with 403 only; SDKs come back after either
            await send({"type": "websocket.close", "code": 1000, "reason": ""})

    def _preflight(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return None
        answer = self._origins.preflight_headers(scope["path"], headers)
        return None if answer is None else Response(status_code=204, headers=dict(answer))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not scope["path"].startswith(CONNECTION_PATHS):
            return None
        if not self._origins.trusts(headers):
            return error_response(403, "the request comes from another origin")
        wait_s = self._limits.take_connect(time.monotonic())
        if wait_s:
            return error_response(503, "too many connections at once", {"Retry-After": str(wait_s)})
        return None
