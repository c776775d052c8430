"""Data sets over HTTP: which versions there are, and what one is made of.

The list is ``training.data.catalogue``'s; making one is the command line's. Invariant: a version that
holds readings of others than the caller's tenant is not found, as one that was never made.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request

from serve_apps.api.border import ApiRoute, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of
from training.data import catalogue
from training.datasets import DatasetShelf
from training.errors import UnknownDatasetError
from training.registry.storage import Storage

router = APIRouter(prefix="/api/v1/datasets", route_class=ApiRoute)

OF_THE_FLOOR = frozenset({"created_by", "people"})
"""People of the floor are not a tenant's business."""

Name = Annotated[str | None, Query(pattern=r"^[!-~]{1,192}$")]
Reference = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,191}$")]
Before = Annotated[float | None, Query(ge=0, le=1e11)]


@router.get("")
async def list_datasets(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    name: Name = None,
    before: Before = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return versions of data sets, newest first; ``before`` a time, those made earlier."""
    tenant = tenant_of(identity)
    found = await asyncio.to_thread(
        catalogue.list_versions, deps_of(request).engine, limit, name=name, tenant=tenant, before=before
    )
    return {"items": [_shown(dict(catalogue.to_json(one)), identity) for one in found]}


@router.get("/{reference}")
async def get_dataset(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))], reference: Reference
) -> dict[str, Any]:
    """Return one version, by ``NAME``, ``NAME:VERSION`` or id: its series, its split, its labels and who gave them."""
    document = await asyncio.to_thread(_describe, deps_of(request), reference, tenant_of(identity))
    if document is None:
        raise HTTPException(404, f"no data set {reference!r}")
    return _shown(document, identity)


def _describe(deps: GatewayDeps, reference: str, tenant: str | None) -> dict[str, Any] | None:
    try:
        version = catalogue.resolve(deps.engine, reference)
    except UnknownDatasetError:
        return None  # its text would name the data sets of others
    if not catalogue.is_visible(version, tenant):
        return None
    return DatasetShelf(Storage(deps.settings.storage_url), deps.engine).describe(version)


def _shown(document: dict[str, Any], identity: Identity) -> dict[str, Any]:
    if identity.is_floor_wide:
        return document
    return {name: value for name, value in document.items() if name not in OF_THE_FLOOR}
