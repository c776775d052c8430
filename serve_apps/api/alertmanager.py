"""Alerts of other systems over HTTP, in the form of Alertmanager's API v2.

A Prometheus that has this floor among its ``alertmanagers`` sends here. What labels mean is
``ingest.alerts.external``'s. Invariants: one alert that cannot be used costs none of the
others of its request; a token of a tenant reports for that tenant only.
"""

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Request

from cluster.clock import SystemClock
from ingest.alerts.engine import AlertEngine
from ingest.alerts.external import ExternalAlert, parse_alert
from ingest.alerts.external_store import ExternalAlerts, external_received
from serve_apps.api.border import ApiRoute, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v2", route_class=ApiRoute)

MAX_ALERTS = 2000
"""Alerts of one request; a Prometheus sends 64 to 256."""
TOLD_PROBLEMS = 5

Items = Annotated[
    list[Any],
    Body(
        max_length=MAX_ALERTS,
        description="Objects with labels, annotations, startsAt, endsAt and generatorURL, as Alertmanager takes them.",
        examples=[[{"labels": {"alertname": "HighLoad", "instance": "db-1:9100", "severity": "critical"}}]],
    ),
]


@router.post("/alerts")
async def post_alerts(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], items: Items
) -> dict[str, Any]:
    """Take alerts of another system in; those that end in the past are over."""
    deps = deps_of(request)
    found, problems = _parsed(items, tenant_of(identity), deps)
    if found:
        store = ExternalAlerts(deps.engine, AlertEngine(deps.engine, SystemClock(), deps.alerts), SystemClock())
        if await asyncio.to_thread(store.receive, found, identity.user_id):
            deps.relay.wake()
    if problems:
        external_received.labels("rejected").inc(len(problems))
        more = f" (and {len(problems) - TOLD_PROBLEMS} more)" if len(problems) > TOLD_PROBLEMS else ""
        raise HTTPException(400, f"{len(found)} alerts taken, not these: {'; '.join(problems[:TOLD_PROBLEMS])}{more}")
    return {"taken": len(found)}


def _parsed(items: list[Any], own: str | None, deps: GatewayDeps) -> tuple[list[tuple[str, ExternalAlert]], list[str]]:
    """Return what can be used, with its tenant, and what is wrong with the rest."""
    settings, now = deps.external_alerts, time.time()
    found, problems = [], []
    for number, item in enumerate(items):
        try:
            alert = parse_alert(item, now, settings.resolve_s)
        except ValueError as error:
            problems.append(f"alert {number} {error}")
            continue
        tenant = alert.tenant(own or settings.tenant)
        if own not in {None, tenant}:
            problems.append(f"alert {number} is of another tenant than its token")
        else:
            found.append((tenant, alert))
    return found, problems
