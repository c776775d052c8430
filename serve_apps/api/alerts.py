"""Alerts over HTTP: lists, one with its evidence, small pictures of evidence, and what people do.

The rules are ``ingest.alerts``'; here are their borders. Invariant: an alert of a foreign
tenant is not found, whoever asks and however.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import Field, model_validator
from sqlalchemy import select

from cluster.clock import SystemClock
from cluster.ids import new_id
from cluster.store import read_transaction
from ingest.alerts.model import Condition, Handling, Severity, Verdict, alert_to_json, event_to_json
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alerts
from serve_apps.api.border import ApiRoute, Body, Cursor, Id, Level, Limit, RequestId, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v1/alerts", route_class=ApiRoute)

MAX_IDS = 200
MAX_SPARKS = 60
SPARK_POINTS = 60


class ActionArguments(Body):
    """What some actions need to know."""

    verdict: Verdict | None = None
    text: Annotated[str, Field(min_length=1, max_length=2000)] | None = None


class ActionBody(Body):
    """One thing done to some alerts, all of them or none."""

    action: Literal["acknowledge", "unacknowledge", "close", "verdict", "note"]
    ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_IDS)]
    args: ActionArguments = ActionArguments()
    request_id: RequestId | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "ActionBody":
        if self.action == "verdict" and self.args.verdict is None:
            raise ValueError("the action verdict needs args.verdict")
        if self.args.verdict is not None and self.action not in {"verdict", "close"}:
            raise ValueError("args.verdict belongs to the actions verdict and close")
        if self.action == "note" and self.args.text is None:
            raise ValueError("the action note needs args.text")
        return self


@router.get("")
async def list_alerts(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    condition: Condition | None = None,
    handling: Handling | None = None,
    severity: Severity | None = None,
    device: Level | None = None,
    order: Literal["newest", "worst"] = "newest",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return alerts, page by page."""
    query = AlertQuery(
        tenant=tenant_of(identity),
        condition=condition,
        handling=handling,
        severity=severity,
        device_id=device,
        order=order,
        cursor=cursor,
        limit=limit,
    )
    try:
        page = await asyncio.to_thread(_store(deps_of(request)).list, query)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {"items": [alert_to_json(alert) for alert in page.items], "next_cursor": page.next_cursor}


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


@router.post("/actions")
async def act(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: ActionBody
) -> dict[str, Any]:
    """Acknowledge, take back, close, judge or note; with the same ``request_id`` once only."""
    deps = deps_of(request)
    changed = await asyncio.to_thread(
        _store(deps).act,
        body.ids,
        body.action,
        identity.user_id,
        body.request_id or new_id(),
        tenant=tenant_of(identity),
        verdict=body.args.verdict,
        note=body.args.text,
    )
    deps.relay.wake()
    return {"items": [alert_to_json(alert) for alert in changed]}


def _store(deps: GatewayDeps) -> AlertStore:
    return AlertStore(deps.engine, SystemClock())


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
