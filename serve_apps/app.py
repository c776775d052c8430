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
from cluster.run_store import RunStore
from serve_apps import openapi, pages, rpc, websocket
from serve_apps.api import (
    alertmanager,
    alerts,
    batch,
    circuits,
    commands,
    control,
    datasets,
    dead_letters,
    devices,
    directory,
    drain,
    heartbeats,
    history,
    labels,
    lanes,
    models,
    notifications,
    presence,
    publish,
    runs,
    signin,
    silences,
    status,
    uni,
)
from serve_apps.connections import Connections
from serve_apps.deps import GatewayDeps
from serve_apps.door import Door
from serve_apps.error_response import error_response
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.http_guard import HttpGuard
from serve_apps.origins import Origins
from serve_apps.run_tenants import RunTenants

ROUTERS = tuple(
    module.router
    for module in (
        websocket, uni, publish, history, presence, control, batch, openapi, signin, status, drain, alerts, silences,
        heartbeats, alertmanager, notifications, devices, commands, directory, circuits, runs, lanes, labels, models,
        datasets, dead_letters, pages,
    )
)  # fmt: skip

TITLE = "Watchfloor"
VERSION = "0.1.0"


def create_app(deps: GatewayDeps, settings: GatewaySettings | None = None) -> FastAPI:
    """Return the application with every route of the gateway; ``settings`` None: the defaults."""
    # The document of the API is a route of our own: it asks for a role.
    app = FastAPI(title=TITLE, version=VERSION, docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    # The routers' own routes: ``include_router`` would build each of them again at an application's first request.
    app.router.routes.extend(route for router in ROUTERS for route in router.routes)
    settings = settings or GatewaySettings()
    origins = Origins(settings.allowed_origins)
    runs = RunTenants(RunStore(deps.engine).tenants)
    connections = Connections(deps.hub, deps.auth, settings, rpc.methods(app), runs)
    app.state.deps = deps
    app.state.connections = connections
    app.state.origins = origins
    app.mount("/static", pages.Static(directory=pages.PAGE), name="static")
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServiceUnavailableError, _unavailable)
    app.add_middleware(Door, origins=origins, limits=connections.limits)
    app.add_middleware(HttpGuard)  # around the door: its refusals carry the security headers too
    return app


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
