"""The page's files, the health check and the metrics.

Holds no data of the floor. Invariant: what is answered here needs no sign-in, except that
``/`` shows the sign-in hint to who has none.
"""

from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from serve_apps.authorisation import identify
from serve_apps.deps import deps_of
from serve_apps.websocket import connections_of

PAGE = Path(__file__).parent / "page"
HUB_WARNING_S = 5.0
NO_CACHE = {"Cache-Control": "no-cache"}
"""Ask each time: an unchanged file costs a 304, and a new version is never half old."""

router = APIRouter()


class Health(BaseModel):
    """What this replica says about itself."""

    status: Literal["ok", "waiting for the hub", "failed"]
    connections: int


class Static(StaticFiles):
    """Files of the page, checked for changes on each use."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(NO_CACHE)
        return response


@router.get("/", include_in_schema=False)
async def page(request: Request) -> FileResponse:
    """Return the page, or the hint how to sign in."""
    try:
        identity = identify(request)
    except HTTPException:
        identity = None  # the cookie of an ended session
    return FileResponse(PAGE / ("index.html" if identity else "signin.html"), headers=NO_CACHE)


@router.get("/healthz", responses={200: {"model": Health}, 503: {"model": Health, "description": "Replace it."}})
async def healthz(request: Request) -> JSONResponse:
    """Tell whether this replica serves its clients; a hub that is away is said, and is no failure of ours."""
    feed = connections_of(request).feed
    state = "failed" if feed.is_dead else "waiting for the hub" if feed.failing_s > HUB_WARNING_S else "ok"
    body = {"status": state, "connections": len(connections_of(request))}
    return JSONResponse(body, status_code=503 if feed.is_dead else 200)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the floor's metrics, summed over its processes."""
    return Response(await deps_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)
