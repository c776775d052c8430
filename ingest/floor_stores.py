"""The stores of a floor, as the watch sees them: what each may hold, how it is measured, what leaves.

Wiring only: the rules are ``store_bounds.py``, the queries stand with their tables.
"""

from sqlalchemy import Engine

from cluster.run_store import RunStore
from ingest.alerts.retention import AlertRetention
from ingest.archive import ArchiveSettings, ArchiveStore
from ingest.command_retention import CommandRetention
from ingest.dead_letter import DeadLetterStore
from ingest.store_bounds import DAY_S, StoreBound, StoreName, StoresSettings, StoreUsage
from ingest.store_watch import BoundedStore
from ingest.telemetry_redis import TelemetryStream


def sql_stores(engine: Engine, settings: StoresSettings) -> list[BoundedStore]:
    """Return the stores that are tables."""
    alerts = AlertRetention(engine)
    commands = CommandRetention(engine)
    letters = DeadLetterStore(engine, source="watch")
    runs = RunStore(engine)

    def bound(limit_bytes: int, days: int) -> StoreBound:
        return _bound(limit_bytes, days, settings)

    return [
        BoundedStore(
            name=StoreName.ALERTS,
            bound=lambda: bound(settings.alerts_bytes, settings.alerts_days),
            usage=alerts.usage,
            expire=alerts.expire,
        ),
        BoundedStore(
            name=StoreName.COMMANDS,
            bound=lambda: bound(settings.commands_bytes, settings.commands_days),
            usage=commands.usage,
            expire=commands.expire,
            shed=commands.shed,
        ),
        BoundedStore(
            name=StoreName.DEAD_LETTERS,
            bound=lambda: bound(settings.dead_letters_bytes, settings.dead_letters_days),
            usage=letters.usage,
            expire=letters.expire,
            shed=letters.shed,
        ),
        BoundedStore(
            name=StoreName.RUNS,
            bound=lambda: bound(settings.runs_bytes, settings.runs_days),
            usage=lambda: StoreUsage(*runs.size()),
            expire=lambda before, rows: runs.forget(rows, ended_before=before),
            shed=runs.forget,
        ),
    ]


def telemetry_stores(
    stream: TelemetryStream, archive: ArchiveStore, kept: ArchiveSettings, settings: StoresSettings
) -> list[BoundedStore]:
    """Return the stream in Valkey and the archive; what leaves them is their owners' business."""

    def memory_bound() -> StoreBound:
        limit_bytes = int(stream.memory()[1] * stream.memory_limit_ratio)
        return StoreBound(limit_bytes=limit_bytes, near_bytes=int(limit_bytes * settings.near_ratio))

    return [
        BoundedStore(name=StoreName.TELEMETRY, bound=memory_bound, usage=lambda: StoreUsage(stream.memory()[0])),
        BoundedStore(
            name=StoreName.ARCHIVE,
            bound=lambda: _bound(kept.max_bytes, kept.max_age_days, settings),
            usage=archive.usage,
        ),
    ]


def _bound(limit_bytes: int, days: int, settings: StoresSettings) -> StoreBound:
    return StoreBound(
        limit_bytes=limit_bytes, near_bytes=int(limit_bytes * settings.near_ratio), max_age_s=days * DAY_S
    )
