"""The gateway's web application: its routes and the shape of its errors.

Starts nothing: ``gateway_deployment.py`` runs it under Ray Serve, tests run it in process;
the first client starts the feed and the timer. Invariant: every error of the HTTP API has
the shape ``{"error": {"code": str, "message": str}}``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cluster.errors import ServiceUnavailableError
from serve_apps import openapi, pages, rpc, websocket
from serve_apps.api import (
    alerts,
    batch,
    commands,
    control,
    dead_letters,
    devices,
    history,
    lanes,
    models,
    presence,
    publish,
    runs,
    signin,
    status,
    uni,
)
from serve_apps.connections import Connections
from serve_apps.deps import GatewayDeps
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.http_guard import HttpGuard

ROUTERS = tuple(
    module.router
    for module in (
        websocket, uni, publish, history, presence, control, batch, openapi, signin, status, alerts, devices,
        commands, runs, lanes, models, dead_letters, pages,
    )
)  # fmt: skip

TITLE = "Watchfloor"
VERSION = "0.1.0"

CODES = {
    400: "bad_request",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "not_json",
    422: "invalid",
    429: "too_many_requests",
    503: "unavailable",
}
"""HTTP status -> word in ``error.code``."""


def create_app(deps: GatewayDeps, settings: GatewaySettings | None = None) -> FastAPI:
    """Return the application with every route of the gateway; ``settings`` None: the defaults."""
    # The document of the API is a route of our own: it asks for a role.
    app = FastAPI(title=TITLE, version=VERSION, docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    app.state.deps = deps
    app.state.connections = Connections(deps.hub, deps.auth, settings or GatewaySettings(), rpc.methods(app))
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", pages.Static(directory=pages.PAGE), name="static")
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServiceUnavailableError, _unavailable)
    app.add_middleware(HttpGuard)
    return app


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error in the API's one shape."""
    return JSONResponse(
        {"error": {"code": CODES.get(status, "error"), "message": message}}, status_code=status, headers=headers
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await cast(Connections, app.state.connections).stop()


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    error = cast(HTTPException, error)
    return error_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    return error_response(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    return error_response(503, str(error), {"Retry-After": "2"})
