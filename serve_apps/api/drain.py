"""Emptying the gateways before a redeploy, so that no socket is cut.

Told to all replicas as a notice, like everything that concerns all of them. Invariant:
clients are closed with 3001 only, after which the SDKs come back and recover; after
``hold_s`` a replica that is still there takes them again.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field

from cluster.errors import ServiceUnavailableError
from realtime import notices
from realtime.channels import GATEWAY_ALL
from realtime.errors import HubUnavailableError
from realtime.publication import Draft, Priority
from serve_apps.api.border import ApiRoute, Body, RequestId
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/drain", route_class=ApiRoute)

MAX_S = 3600.0
TIMEOUT_S = 4.0


class DrainBody(Body):
    """How gently, and for how long; both are to be said, as an empty body must close nobody's socket."""

    over_s: float = Field(ge=0.0, le=MAX_S)
    """Seconds over which the sockets are closed."""
    hold_s: float = Field(ge=0.0, le=MAX_S)
    """Seconds, from now, for which newcomers are sent away; 0: take them again at once."""
    request_id: RequestId | None = None


@router.post("", status_code=202)
async def drain(
    body: DrainBody, request: Request, identity: Annotated[Identity, Depends(require(Role.ADMIN))]
) -> dict[str, float | int]:
    """Close every client's socket on every replica; the answer says how many there were."""
    if not identity.is_floor_wide:
        raise HTTPException(403, "only an admin of the whole floor may close everybody's sockets")
    hub = deps_of(request).hub
    notice = notices.Drain(over_s=body.over_s, hold_s=body.hold_s)
    key = body.request_id and f"drain:{identity.user_id}:{body.request_id}"
    try:
        clients = sum(gateway.num_clients for gateway in await hub.gateways())
        await hub.publish([Draft(GATEWAY_ALL, notices.write(notice), Priority.CRITICAL, key)], TIMEOUT_S)
    except HubUnavailableError as error:
        raise ServiceUnavailableError("hub", "its actor", str(error)) from error
    return {"clients": clients, "over_s": body.over_s, "hold_s": body.hold_s}
