"""The floor's status and what the page has to know about itself, over HTTP.

Asks each part on its own, so that one which is away costs its own lines only. Invariant:
``GET /api/v1/status`` always has the keys of ``watchfloor status --json``; a figure that
nobody could tell is null, never 0.
"""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy.exc import SQLAlchemyError

from cluster import names
from cluster.actor_link import ActorLink
from cluster.breaker import get_breaker
from cluster.clock import SystemClock
from cluster.errors import ClusterError
from cluster.runs import run_to_json
from cluster.settings import load_section
from ingest.alerts.model import iso
from ingest.alerts.store import AlertStore
from ingest.dead_letter import DeadLetterStore
from ingest.ingest_settings import IngestSettings
from serve_apps.api.border import ApiRoute
from serve_apps.api.trainings import model_types, offered_datasets
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import ROUTES, require
from serve_apps.deps import GatewayDeps
from serve_apps.floor_state import FloorFolder

T = TypeVar("T")

router = APIRouter(prefix="/api/v1", route_class=ApiRoute)

PART_TIMEOUT_S = 2.0
SHOWN_RUNS = 10
KEPT_S = 1.0
"""Age up to which an answer serves further callers: many pages ask, one floor answers."""

WAYS = {
    "acknowledge": ("POST", "/api/v1/alerts/actions"),
    "verdict": ("POST", "/api/v1/alerts/actions"),
    "train": ("POST", "/api/v1/runs"),
    "cancel": ("POST", "/api/v1/runs/{}/cancel"),
    "promote": ("POST", "/api/v1/models/rollback"),
    "command": ("POST", "/api/v1/commands"),
    "directory": ("PATCH", "/api/v1/directory/{}/{}/{}"),
    "dead_letters": ("GET", "/api/v1/dead-letters"),
}
"""What the page lets a person do -> the route that does it."""
FLOOR_WIDE = frozenset({"promote"})
"""Of these, what only who works floor-wide may do."""


@router.get("/config")
async def config(identity: Annotated[Identity, Depends(require(Role.VIEWER))]) -> dict[str, Any]:
    """Return who is signed in, what they may do, and where things are."""
    return describe_caller(identity)


def describe_caller(identity: Identity) -> dict[str, Any]:
    """Return who calls, what they may do, and where things are."""
    return {
        "user": {
            "id": identity.user_id,
            "tenant": identity.tenant,
            "roles": sorted(identity.roles, key=lambda role: role.rank),
            "groups": list(identity.groups),
        },
        "may": {
            what: _may(identity, way) and (identity.is_floor_wide or what not in FLOOR_WIDE)
            for what, way in WAYS.items()
        },
        "ws_path": "/connection/websocket",
        "now": iso(time.time()),
        "session_ends_at": iso(identity.expires_at),
        "training": {
            "models": [{"id": name, "title": name} for name in model_types()],
            "datasets": offered_datasets(None if identity.is_floor_wide else identity.tenant),
        },
    }


@router.get("/status")
async def status(request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))]) -> dict[str, Any]:
    """Return what the floor is doing, as one object."""
    return await floor_status(request.app, identity)


async def floor_status(app: FastAPI, identity: Identity) -> dict[str, Any]:
    """Return what ``identity`` may know about what the floor is doing."""
    deps: GatewayDeps = app.state.deps
    floor = await _board_of(app).read()
    if identity.is_floor_wide:
        return floor
    # To a tenant: its own alerts and runs, and whether the parts work; no names, no figures of others.
    counts = await _told(asyncio.to_thread(AlertStore(deps.engine, SystemClock()).counts, identity.tenant or ""))
    return floor | {
        "services": {name: {"state": part["state"]} for name, part in floor["services"].items()},
        "readings_total": None,
        "dead_letters_total": None,
        "dead_letters": None,
        "alerts_total": counts["total"] if counts else None,
        "alerts": counts,
        "detector": {name: floor["detector"].get(name) for name in ("model", "version", "revision")},
        "runs": [run for run in floor["runs"] if run["tenant"] is not None and run["tenant"] == identity.tenant],
        "ingest": {},
        "circuits": {name: {"state": one["state"]} for name, one in floor["circuits"].items()},
    }


class StatusBoard:
    """Gathers the status of the floor's parts; one gathering at a time, shared by all who ask."""

    def __init__(self, deps: GatewayDeps) -> None:
        self._deps = deps
        self._ingest = ActorLink(names.INGEST)
        more = range(1, load_section(IngestSettings).actors)
        self._more_ingest = [ActorLink(names.INGEST_ACTOR.format(index=index)) for index in more]
        self._detector = ActorLink(names.DETECTOR)
        self._lock = asyncio.Lock()
        self._kept: tuple[float, dict[str, Any]] | None = None

    async def read(self) -> dict[str, Any]:
        """Return the floor's status, at most ``KEPT_S`` old."""
        async with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > KEPT_S:
                self._kept = (time.monotonic(), await self._gather())
            return self._kept[1]

    async def _gather(self) -> dict[str, Any]:
        deps = self._deps
        ingest, detector, hub, runs = await asyncio.gather(
            _told(self._ingest.acall("status", timeout_s=PART_TIMEOUT_S)),
            _told(self._detector.acall("status", timeout_s=PART_TIMEOUT_S)),
            _told(deps.hub.stats()),
            _told(deps.run_queue.alist(SHOWN_RUNS)),
        )
        counts, letters, floor, circuits = await asyncio.gather(
            _told(asyncio.to_thread(AlertStore(deps.engine, SystemClock()).counts)),
            _told(asyncio.to_thread(DeadLetterStore(deps.engine, source="api").by_reason)),
            _told(asyncio.to_thread(FloorFolder.of(deps.settings).read)),
            _told(asyncio.to_thread(lambda: get_breaker().snapshot())),
        )
        services = {name: dataclasses.asdict(part) for name, part in (floor.services if floor else {}).items()}
        services["gateway"] = {"state": "running", "detail": "it answered this"}
        for name, answer in (("ingest", ingest), ("detector", detector), ("hub", hub), ("run queue", runs)):
            services[name] = _state(answer)
        services["sql"] = _state(counts)
        more = await asyncio.gather(
            *(_told(link.acall("status", timeout_s=PART_TIMEOUT_S)) for link in self._more_ingest)
        )
        services |= {link.name: _state(answer) for link, answer in zip(self._more_ingest, more, strict=True)}
        for name, answer in (("ingest", ingest), *zip((link.name for link in self._more_ingest), more, strict=True)):
            if answer:
                judge_ingest(services[name], answer)
        return {
            "url": floor.url if floor else "",
            "services": services,
            "readings_total": ingest["readings_total"] if ingest else None,
            "alerts_total": counts["total"] if counts else None,
            "alerts": counts,
            "dead_letters_total": None if letters is None else sum(letters.values()),
            "dead_letters": letters,
            "runs": [run_to_json(run) for run in runs or ()],
            "detector": detector or {},
            "ingest": ingest or {},
            "circuits": {one.service: dataclasses.asdict(one) for one in circuits or ()},
        }


def _board_of(app: FastAPI) -> StatusBoard:
    state = app.state
    if not hasattr(state, "status_board"):
        state.status_board = StatusBoard(state.deps)
    board: StatusBoard = state.status_board
    return board


async def _told(answer: Awaitable[T]) -> T | None:
    """Return the answer, or None when the part did not give one in time."""
    try:
        return await asyncio.wait_for(answer, PART_TIMEOUT_S)
    except (ClusterError, TimeoutError, OSError, SQLAlchemyError):
        return None


def _may(identity: Identity, way: tuple[str, str]) -> bool:
    role = ROUTES[way]
    return isinstance(role, Role) and identity.has(role)


def _state(answer: object) -> dict[str, str]:
    if answer is None:
        return {"state": "waiting", "detail": f"no answer within {PART_TIMEOUT_S:g} s"}
    return {"state": "running", "detail": ""}


def judge_ingest(service: dict[str, Any], ingest: dict[str, Any]) -> None:
    """Say what stands in the way of readings, where something does."""
    problems = [f"{lane}: {reason}" for lane, reason in ingest.get("blocked", {}).items()]
    if not ingest.get("broker_connected", True):
        problems.append(f"broker: {ingest.get('broker_problem') or 'not connected'}")
    near = [one["text"] for one in ingest.get("stores", {}).values() if one["text"]]
    if near and not problems:
        service.update(detail="; ".join(near))
    if problems:
        service.update(state="waiting", detail="; ".join(problems))
