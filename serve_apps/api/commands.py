"""Commands to devices over HTTP: handed in, and looked at.

``ingest.command_desk`` sends them. Invariants: 202 means that the command is stored and is
sent until its deadline; the same ``request_id`` makes one command; every command carries the
user of the token that gave it; a device or command of a foreign tenant is not found.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import Field

from ingest.command import CommandOrder, CommandState, command_to_json, event_to_json
from ingest.command_store import CommandQuery
from ingest.commands import encode_payload
from ingest.directory import DeviceDirectory
from serve_apps.api.border import ApiRoute, Body, Cursor, Id, JsonObject, Level, Limit, RequestId, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/commands", route_class=ApiRoute)

Operator = Annotated[Identity, Depends(require(Role.OPERATOR))]

DEFAULT_TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 7 * 86_400.0
ENVELOPE_BYTES = 256
"""What the device gets beside the payload, at most."""


class CommandBody(Body):
    """A command to one device."""

    tenant: Level
    device: Level
    payload: JsonObject
    timeout_s: Annotated[float, Field(ge=1, le=MAX_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    """Until it must have its result; a device that is away gets it when it is back by then."""
    request_id: RequestId | None = None


@router.post("", status_code=202)
async def send_command(request: Request, identity: Operator, body: CommandBody) -> dict[str, Any]:
    """Store a command, and publish it on ``{root}/{tenant}/{device}/cmd`` until the broker has it."""
    deps = deps_of(request)
    own = tenant_of(identity)
    is_foreign = own is not None and own != body.tenant
    if is_foreign or await asyncio.to_thread(DeviceDirectory(deps.engine).get, body.tenant, body.device) is None:
        raise HTTPException(404, f"there is no device {body.tenant}/{body.device}")
    try:
        encode_payload(body.payload, ENVELOPE_BYTES)
    except ValueError as error:
        raise HTTPException(422, f"payload: {error}") from error
    order = CommandOrder(user_id=identity.user_id, **body.model_dump())
    command = await asyncio.to_thread(deps.desk.store.create, order)
    deps.desk.wake()
    return command_to_json(command)


@router.get("")
async def list_commands(
    request: Request,
    identity: Operator,
    tenant: Level | None = None,
    device: Level | None = None,
    state: CommandState | None = None,
    user: Annotated[str | None, Query(max_length=128)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return commands, newest first, page by page."""
    own = tenant_of(identity)
    if own is not None and tenant not in (None, own):
        return {"items": [], "next_cursor": None}
    query = CommandQuery(
        tenant=own or tenant, device=device, state=state, user_id=user, before_id=cursor, limit=limit + 1
    )
    found = await asyncio.to_thread(deps_of(request).desk.store.list, query)
    return {
        "items": [command_to_json(command) for command in found[:limit]],
        "next_cursor": found[limit - 1].id if len(found) > limit else None,
    }


@router.get("/{command_id}")
async def get_command(request: Request, identity: Operator, command_id: Id) -> dict[str, Any]:
    """Return one command with its history, oldest event first."""
    command, events = await asyncio.to_thread(deps_of(request).desk.store.get, command_id, tenant_of(identity))
    return {"command": command_to_json(command), "events": [event_to_json(event) for event in events]}
