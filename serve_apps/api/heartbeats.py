"""Heartbeats over HTTP: who promises to report, and the reports of those that are no device.

The rules are ``ingest.alerts.heartbeats``'. Invariant: a heartbeat of a foreign tenant is
not found, whoever asks and however.
"""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field

from cluster.clock import SystemClock
from ingest.alerts.engine import AlertEngine
from ingest.alerts.heartbeats import (
    MAX_TEXT_CHARS,
    MAX_TIMEOUT_S,
    MIN_TIMEOUT_S,
    Heartbeat,
    HeartbeatStore,
    heartbeat_to_json,
)
from ingest.alerts.model import Severity
from ingest.errors import HeartbeatNotFoundError
from serve_apps.api.border import PRINTABLE, ApiRoute, Body, Cursor, Level, Limit, Version, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v1/heartbeats", route_class=ApiRoute)


class HeartbeatBody(Body):
    """A promise: a report at least every ``timeout_s`` seconds, by the messages of ``device`` or by calls."""

    timeout_s: Annotated[float, Field(ge=MIN_TIMEOUT_S, le=MAX_TIMEOUT_S)]
    device: Level | None = None
    severity: Severity = Severity.HIGH
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS, pattern=PRINTABLE)] = ""
    if_version: Version | None = None


class BeatBody(Body):
    """Nothing to say but that one is there."""


@router.get("")
async def list_heartbeats(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return heartbeats by tenant and name."""
    after = None
    if cursor is not None:
        tenant, colon, name = cursor.partition(":")
        if not colon:
            raise HTTPException(422, "not a cursor of a list of heartbeats")
        after = (tenant, name)
    found = await asyncio.to_thread(_store(deps_of(request)).list, tenant_of(identity), after, limit + 1)
    items = found[:limit]
    more = f"{items[-1].tenant}:{items[-1].name}" if len(found) > limit else None
    return {"items": [heartbeat_to_json(one) for one in items], "next_cursor": more}


@router.put("/{tenant}/{name}")
async def put_heartbeat(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    tenant: Level,
    name: Level,
    body: HeartbeatBody,
) -> dict[str, Any]:
    """Make a heartbeat, or change its terms; the same again changes nothing that matters."""
    _own(identity, tenant, name)
    heartbeat = Heartbeat(
        tenant=tenant,
        name=name,
        device_id=body.device,
        timeout_s=body.timeout_s,
        severity=body.severity,
        text=body.text,
        created_by=identity.user_id,
        created_at=time.time(),
    )
    try:
        made = await asyncio.to_thread(_store(deps_of(request)).put, heartbeat, body.if_version)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {"heartbeat": heartbeat_to_json(made)}


@router.post("/{tenant}/{name}/beat")
async def beat(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    tenant: Level,
    name: Level,
    body: BeatBody,  # noqa: ARG001 -- a POST has a body, as everywhere in this API
) -> dict[str, Any]:
    """Report: the one who promised is there."""
    _own(identity, tenant, name)
    try:
        noted = await asyncio.to_thread(_store(deps_of(request)).beat, tenant, name)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {"heartbeat": heartbeat_to_json(noted)}


@router.delete("/{tenant}/{name}")
async def remove_heartbeat(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], tenant: Level, name: Level
) -> dict[str, Any]:
    """Take a promise back; its alert clears."""
    _own(identity, tenant, name)
    deps = deps_of(request)
    alerts = AlertEngine(deps.engine, SystemClock(), deps.alerts)
    removed = await asyncio.to_thread(_store(deps).remove, alerts, tenant, name)
    deps.relay.wake()
    return {"heartbeat": heartbeat_to_json(removed)}


def _own(identity: Identity, tenant: str, name: str) -> None:
    if tenant_of(identity) not in {None, tenant}:
        raise HeartbeatNotFoundError(name)


def _store(deps: GatewayDeps) -> HeartbeatStore:
    return HeartbeatStore(deps.engine, SystemClock())
