"""Devices over HTTP: the directory, and a device's recent readings.

Invariant: a device of a foreign tenant is not found.
"""

import asyncio
import dataclasses
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from ingest.alerts.model import iso
from ingest.directory import Device, DeviceDirectory
from ingest.payload import Reading
from ingest.telemetry_redis import TelemetryStream
from serve_apps.api.border import ApiRoute, Level, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/devices", route_class=ApiRoute)

MAX_DEVICES = 10_000
SCANNED_READINGS = 20_000
"""Newest readings of the stream, of all devices, among which a device's own are looked for."""


@router.get("")
async def list_devices(
    request: Request, identity: Annotated[Identity, Depends(require(Role.VIEWER))]
) -> dict[str, list[dict[str, Any]]]:
    """Return the directory by tenant and name; ``online`` is null for a device that never said."""
    directory = DeviceDirectory(deps_of(request).engine)
    devices = await asyncio.to_thread(directory.list, tenant_of(identity), MAX_DEVICES)
    return {"items": [_to_json(device) for device in devices]}


@router.get("/{tenant}/{device}/telemetry")
async def telemetry(
    request: Request,
    identity: Annotated[Identity, Depends(require(Role.VIEWER))],
    tenant: Level,
    device: Level,
    metric: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    limit: Limit = 300,
) -> dict[str, Any]:
    """Return the newest readings that are still in the stream, oldest first: ``[ts, value, recorded_at]``."""
    deps = deps_of(request)
    own = tenant_of(identity)
    is_foreign = own is not None and own != tenant
    if is_foreign or await asyncio.to_thread(DeviceDirectory(deps.engine).get, tenant, device) is None:
        raise HTTPException(404, f"there is no device {tenant}/{device}")
    stored = await asyncio.to_thread(_stream(deps.settings.redis_url).history, SCANNED_READINGS)
    readings = [one.reading for one in stored if (one.reading.tenant, one.reading.device) == (tenant, device)]
    return {"tenant": tenant, "device": device, "metrics": _by_metric(readings, metric, limit)}


@lru_cache(maxsize=1)
def _stream(redis_url: str) -> TelemetryStream:
    # One pool of connections a replica; redis-py's is safe for the threads that use it.
    return TelemetryStream.open(redis_url)


def _by_metric(readings: list[Reading], metric: str | None, limit: int) -> dict[str, list[list[Any]]]:
    metrics: dict[str, list[list[Any]]] = {}
    for reading in sorted(readings, key=lambda one: one.ts):
        for name, value in reading.values.items():
            if metric is None or name == metric:
                metrics.setdefault(name, []).append([reading.ts, value, reading.recorded_at])
    return {name: points[-limit:] for name, points in metrics.items()}


def _to_json(device: Device) -> dict[str, Any]:
    row = dataclasses.asdict(device)
    return row | {name: iso(row[name]) for name in ("first_seen_at", "last_seen_at", "updated_at")}
