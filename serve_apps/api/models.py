"""Models over HTTP: which version is live, which exist, what each came from, how good it is, and who may change that.

The aliases are ``training.registry``'s. Invariants: a promotion by hand names the champion that
it replaces, so of two people at the same moment one is told; what a tenant sees of a version is its
name and its figures, never whose data or whose run made it.
"""

import asyncio
import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import Field, StringConstraints
from sqlalchemy import select

from cluster import names
from cluster.clock import SystemClock
from cluster.ids import new_id
from cluster.runs import run_to_json
from cluster.settings import load_section
from cluster.store import read_transaction
from ingest.alerts.model import iso
from ingest.alerts.store import AlertStore
from ingest.live_models import CHAMPION, PREVIOUS, LiveModel, live_models, read_live_model
from ingest.model_trial import list_trials
from realtime.errors import HubUnavailableError
from realtime.messages import MessageType, encode
from realtime.publication import Draft, Priority
from serve_apps import audit
from serve_apps.api.border import ApiRoute, Body, Id, Limit, RequestId, json_answer, tenant_of
from serve_apps.api.runs import submit
from serve_apps.api.trainings import evaluation_request, model_types
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of
from training.data import catalogue
from training.data.snapshots import TELEMETRY
from training.errors import ModelFileError, ModelVersionNotFoundError, ReportNotFoundError, UnknownDatasetError
from training.evaluation.report_files import list_reports, read_report
from training.registry import lineage
from training.registry.gates import PromotionSettings
from training.registry.keeper import model_update
from training.registry.manifest import Manifest
from training.registry.promotion import journal, promote
from training.registry.references import find_version
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry, describe, read_manifest
from training.runs.order import FALSE_PER_DAY, LEAST_FALSE_PER_DAY, MOST_FALSE_PER_DAY

router = APIRouter(prefix="/api/v1/models", route_class=ApiRoute)

SEEN_BY_TENANTS = frozenset(
    {"model_id", "model_type", "version", "created_at", "metrics", "aliases", "problem"}
    | {"at", "alias", "revision", "replaced_version"}
)
TRIALS_SHOWN = 10
TELL_TIMEOUT_S = 2.0

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
InPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Reference = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,191}$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Revision = Annotated[int, Field(ge=0, le=2**31 - 1)]


class PromoteBody(Body):
    """Make a version the champion at once, without a trial."""

    model_type: Name
    version: Name
    expected_revision: Revision
    """Of the champion that the decision was made on; 0: there was none."""
    reason: Reason


class RollbackBody(Body):
    """Make the version before the champion champion again."""

    expected_revision: Revision
    reason: Reason


class ReportBody(Body):
    """On what a version is to be judged, and at what price."""

    dataset_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,256}$")] = TELEMETRY
    false_alarms_per_day: Annotated[
        float, Field(ge=LEAST_FALSE_PER_DAY, le=MOST_FALSE_PER_DAY, allow_inf_nan=False)
    ] = FALSE_PER_DAY
    """Per device; what people bear, for the figures at a price."""
    request_id: RequestId | None = None


@router.get("")
async def list_models(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    limit: Limit = 50,
) -> dict[str, Any]:
    """Return the live aliases, the newest versions of every model type, the newest trials and the gates' settings."""
    deps = deps_of(request)
    live, versions, trials = await asyncio.gather(
        asyncio.to_thread(_read_live, deps),
        asyncio.to_thread(_read_versions, deps, limit),
        asyncio.to_thread(_read_trials, deps),
    )
    if not identity.is_floor_wide:
        # Models watch every tenant's devices; whose data and whose run made one is not a tenant's business.
        versions, trials = [_for_tenants(version) for version in versions], []
    gates = asdict(load_section(PromotionSettings))
    return {"live": live, "versions": versions, "trials": trials, "settings": gates}


@router.get("/journal")
async def read_journal(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], limit: Limit = 50
) -> dict[str, Any]:
    """Return the last moves of all aliases, newest first; with who and why for who works floor-wide."""
    moves = await asyncio.to_thread(journal, deps_of(request).engine, limit)
    items = [asdict(move) | {"at": iso(move.at)} for move in moves]
    return {"items": items if identity.is_floor_wide else [_for_tenants(item) for item in items]}


@router.get("/of-alert/{alert_id}")
async def get_alerts_model(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], alert_id: Id
) -> dict[str, Any]:
    """Return where an alert's judgement comes from: ``alert`` and ``model``, null when no trained version made it."""
    deps = deps_of(request)
    detail = await asyncio.to_thread(AlertStore(deps.engine, SystemClock()).get, alert_id, tenant_of(identity))
    alert = detail.alert
    model: dict[str, Any] | None = None
    if alert.model in model_types() and alert.model_version:
        try:
            model = await asyncio.to_thread(_read_lineage, deps, alert.model, alert.model_version)
        except (ModelVersionNotFoundError, ModelFileError) as error:
            model = {"model_id": f"{alert.model}@{alert.model_version}", "problem": str(error)}
    seen = {"id": alert.id, "model": alert.model, "model_version": alert.model_version, "verdict": alert.verdict}
    return {"alert": seen, "model": model if model is None or identity.is_floor_wide else _for_tenants(model)}


@router.get("/{model_type}/{version}")
async def get_model(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], model_type: InPath, version: InPath
) -> dict[str, Any]:
    """Return one version: what it was made from and by, its trials, and how its alerts were judged."""
    deps = deps_of(request)
    found = await asyncio.to_thread(_read_lineage, deps, model_type, version)
    return found if identity.is_floor_wide else _for_tenants(found)


@router.get("/{model_type}/versions/{version}/report")
async def get_report(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    model_type: InPath,
    version: InPath,
    dataset: Reference = None,
) -> Response:
    """Return a version's report: the one on a data set, or the newest that the caller may see."""
    deps = deps_of(request)
    reference = f"{model_type}:{version}"
    report = await asyncio.to_thread(_read_report, deps, reference, dataset or "", tenant_of(identity))
    if not identity.is_floor_wide:
        report.pop("created_by", None)  # people of the floor are not a tenant's business
    return json_answer(report)


@router.post("/{model_type}/versions/{version}/report", status_code=201)
async def make_report(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.ENGINEER))],
    model_type: InPath,
    version: InPath,
    body: ReportBody,
) -> dict[str, Any]:
    """Judge a version on a data set: put ``evaluate_model`` into its lane; with the same ``request_id`` once only."""
    deps = deps_of(request)
    arguments = {
        # By its name: what champion means may have changed when the run begins.
        "model_id": (await asyncio.to_thread(_find_version, deps, f"{model_type}:{version}")).model_id,
        "dataset_id": body.dataset_id,
        "false_alarms_per_day": body.false_alarms_per_day,
    }
    request_id = body.request_id or new_id()
    wanted = await asyncio.to_thread(evaluation_request, arguments, identity, request_id, deps.engine)
    return run_to_json(await submit(deps.run_queue, wanted))


@router.post("/promote")
async def promote_model(
    request: Request, identity: Annotated[Identity, Depends(require(Role.ENGINEER))], body: PromoteBody
) -> dict[str, Any]:
    """Make a version champion by hand; the detectors use it within a second."""
    _check_floor_wide(identity)
    deps = deps_of(request)
    registry = ModelRegistry(Storage(deps.settings.storage_url))
    if body.model_type not in model_types():
        installed = ", ".join(model_types())
        raise HTTPException(422, f"no model type {body.model_type!r} is installed, only {installed}")
    manifest = await asyncio.to_thread(registry.manifest, body.model_type, body.version)
    audit.record(request, identity, "model promote", model_id=manifest.model_id, reason=body.reason)
    return await _move(deps, identity, manifest, registry.uri(manifest), body.expected_revision, body.reason)


@router.post("/rollback")
async def roll_back_model(
    request: Request, identity: Annotated[Identity, Depends(require(Role.ENGINEER))], body: RollbackBody
) -> dict[str, Any]:
    """Go back to the version before the champion."""
    _check_floor_wide(identity)
    deps = deps_of(request)
    previous = await asyncio.to_thread(_read_alias, deps, PREVIOUS)
    if previous is None:
        raise HTTPException(409, "there is no version before the champion")
    manifest = await asyncio.to_thread(read_manifest, previous.uri)
    audit.record(request, identity, "model rollback", model_id=manifest.model_id, reason=body.reason)
    return await _move(
        deps, identity, manifest, previous.uri, body.expected_revision, f"rolled back by hand: {body.reason}"
    )


async def _move(
    deps: GatewayDeps, identity: Identity, manifest: Manifest, uri: str, expected_revision: int, reason: str
) -> dict[str, Any]:
    live = await asyncio.to_thread(
        promote,
        deps.engine,
        manifest,
        uri,
        reason=reason,
        at=time.time(),
        expected_revision=expected_revision,
        user_id=identity.user_id,
    )
    told = model_update(manifest, alias=CHAMPION, revision=live.revision, decision="promoted", reason=reason)
    data = encode(MessageType.MODEL_UPDATE, told, Priority.HIGH, SystemClock())
    try:
        key = f"model-{live.alias}-{live.revision}"
        await deps.hub.publish([Draft(names.CHANNEL_NOC, data, Priority.HIGH, key)], TELL_TIMEOUT_S)
    except HubUnavailableError:
        pass  # the alias has moved; pages read it with their next look
    return _live_to_json(live)


def _check_floor_wide(identity: Identity) -> None:
    if not identity.is_floor_wide:
        raise HTTPException(403, "models judge every tenant's devices: only who works floor-wide may do this")


def _for_tenants(version: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in version.items() if name in SEEN_BY_TENANTS}


def _read_lineage(deps: GatewayDeps, model_type: str, version: str) -> dict[str, Any]:
    manifest = ModelRegistry(Storage(deps.settings.storage_url)).manifest(model_type, version)
    with read_transaction(deps.engine) as connection:
        return lineage.of_version(connection, manifest)


def _find_version(deps: GatewayDeps, reference: str) -> Manifest:
    return find_version(ModelRegistry(Storage(deps.settings.storage_url)), deps.engine, reference)


def _read_report(deps: GatewayDeps, reference: str, dataset: str, tenant: str | None) -> dict[str, Any]:
    """Return a report on what ``tenant`` may see; on the rest there is none."""
    manifest = _find_version(deps, reference)
    storage = Storage(deps.settings.storage_url)
    if tenant is None and not dataset:
        return read_report(storage, manifest.model_type, manifest.version)
    judged_on = [dataset] if dataset else list_reports(storage, manifest.model_type, manifest.version)
    for one in judged_on:
        try:
            found = catalogue.resolve(deps.engine, one)
        except UnknownDatasetError:
            continue
        if catalogue.is_visible(found, tenant):
            return read_report(storage, manifest.model_type, manifest.version, found.id)
    raise ReportNotFoundError(manifest.model_type, manifest.version, "")


def _read_alias(deps: GatewayDeps, alias: str) -> LiveModel | None:
    with read_transaction(deps.engine) as connection:
        return read_live_model(connection, alias)


def _read_live(deps: GatewayDeps) -> list[dict[str, Any]]:
    with read_transaction(deps.engine) as connection:
        rows = [LiveModel(**row._mapping) for row in connection.execute(select(live_models))]
    return [_live_to_json(row) for row in sorted(rows, key=lambda row: row.alias)]


def _live_to_json(row: LiveModel) -> dict[str, Any]:
    return {
        "alias": row.alias,
        "model": row.scorer,
        "version": row.version,
        "revision": row.revision,
        "updated_at": iso(row.updated_at),
    }


def _read_trials(deps: GatewayDeps) -> list[dict[str, Any]]:
    with read_transaction(deps.engine) as connection:
        return [lineage.trial_to_json(trial) for trial in list_trials(connection, TRIALS_SHOWN)]


def _read_versions(deps: GatewayDeps, limit: int) -> list[dict[str, Any]]:
    registry = ModelRegistry(Storage(deps.settings.storage_url))
    found = [(version, model) for model in model_types() for version in registry.versions(model)]
    versions: list[dict[str, Any]] = []
    for version, model in sorted(found, reverse=True)[:limit]:
        try:
            versions.append(dict(describe(registry.manifest(model, version))))
        except ModelFileError as error:
            versions.append({"model_id": f"{model}@{version}", "problem": str(error)})
    return versions
