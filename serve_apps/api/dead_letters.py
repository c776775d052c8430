"""Dead letters over HTTP: what devices sent that could not be used, and why.

Invariant: a tenant's operator sees letters of the own tenant's topics only; letters whose
topic names no tenant are for the floor's operators.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from ingest.alerts.model import iso
from ingest.dead_letter import DeadLetterRow, DeadLetterStore
from serve_apps.api.border import ApiRoute, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/dead-letters", route_class=ApiRoute)

PREVIEW_BYTES = 200


@router.get("")
async def list_dead_letters(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.OPERATOR))],
    cursor: Annotated[int | None, Query(ge=1)] = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return the newest letters first; a page may hold fewer than ``limit`` and still have a next one."""
    deps = deps_of(request)
    tenant = tenant_of(identity)
    store = DeadLetterStore(deps.engine, source="api")
    letters = await asyncio.to_thread(store.list, limit, cursor)
    own = f"{deps.settings.topic_root}/{tenant}/"
    return {
        "items": [_to_json(letter) for letter in letters if tenant is None or letter.topic.startswith(own)],
        "next_cursor": letters[-1].id if len(letters) == limit else None,
    }


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
        "payload_bytes": letter.payload_bytes,
        "sha256": letter.sha256,
        "preview": letter.payload[:PREVIEW_BYTES].decode("utf-8", "replace"),
    }
