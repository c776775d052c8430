"""Messages to the outside that were given up, over HTTP: what they were, and sending them again.

Invariant: a tenant's operator sees messages of the own tenant's alerts only.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field, StringConstraints

from cluster.clock import SystemClock
from ingest.notify.outbox import dead_letters, replay
from serve_apps import audit
from serve_apps.api.border import ApiRoute, Body, Cursor, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/notifications", route_class=ApiRoute)

MAX_IDS = 1000

MessageId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{1,32}$")]


class ReplayBody(Body):
    """Which messages; left out: all that were given up."""

    ids: Annotated[tuple[MessageId, ...], Field(min_length=1, max_length=MAX_IDS)] | None = None


@router.get("/dead")
async def list_dead(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return messages that were given up, the newest first, each with the reason."""
    found = await asyncio.to_thread(dead_letters, deps_of(request).engine, tenant_of(identity), cursor, limit + 1)
    items = found[:limit]
    return {"items": items, "next_cursor": items[-1]["id"] if len(found) > limit else None}


@router.post("/replay")
async def replay_dead(
    request: Request, identity: Annotated[Identity, Depends(require(Role.ADMIN))], body: ReplayBody
) -> dict[str, Any]:
    """Send messages that were given up once more; those that are not stay as they are."""
    if tenant_of(identity) is not None:
        raise HTTPException(404, "messages to the outside are the floor's")
    replayed = await asyncio.to_thread(replay, deps_of(request).engine, SystemClock(), body.ids)
    audit.record(request, identity, "notifications replay", replayed=replayed)
    return {"replayed": replayed}
