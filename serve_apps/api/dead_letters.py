"""Dead letters over HTTP: what devices sent that could not be used, why, and trying it again.

Invariant: a tenant's operator sees and replays letters of the own tenant's topics only;
letters whose topic names no tenant are for the floor's operators.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field, model_validator

from cluster.clock import SystemClock
from cluster.settings import load_section
from ingest.alerts.model import iso
from ingest.dead_letter import DeadLetterRow, DeadLetterStore, LetterQuery
from ingest.dead_letter_replay import Outcome, Replayed, Replayer
from ingest.decoder import ClockTolerance
from ingest.errors import DeadLetterNotFoundError
from ingest.ingest_settings import IngestSettings
from ingest.payload import Reason
from ingest.telemetry_redis import TelemetrySettings, TelemetryStream
from ingest.topics import TopicTree
from serve_apps.api.border import ApiRoute, Body, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v1/dead-letters", route_class=ApiRoute)

PREVIEW_BYTES = 200
MAX_ID = 2**53 - 1
MAX_REPLAYED = 500
MAX_TOPIC = 512

LetterId = Annotated[int, Field(ge=1, le=MAX_ID)]
TopicStart = Annotated[str, Field(min_length=1, max_length=MAX_TOPIC)]


class ReplayBody(Body):
    """Which letters to try again: these, or all that a filter finds, newest first."""

    ids: Annotated[list[LetterId], Field(min_length=1, max_length=MAX_REPLAYED)] | None = None
    reason: Reason | None = None
    topic: TopicStart | None = None
    all: bool = False
    cursor: LetterId | None = None

    @model_validator(mode="after")
    def _names_some(self) -> "ReplayBody":
        filters = self.reason is not None or self.topic is not None or self.all
        if (self.ids is not None) == filters:
            raise ValueError("either ids, or reason, topic or all")
        return self


@router.get("")
async def list_dead_letters(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    reason: Reason | None = None,
    topic: Annotated[str | None, Query(min_length=1, max_length=MAX_TOPIC)] = None,
    replayed: bool = False,
    cursor: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return letters, the newest first: those that wait, or with ``replayed`` those that were used after all."""
    deps = deps_of(request)
    query = LetterQuery(
        reason=reason,
        topic=topic,
        under=_under(deps, identity),
        before_id=cursor,
        is_replayed=replayed,
        limit=limit,
    )
    letters = await asyncio.to_thread(_store(deps).find, query)
    return {"items": [_to_json(letter) for letter in letters], "next_cursor": _next(letters, limit)}


@router.get("/{letter_id}")
async def get_dead_letter(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    letter_id: Annotated[int, Path(ge=1, le=MAX_ID)],
) -> dict[str, Any]:
    """Return one letter with all that was kept of its payload."""
    (letter,) = await asyncio.to_thread(_found, deps_of(request), identity, [letter_id])
    return _to_json(letter) | {"payload_base64": base64.b64encode(letter.payload).decode()}


@router.post("/replay")
async def replay_dead_letters(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: ReplayBody
) -> dict[str, Any]:
    """Try letters again; each is stored once however often this is called. What is refused again still waits."""
    deps = deps_of(request)
    if body.ids is not None:
        letters: Sequence[DeadLetterRow] = await asyncio.to_thread(
            _found, deps, identity, list(dict.fromkeys(body.ids))
        )
        more = None
    else:
        query = LetterQuery(
            reason=body.reason,
            topic=body.topic,
            under=_under(deps, identity),
            before_id=body.cursor,
            limit=MAX_REPLAYED,
        )
        letters = await asyncio.to_thread(_store(deps).find, query)
        more = _next(letters, MAX_REPLAYED)
    done = await asyncio.to_thread(_replay, deps, letters, identity.user_id)
    deps.relay.wake()
    counts = Counter(one.outcome for one in done)
    return {
        "items": [{"id": one.id, "outcome": one.outcome, "reason": one.reason, "detail": one.detail} for one in done],
        "counts": {outcome.value: counts[outcome] for outcome in Outcome},
        "next_cursor": more,
    }


def _found(deps: GatewayDeps, identity: Identity, ids: list[int]) -> Sequence[DeadLetterRow]:
    """Return letters by id; one of a foreign tenant is not found."""
    under = _under(deps, identity)
    store = _store(deps)
    letters = []
    for letter_id in ids:
        letter = store.get(letter_id)
        if letter is None or (under is not None and not letter.topic.startswith(under)):
            raise DeadLetterNotFoundError(letter_id)
        letters.append(letter)
    return letters


def _under(deps: GatewayDeps, identity: Identity) -> str | None:
    tenant = tenant_of(identity)
    return None if tenant is None else f"{deps.settings.topic_root}/{tenant}/"


def _next(letters: Sequence[DeadLetterRow], limit: int) -> int | None:
    return letters[-1].id if len(letters) == limit else None


def _store(deps: GatewayDeps) -> DeadLetterStore:
    return DeadLetterStore(deps.engine, source="api")


def _replay(deps: GatewayDeps, letters: Sequence[DeadLetterRow], user_id: str) -> list[Replayed]:
    if not letters:
        return []
    settings = load_section(IngestSettings)
    replayer = Replayer(
        TopicTree(deps.settings.topic_root),
        ClockTolerance(future_s=settings.future_s, late_s=settings.late_s),
        deps.engine,
        _stream(deps.settings.redis_url),
        SystemClock(),
    )
    return replayer.replay(letters, user_id)


@lru_cache(maxsize=1)
def _stream(redis_url: str) -> TelemetryStream:
    # One pool of connections a replica; redis-py's is safe for the threads that use it.
    return TelemetryStream.open(redis_url, load_section(TelemetrySettings))


def _to_json(letter: DeadLetterRow) -> dict[str, Any]:
    return {
        "id": letter.id,
        "at": iso(letter.at),
        "last_at": iso(letter.last_at),
        "count": letter.count,
        "topic": letter.topic,
        "reason": letter.reason,
        "detail": letter.detail,
        "source": letter.source,
        "content_type": letter.content_type,
        "payload_bytes": letter.payload_bytes,
        "sha256": letter.sha256,
        "preview": letter.payload[:PREVIEW_BYTES].decode("utf-8", "replace"),
        "replays": letter.replays,
        "replayed_at": None if letter.replayed_at is None else iso(letter.replayed_at),
        "replayed_by": letter.replayed_by,
    }
