"""Silences and maintenance windows over HTTP: made, changed, ended, listed.

The rules are ``ingest.alerts.silence``'s. Invariant: a tenant's caller sees and makes those
of its tenant only; one of all tenants is made and seen by who works floor-wide.
"""

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AwareDatetime, Field, model_validator

from cluster.clock import SystemClock
from cluster.ids import new_id
from ingest.alerts.model import SuppressionKind
from ingest.alerts.silence import (
    MAX_COMMENT_CHARS,
    MAX_LENGTH_S,
    MAX_MATCHERS,
    MAX_VALUE_CHARS,
    MAX_VALUES,
    Matcher,
    Repeat,
    Silence,
    silence_to_json,
)
from ingest.alerts.silence_store import SilenceStore
from serve_apps.api.border import PRINTABLE, ApiRoute, Body, Cursor, Id, Level, Limit, RequestId, Version, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v1/silences", route_class=ApiRoute)

Text = Annotated[str, Field(min_length=1, max_length=MAX_VALUE_CHARS, pattern=PRINTABLE)]
Pattern = Annotated[str, Field(max_length=MAX_VALUE_CHARS, pattern=PRINTABLE)]
Comment = Annotated[str, Field(min_length=1, max_length=MAX_COMMENT_CHARS, pattern=PRINTABLE)]
Zone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")]


class MatcherBody(Body):
    """One condition: ``field`` has (or, negated, has not) one of ``values``, patterns with ``*`` and ``?``."""

    field: Text
    values: Annotated[list[Pattern], Field(min_length=1, max_length=MAX_VALUES)]
    is_negated: bool = False


Matchers = Annotated[list[MatcherBody], Field(min_length=1, max_length=MAX_MATCHERS)]


class SilenceBody(Body):
    """A new silence; without ``starts_at`` it begins now, and it ends at ``ends_at`` or after ``for_s`` seconds."""

    kind: Literal["silence", "maintenance"] = "silence"
    tenant: Level | None = None
    """Whose alerts alone; callers of a tenant: theirs anyway."""
    matchers: Matchers
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    for_s: Annotated[float, Field(gt=0, le=MAX_LENGTH_S)] | None = None
    repeats: Repeat = Repeat.NEVER
    time_zone: Zone = "UTC"
    repeats_until: AwareDatetime | None = None
    comment: Comment
    request_id: RequestId | None = None

    @model_validator(mode="after")
    def _ends_once(self) -> "SilenceBody":
        if (self.ends_at is None) is (self.for_s is None):
            raise ValueError("a silence has ends_at or for_s, one of the two")
        return self


class SilenceChange(Body):
    """New terms; what is left out stays. ``if_version`` is the version that the caller has seen."""

    matchers: Matchers | None = None
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    repeats: Repeat | None = None
    time_zone: Zone | None = None
    repeats_until: AwareDatetime | None = None
    comment: Comment | None = None
    if_version: Version | None = None


class ExpireBody(Body):
    """The end of a silence, now; once it is over a repetition changes nothing."""

    if_version: Version | None = None


@router.get("")
async def list_silences(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    state: Literal["active", "pending", "expired"] | None = None,
    kind: Literal["silence", "maintenance"] | None = None,
    cursor: Cursor = None,
    limit: Annotated[Limit, Query()] = 100,
) -> dict[str, Any]:
    """Return silences and maintenance windows, newest first."""
    wanted = None if kind is None else SuppressionKind(kind)
    page = await asyncio.to_thread(_store(deps_of(request)).list, tenant_of(identity), state, wanted, cursor, limit)
    return {"items": [_shown(one) for one in page.items], "next_cursor": page.next_cursor}


@router.get("/{silence_id}")
async def get_silence(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], silence_id: Id
) -> dict[str, Any]:
    """Return one silence."""
    silence = await asyncio.to_thread(_store(deps_of(request)).get, silence_id, tenant_of(identity))
    return {"silence": _shown(silence)}


@router.post("", status_code=201)
async def create_silence(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: SilenceBody
) -> dict[str, Any]:
    """Make a silence or a maintenance window; with the same ``request_id`` once only."""
    try:
        silence = _silence_of(body, identity)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    deps = deps_of(request)
    made, changed = await asyncio.to_thread(_store(deps).create, silence, body.request_id)
    deps.relay.wake()
    return {"silence": _shown(made), "changed": changed}


@router.patch("/{silence_id}")
async def change_silence(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    silence_id: Id,
    body: SilenceChange,
) -> dict[str, Any]:
    """Change when, of what and why nobody is told."""
    changes: dict[str, Any] = {
        name: getattr(body, name) for name in body.model_fields_set - {"if_version"} if getattr(body, name) is not None
    }
    for name in ("starts_at", "ends_at", "repeats_until"):
        if name in changes:
            changes[name] = changes[name].timestamp()
    return await _change(deps_of(request), identity, silence_id, body.if_version, changes)


@router.post("/{silence_id}/expire")
async def expire_silence(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], silence_id: Id, body: ExpireBody
) -> dict[str, Any]:
    """End a silence now; people are told of what still fires."""
    return await _change(deps_of(request), identity, silence_id, body.if_version, {"expired_by": identity.user_id})


async def _change(
    deps: GatewayDeps, identity: Identity, silence_id: str, if_version: int | None, changes: dict[str, Any]
) -> dict[str, Any]:
    def change() -> tuple[Silence, int]:
        if "matchers" in changes:
            changes["matchers"] = _matchers(changes["matchers"])
        return _store(deps).change(
            silence_id, identity.user_id, tenant=tenant_of(identity), if_version=if_version, **changes
        )

    try:
        silence, changed = await asyncio.to_thread(change)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    deps.relay.wake()
    return {"silence": _shown(silence), "changed": changed}


def _silence_of(body: SilenceBody, identity: Identity) -> Silence:
    now = time.time()
    starts_at = now if body.starts_at is None else body.starts_at.timestamp()
    ends_at = starts_at + (body.for_s or 0) if body.ends_at is None else body.ends_at.timestamp()
    if ends_at <= now and body.repeats is Repeat.NEVER:
        raise ValueError("a silence ends in the future")
    return Silence(
        id=new_id(),
        kind=SuppressionKind(body.kind),
        tenant=tenant_of(identity) or body.tenant,
        matchers=_matchers(body.matchers),
        starts_at=starts_at,
        ends_at=ends_at,
        comment=body.comment,
        created_by=identity.user_id,
        created_at=now,
        updated_by=identity.user_id,
        updated_at=now,
        repeats=body.repeats,
        time_zone=body.time_zone,
        repeats_until=None if body.repeats_until is None else body.repeats_until.timestamp(),
    )


def _matchers(bodies: list[MatcherBody]) -> tuple[Matcher, ...]:
    return tuple(Matcher(one.field, tuple(one.values), one.is_negated) for one in bodies)


def _shown(silence: Silence) -> dict[str, Any]:
    return silence_to_json(silence, time.time())


def _store(deps: GatewayDeps) -> SilenceStore:
    return SilenceStore(deps.engine, SystemClock())
