"""The circuits over HTTP: which services are called, and an operator's word about that.

The states are the breaker's (``cluster.breaker``). Invariants: what forces or resets a circuit
is in the audit log with who and why; asking twice for the same changes nothing more, so these
routes need no request id.
"""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Request
from pydantic import StringConstraints

from cluster.breaker import Breaker, get_breaker
from cluster.circuit import CircuitState
from cluster.circuit_policies import OUTSIDE
from serve_apps import audit
from serve_apps.api.border import ApiRoute, Body
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require

router = APIRouter(prefix="/api/v1/circuits", route_class=ApiRoute)

Service = Annotated[str, Path(pattern=r"^[a-z0-9_.-]{1,64}$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]

FORCED = {"open": CircuitState.FORCED_OPEN, "closed": CircuitState.FORCED_CLOSED}


class ForceBody(Body):
    """Hold a circuit in a state, and why."""

    state: Literal["open", "closed"]
    """``open``: nobody calls the service; ``closed``: everybody does, whatever becomes of it."""
    reason: Reason


class ResetBody(Body):
    """Give a circuit back to the results of calls, and why."""

    reason: Reason


@router.get("")
async def list_circuits(identity: Annotated[Identity, Depends(require(Role.VIEWER))]) -> dict[str, Any]:
    """Return every circuit that the floor's processes share, and this replica's own."""
    circuits = await asyncio.to_thread(lambda: get_breaker().snapshot())
    if not identity.is_floor_wide:
        # Whether a service is called concerns everyone; where it is and what it said does not.
        return {"items": [{"service": one.service, "state": one.state} for one in circuits if one.is_shared]}
    return {"items": [dataclasses.asdict(one) for one in circuits]}


@router.post("/{service}/force")
async def force_circuit(
    service: Service, request: Request, identity: Annotated[Identity, Depends(require(Role.ADMIN))], body: ForceBody
) -> dict[str, Any]:
    """Hold the circuit of one service open or closed in all processes, until it is reset."""
    breaker = await _breaker_of(service, identity)
    audit.record(request, identity, "circuit force", service=service, state=body.state, reason=body.reason)
    is_told = await _refusing(
        lambda: breaker.force(service, FORCED[body.state], author=identity.user_id, reason=body.reason)
    )
    return dataclasses.asdict(breaker.status(service)) | {"is_told": is_told}


@router.post("/{service}/reset")
async def reset_circuit(
    service: Service, request: Request, identity: Annotated[Identity, Depends(require(Role.ADMIN))], body: ResetBody
) -> dict[str, Any]:
    """Close the circuit of one service in all processes and forget what was counted."""
    breaker = await _breaker_of(service, identity)
    audit.record(request, identity, "circuit reset", service=service, reason=body.reason)
    is_told = await _refusing(lambda: breaker.reset(service, author=identity.user_id, reason=body.reason))
    return dataclasses.asdict(breaker.status(service)) | {"is_told": is_told}


async def _breaker_of(service: str, identity: Identity) -> Breaker:
    if not identity.is_floor_wide:
        raise HTTPException(403, "only an admin of the whole floor may force or reset a circuit")
    breaker = get_breaker()
    known = {one.service for one in await asyncio.to_thread(breaker.snapshot)} | OUTSIDE
    if service not in known:
        raise HTTPException(404, f"no circuit is named {service!r}; there are {', '.join(sorted(known))}")
    return breaker


async def _refusing(order: Callable[[], bool]) -> bool:
    try:
        return await asyncio.to_thread(order)
    except ValueError as error:
        raise HTTPException(409, str(error)) from error
