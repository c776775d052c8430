"""The lanes over HTTP: what runs, what waits, who holds the slots."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from serve_apps.api.border import ApiRoute
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/lanes", route_class=ApiRoute)


@router.get("")
async def list_lanes(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))]
) -> dict[str, list[dict[str, Any]]]:
    """Return every lane, largest priority first: its limits, who holds it, what waits and for what."""
    lanes = [dataclasses.asdict(lane) for lane in await deps_of(request).run_queue.alanes()]
    if not identity.is_floor_wide:
        # How busy a lane is concerns everyone who waits; whose runs hold it does not.
        lanes = [lane | {"holders": [], "waiting": {}} for lane in lanes]
    return {"lanes": lanes}
