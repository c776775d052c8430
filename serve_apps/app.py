"""The gateway's web application: routes, error shape and security headers.

Holds no state of its own and starts nothing: ``gateway_deployment.py`` runs it under Ray
Serve, tests run it in process. Invariant: every error of the HTTP API has the shape
``{"error": {"code": str, "message": str}}``.
"""

import importlib
import importlib.util
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from cluster.errors import ServiceUnavailableError
from serve_apps.deps import GatewayDeps

ROUTERS = ("alerts", "devices", "runs", "lanes", "status", "dead_letters", "models", "commands", "signin")

CODES = {400: "bad_request", 401: "unauthorised", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
         409: "conflict", 413: "too_large", 422: "invalid", 429: "too_many_requests", 503: "unavailable"}  # fmt: skip

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(deps: GatewayDeps) -> FastAPI:
    """Return the application with every route of the gateway."""
    app = FastAPI(title="Watchfloor", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.deps = deps
    for name in ROUTERS:
        if importlib.util.find_spec(f"serve_apps.api.{name}"):
            app.include_router(importlib.import_module(f"serve_apps.api.{name}").router)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServiceUnavailableError, _unavailable)
    app.middleware("http")(_add_security_headers)
    return app


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error in the API's one shape."""
    return JSONResponse(
        {"error": {"code": CODES.get(status, "error"), "message": message}}, status_code=status, headers=headers
    )


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    error = cast(HTTPException, error)
    return error_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    return error_response(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    return error_response(503, str(error), {"Retry-After": "2"})


async def _add_security_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
