"""Models over HTTP: which version is live, which exist, and what each came from."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select

from cluster.store import read_transaction
from ingest.alerts.model import iso
from ingest.live_models import LiveModel, live_models
from serve_apps.api.border import ApiRoute, Limit
from serve_apps.api.trainings import model_types
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of
from training.errors import ModelFileError
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry, describe

router = APIRouter(prefix="/api/v1/models", route_class=ApiRoute)

SEEN_BY_TENANTS = frozenset({"model_id", "model_type", "version", "created_at", "metrics"})


@router.get("")
async def list_models(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    limit: Limit = 50,
) -> dict[str, Any]:
    """Return the live aliases and the newest versions of every model type."""
    deps = deps_of(request)
    live, versions = await asyncio.gather(
        asyncio.to_thread(_read_live, deps), asyncio.to_thread(_read_versions, deps, limit)
    )
    if not identity.is_floor_wide:
        # Models watch every tenant's devices; whose data and whose run made one is not a tenant's business.
        versions = [{name: value for name, value in version.items() if name in SEEN_BY_TENANTS} for version in versions]
    return {"live": live, "versions": versions}


def _read_live(deps: GatewayDeps) -> list[dict[str, Any]]:
    with read_transaction(deps.engine) as connection:
        rows = [LiveModel(**row._mapping) for row in connection.execute(select(live_models))]
    return [
        {
            "alias": row.alias,
            "model": row.scorer,
            "version": row.version,
            "revision": row.revision,
            "updated_at": iso(row.updated_at),
        }
        for row in sorted(rows, key=lambda row: row.alias)
    ]


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
