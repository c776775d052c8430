"""Labels over HTTP: what people are asked, one lease at a time, and what they said.

The queue is ``training.labelling``'s. Invariants: every label carries the user of the token that
gave it; a tenant is asked about its own devices only; a lease ends with its session or its time.
"""

import asyncio
import dataclasses
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field, StringConstraints
from sqlalchemy import select

from cluster.store import read_transaction
from ingest.alerts.model import iso
from serve_apps.api.border import ApiRoute, Body, Id, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of
from training.labelling.answering import Answer
from training.labelling.labels import Label, LabelRequest, labels
from training.labelling.leasing import Holder

router = APIRouter(prefix="/api/v1/labels", route_class=ApiRoute)

SHOWN = ("id", "token", "subject", "tenant", "asked_by", "priority", "details", "proposal", "confidence", "model_id")

Session = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{8,64}$")]
Value = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")]
Token = Annotated[int, Field(ge=1, le=2**31 - 1)]


class LeaseBody(Body):
    """Ask for questions."""

    session: Session
    """The caller's own name for this visit: what it holds comes again, and ``release`` ends it."""
    count: Annotated[int, Field(ge=1, le=20)] = 1


class SessionBody(Body):
    """A visit."""

    session: Session


class AnswerBody(Body):
    """What a person says to a question that they hold."""

    id: Id
    token: Token
    """Of the lease; an answer of an older one is refused with 409."""
    value: Value
    saw_proposal: bool = False
    """Whether the model's proposal was shown."""


class SkipBody(Body):
    """A question that a person leaves to others."""

    id: Id
    token: Token
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""


@router.get("")
async def list_labels(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], limit: Limit = 50
) -> dict[str, Any]:
    """Return the newest labels, and how many questions wait, are held, and were answered."""
    deps = deps_of(request)
    tenant = tenant_of(identity)
    items = await asyncio.to_thread(_newest, deps, tenant, limit)
    # How much the floor is asked about is not a tenant's business.
    counts = await deps.labels.acount_states() if tenant is None else {}
    return {"items": items, "counts": {state.value: count for state, count in counts.items()}}


@router.post("/lease")
async def lease(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: LeaseBody
) -> dict[str, Any]:
    """Return the most important questions that nobody else has, with the token that an answer must carry."""
    leased = await deps_of(request).labels.alease(_holder(identity, body.session), body.count)
    return {"items": [_request_to_json(one) for one in leased]}


@router.post("/renew")
async def renew(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: SessionBody
) -> dict[str, Any]:
    """Keep what the session holds for another lease's time."""
    return {"held": await deps_of(request).labels.arenew(_holder(identity, body.session))}


@router.post("/release")
async def release(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: SessionBody
) -> dict[str, Any]:
    """Give everything back that the session holds."""
    return {"released": await deps_of(request).labels.arelease(session_key(identity, body.session))}


@router.post("/answer")
async def answer(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: AnswerBody
) -> dict[str, Any]:
    """Keep a label; repeated with the same token it is kept once."""
    said = Answer(
        request_id=body.id,
        token=body.token,
        value=body.value,
        user_id=identity.user_id,
        saw_proposal=body.saw_proposal,
    )
    return {"label": _label_to_json(await deps_of(request).labels.aanswer(said))}


@router.post("/skip")
async def skip(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: SkipBody
) -> dict[str, Any]:
    """Leave a question to others; the same person is not asked again."""
    await deps_of(request).labels.askip(body.id, body.token, identity.user_id, body.reason)
    return {"skipped": body.id}


def _holder(identity: Identity, session: str) -> Holder:
    return Holder(identity.user_id, session_key(identity, session), tenant_of(identity))


def session_key(identity: Identity, session: str) -> str:
    """Return the queue's name of a person's session."""
    # Two people may choose the same name, and neither may end what the other holds.
    return hashlib.sha256(f"{identity.user_id}\0{session}".encode()).hexdigest()


def _newest(deps: GatewayDeps, tenant: str | None, limit: int) -> list[dict[str, Any]]:
    query = select(*(column for column in labels.c if column.name != "key")).order_by(labels.c.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(labels.c.tenant == tenant)
    with read_transaction(deps.engine) as connection:
        return [_label_to_json(Label(**row._mapping)) for row in connection.execute(query)]


def _label_to_json(label: Label) -> dict[str, Any]:
    return dataclasses.asdict(label) | {"at": iso(label.at), "provenance": str(label.provenance)}


def _request_to_json(one: LabelRequest) -> dict[str, Any]:
    until = None if one.lease_until is None else iso(one.lease_until)
    return {name: getattr(one, name) for name in SHOWN} | {"lease_until": until}
