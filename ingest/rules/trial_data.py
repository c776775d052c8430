"""Readings of the past for a dry run: recorded series that ship with the floor, or the floor's archive.

Reads files, judges nothing. Invariant: readings come back in the order of their arrival.
"""

import time
from collections.abc import Sequence
from datetime import datetime

from ingest.archive import read_telemetry
from ingest.payload import Reading
from ingest.recorded import load_series, series_names
from ingest.topics import is_level

RECORDED_TENANT = "demo"
RECORDED_METRIC = "value"
"""As the demo's devices send them."""
DAY_S = 86_400.0


def readings_of(source: str, storage_url: str, days: float) -> tuple[list[Reading], float | None]:
    """Return the readings that ``source`` names, and until when there would have been more (None: not known).

    Args:
        source: ``recorded`` (all), ``recorded:SERIES``, ``archive`` (all), ``archive:TENANT`` or
            ``archive:TENANT/DEVICE``.
        storage_url: where the archive lies.
        days: how far back an archive is read.

    Raises:
        ValueError: it names nothing.
    """
    kind, _, name = source.partition(":")
    if kind == "recorded":
        names = [name] if name else series_names()
        return _in_order([reading for one in names for reading in _recorded(one)]), None
    if kind == "archive":
        tenant, _, device = name.partition("/")
        if any(part and not is_level(part) for part in (tenant, device)):
            raise ValueError(f"an archive is named archive, archive:TENANT or archive:TENANT/DEVICE, got {source!r}")
        found = _in_order(_archived(storage_url, tenant, device, days))
        # Not now: what arrived since the last file was written is missing from all devices alike.
        return found, found[-1].received_at if found else None
    raise ValueError(f"data are named recorded, recorded:SERIES, archive or archive:TENANT/DEVICE, got {source!r}")


def _in_order(readings: list[Reading]) -> list[Reading]:
    readings.sort(key=lambda reading: reading.received_at)
    return readings


def _recorded(name: str) -> Sequence[Reading]:
    series = load_series(name)
    found = []
    for seq, (at, value) in enumerate(series.points):
        ts = datetime.fromisoformat(at).timestamp()
        found.append(Reading(RECORDED_TENANT, series.device, "recorded", seq, ts, {RECORDED_METRIC: value}, at, ts))
    return found


def _archived(storage_url: str, tenant: str, device: str, days: float) -> list[Reading]:
    since = time.time() - days * DAY_S
    table = read_telemetry(storage_url, tenant=tenant or None, devices=[device] if device else None, since=since)
    names = ("tenant", "device", "boot_id", "seq", "ts", "metric", "value", "recorded_at", "received_at")
    columns = [table.column(name).to_pylist() for name in names]
    return [
        Reading(tenant, device, boot_id or "", seq, ts, {metric: value}, recorded_at, received_at)
        for tenant, device, boot_id, seq, ts, metric, value, recorded_at, received_at in zip(*columns, strict=True)
    ]
