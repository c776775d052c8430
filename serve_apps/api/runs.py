"""Runs over HTTP: list, start, follow, cancel.

The queue decides (``cluster.run_queue``); what a task accepts is checked at this
border, so that a mistake is answered now and not by a job a minute later. Invariant: a
run of a foreign tenant is not found.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import Field

from cluster.errors import RunNotFoundError
from cluster.ids import new_id
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunRequest, RunState, run_to_json
from serve_apps.api.border import ApiRoute, Body, Id, JsonObject, Limit, RequestId, tenant_of
from serve_apps.api.trainings import evaluation_request, labelling_request, training_request
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of
from training.runs.order import EVALUATION, LABELLING, TASK

router = APIRouter(prefix="/api/v1/runs", route_class=ApiRoute)

MOST_LISTED = 1000
"""Runs the queue is asked for when it holds those of several tenants."""


CHECKED = {TASK: training_request, EVALUATION: evaluation_request, LABELLING: labelling_request}
"""Arguments of tasks that are looked at before the queue sees them."""


class RunBody(Body):
    """What is to be run."""

    task: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    arguments: Annotated[JsonObject, Field(default_factory=dict)]
    request_id: RequestId | None = None


class CancelBody(Body):
    """Cancelling twice is cancelling once; the id is only for the caller's log."""

    request_id: RequestId | None = None


@router.get("")
async def list_runs(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    state: RunState | None = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return runs, newest first."""
    tenant = tenant_of(identity)
    runs = await deps_of(request).run_queue.alist(limit if tenant is None else MOST_LISTED, state)
    visible = [run for run in runs if _is_visible(run, tenant)]
    return {"items": [run_to_json(run) for run in visible[:limit]]}


@router.get("/{run_id}")
async def get_run(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], run_id: Id
) -> dict[str, Any]:
    """Return one run."""
    run = await deps_of(request).run_queue.aget(run_id)
    return run_to_json(_visible(run, tenant_of(identity)))


@router.post("", status_code=201)
async def start_run(
    request: Request, identity: Annotated[Identity, Depends(require(Role.ENGINEER))], body: RunBody
) -> dict[str, Any]:
    """Put a run into its lane; with the same ``request_id`` once only."""
    request_id = body.request_id or new_id()
    check = CHECKED.get(body.task)
    if check is not None:
        wanted = await asyncio.to_thread(check, body.arguments, identity, request_id, deps_of(request).engine)
    else:
        wanted = RunRequest(
            task=body.task,
            arguments=body.arguments,
            user_id=identity.user_id,
            tenant=identity.tenant,
            request_id=request_id,
        )
    return run_to_json(await submit(deps_of(request).run_queue, wanted))


async def submit(queue: RunQueueClient, wanted: RunRequest) -> Run:
    """Put a run into its lane; with the same ``request_id`` once only.

    Raises:
        HTTPException: 409, the id was used for another run.
    """
    run = await queue.asubmit(wanted)
    if (run.task, run.arguments, run.tenant) != (wanted.task, wanted.arguments, wanted.tenant):
        raise HTTPException(409, f"request_id {wanted.request_id!r} was used for another run")
    return run


@router.post("/{run_id}/cancel")
async def cancel_run(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.ENGINEER))],
    run_id: Id,
    body: CancelBody,  # noqa: ARG001 - its validation is its use
) -> dict[str, Any]:
    """Ask a run to end; its answer may still say that it lives."""
    queue = deps_of(request).run_queue
    _visible(await queue.aget(run_id), tenant_of(identity))
    return run_to_json(await queue.acancel(run_id, identity.user_id))


def _is_visible(run: Run, tenant: str | None) -> bool:
    return tenant is None or run.tenant == tenant


def _visible(run: Run, tenant: str | None) -> Run:
    if not _is_visible(run, tenant):
        raise RunNotFoundError(run.id)
    return run
