"""Alerts over HTTP: lists, one with its evidence, small pictures of evidence, and what people do.

The rules are ``ingest.alerts``'; here are their borders. Invariant: an alert of a foreign
tenant is not found, whoever asks and however.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, Field, StringConstraints, model_validator
from sqlalchemy import select

from cluster.clock import SystemClock
from cluster.ids import new_id
from cluster.store import read_transaction
from ingest.alerts.messages import changes_of
from ingest.alerts.model import Condition, Handling, Severity, SourceKind, Verdict, alert_to_json, event_to_json
from ingest.alerts.store import MAX_ACK_S, MAX_BULK, MAX_TEXT, AlertQuery, AlertStore
from ingest.alerts.tables import alerts
from ingest.errors import VersionConflictError
from serve_apps.api.border import (
    MAX_PAGE,
    PRINTABLE,
    ApiRoute,
    Body,
    Cursor,
    Id,
    Level,
    RequestId,
    Version,
    json_answer,
    tenant_of,
)
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of
from serve_apps.error_response import CODES

router = APIRouter(prefix="/api/v1/alerts", route_class=ApiRoute)

MAX_ITEMS = 200
"""Alerts of an action that its answer holds in full; of more it holds what they have in common."""
MAX_SPARKS = 60
SPARK_POINTS = 60

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=PRINTABLE)]


class AlertFilter(Body):
    """Which alerts; what is left out stays open."""

    tenant: Level | None = None
    """Of callers who see all tenants."""
    condition: Condition | None = None
    handling: Handling | None = None
    severity: Annotated[list[Severity], Field(max_length=len(Severity))] = Field(default_factory=list)
    verdict: Verdict | None = None
    suppressed: bool | None = None
    source: SourceKind | None = None
    device: Level | None = None
    site: Name | None = None
    rule: Name | None = None
    acked_by: Id | None = None
    q: Annotated[str, Field(max_length=MAX_TEXT, pattern=PRINTABLE)] = ""
    """Words that must all stand in title, text, device, site, metric or rule."""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    """Began in [since, until)."""

    def query(self, identity: Identity, **page: Any) -> AlertQuery:
        """Return the query of a caller, which never leads out of its tenant."""
        return AlertQuery(
            tenant=tenant_of(identity) or self.tenant,
            condition=self.condition,
            handling=self.handling,
            severities=tuple(self.severity),
            verdict=self.verdict,
            is_suppressed=self.suppressed,
            source=self.source,
            device_id=self.device,
            site=self.site,
            rule=self.rule,
            acked_by=self.acked_by,
            text=self.q,
            since=None if self.since is None else self.since.timestamp(),
            until=None if self.until is None else self.until.timestamp(),
            **page,
        )


class ListParameters(AlertFilter):
    """A filter with its page."""

    order: Literal["newest", "worst"] = "newest"
    cursor: Cursor = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100


class ActionArguments(Body):
    """What some actions need to know."""

    verdict: Verdict | None = None
    text: Annotated[str, Field(min_length=1, max_length=2000, pattern=PRINTABLE)] | None = None
    for_s: Annotated[float, Field(ge=0, le=MAX_ACK_S)] | None = None
    """How long an acknowledgement lasts, in seconds; 0: as long as the problem, missing: the floor's default."""


class ActionBody(Body):
    """One thing done to some alerts, all of them or none: those of ``ids``, or all that meet ``filter``."""

    action: Literal["acknowledge", "unacknowledge", "close", "verdict", "note"]
    ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_BULK)] | None = None
    filter: AlertFilter | None = None
    args: ActionArguments = ActionArguments()
    if_version: Annotated[dict[Id, Version], Field(max_length=MAX_BULK)] = Field(default_factory=dict)
    """Id -> version that the caller has seen; another one is a conflict, and nothing changes."""
    request_id: RequestId | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "ActionBody":
        if (self.ids is None) is (self.filter is None):
            raise ValueError("an action is for ids or for a filter, one of the two")
        if self.action == "verdict" and self.args.verdict is None:
            raise ValueError("the action verdict needs args.verdict")
        if self.args.verdict is not None and self.action not in {"verdict", "close"}:
            raise ValueError("args.verdict belongs to the actions verdict and close")
        if self.action == "note" and self.args.text is None:
            raise ValueError("the action note needs args.text")
        if self.args.for_s is not None and self.action != "acknowledge":
            raise ValueError("args.for_s belongs to the action acknowledge")
        return self


@router.get("", response_model=dict[str, Any])
async def list_alerts(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    asked: Annotated[ListParameters, Query()],
) -> Response:
    """Return alerts, page by page."""

    def answer() -> Response:
        query = asked.query(identity, order=asked.order, cursor=asked.cursor, limit=asked.limit)
        page = _store(deps_of(request)).list(query)
        return json_answer({"items": [alert_to_json(alert) for alert in page.items], "next_cursor": page.next_cursor})

    try:
        return await asyncio.to_thread(answer)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


# Above /{alert_id}, which would take "sparks" for an id.
@router.get("/sparks")
async def sparks(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    ids: Annotated[str, Query(max_length=MAX_SPARKS * 65)],
) -> dict[str, Any]:
    """Return the last values of some alerts' evidence: ``{id: {values, at}}``, only of those that have one."""
    wanted = ids.split(",")[:MAX_SPARKS]
    found = await asyncio.to_thread(_read_sparks, deps_of(request), wanted, tenant_of(identity))
    return {"sparks": found}


@router.get("/{alert_id}")
async def get_alert(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], alert_id: Id
) -> dict[str, Any]:
    """Return one alert with its history and its evidence."""
    detail = await asyncio.to_thread(_store(deps_of(request)).get, alert_id, tenant_of(identity))
    return {
        "alert": alert_to_json(detail.alert),
        "events": [event_to_json(event) for event in detail.events],
        "evidence": detail.evidence,
    }


@router.post("/actions", response_model=dict[str, Any])
async def act(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: ActionBody
) -> Response:
    """Acknowledge, take back, close, judge or note; with the same ``request_id`` once only."""
    deps = deps_of(request)
    try:
        return await asyncio.to_thread(_act, deps, identity, body)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def _act(deps: GatewayDeps, identity: Identity, body: ActionBody) -> Response:
    store = _store(deps)
    tenant = tenant_of(identity)
    wanted: list[str] | AlertQuery = body.ids or []
    if body.filter is not None:
        wanted = body.filter.query(identity)
    try:
        changed = store.act(
            wanted,
            body.action,
            identity.user_id,
            body.request_id or new_id(),
            tenant=tenant,
            verdict=body.args.verdict,
            note=body.args.text,
            ack_s=body.args.for_s,
            if_version=body.if_version,
        )
    except VersionConflictError as error:
        now = store.of_ids(list(error.actual)[:MAX_ITEMS], tenant)
        refused = {"code": CODES[409], "message": str(error)}
        return json_answer({"error": refused, "items": [alert_to_json(alert) for alert in now]}, 409)
    deps.relay.wake()
    is_few = len(changed) <= MAX_ITEMS
    return json_answer(
        {
            "count": len(changed),
            "items": [alert_to_json(alert) for alert in changed] if is_few else [],
            "changes": changes_of(changed),
        }
    )


def _store(deps: GatewayDeps) -> AlertStore:
    return AlertStore(deps.engine, SystemClock(), deps.alerts)


def _read_sparks(deps: GatewayDeps, ids: list[str], tenant: str | None) -> dict[str, Any]:
    query = select(alerts.c.id, alerts.c.evidence).where(alerts.c.id.in_(ids))
    if tenant is not None:
        query = query.where(alerts.c.tenant == tenant)
    with read_transaction(deps.engine) as connection:
        rows = connection.execute(query).all()
    return {row.id: _spark(row.evidence["points"]) for row in rows if row.evidence and row.evidence["points"]}


def _spark(points: list[list[Any]]) -> dict[str, Any]:
    """Return the last values, and which of them was the worst judged."""
    last = points[-SPARK_POINTS:]
    scores = [-1.0 if point[2] is None else point[2] for point in last]
    return {"values": [point[1] for point in last], "at": scores.index(max(scores))}
