"""Who is there: births and last wills as devices announce them, and silence where nobody announced anything.

A table and the rules around it; ``directory.py`` holds the presence itself. Invariants: a
device that goes away, by its will or by its silence, leaves its firing alerts stale, never
resolved; a device that was silent is back as soon as it is heard of, one that said goodbye
only by a new birth; repeating any of this changes nothing.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    String,
    Table,
    and_,
    delete,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from cluster.store import in_write, metadata, read_transaction
from ingest.alerts.engine import AlertEngine
from ingest.directory import DeviceDirectory, DeviceKey, devices
from ingest.payload import StateChange

logger = logging.getLogger(__name__)

CHUNK = 500
"""Devices of one statement: far below SQLite's limit of bound parameters."""
SAID_GOODBYE = "the device is offline"

silent_devices = Table(
    "silent_devices",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("since", Float, nullable=False),
)
"""Devices that are offline because nothing was heard of them; ``since``: when that was noticed."""

_key = tuple_(devices.c.tenant, devices.c.device)
_silent_key = tuple_(silent_devices.c.tenant, silent_devices.c.device)


class Presence:
    """Presence in the SQL store, and what follows from it for alerts."""

    def __init__(self, engine: Engine, alerts: AlertEngine, directory: DeviceDirectory | None = None) -> None:
        self._engine = engine
        self._directory = directory or DeviceDirectory(engine)
        self._alerts = alerts

    def announce(self, states: Sequence[StateChange]) -> int:
        """Take what devices, or the broker in their name, said; return how many alert events that made.

        A retained birth is no news of a silent device: the broker repeats it at every subscription.
        """
        last = {(state.tenant, state.device): state for state in states}
        silent = self._silent()
        events = 0
        for (tenant, device), state in last.items():
            if not state.online:
                events += len(self._alerts.mark_stale(tenant, device, SAID_GOODBYE))
        news = {key: state.online for key, state in last.items() if not (state.is_retained and key in silent)}
        self._directory.set_online(news)
        self._forget([key for key in news if key in silent])
        return events

    def heard(self, keys: Collection[DeviceKey]) -> list[DeviceKey]:
        """Note that devices sent something; return those that had been silent and are back."""
        back = sorted(self._silent().intersection(keys))
        for part in _parts(back):
            in_write(self._engine, partial(_wake, part=part))
        return back

    def fell_silent(self, before: float, now: float, reason: str) -> tuple[list[DeviceKey], int]:
        """Declare devices offline that were last heard of before ``before``.

        Args:
            before, now: seconds since the epoch.
            reason: for the history of their alerts.

        Returns:
            The devices, at most ``CHUNK`` of them, and the number of alert events that made.
        """
        is_silent = and_(devices.c.last_seen_at < before, or_(devices.c.online.is_(None), devices.c.online.is_(True)))
        with read_transaction(self._engine) as connection:
            query = select(devices.c.tenant, devices.c.device).where(is_silent).limit(CHUNK)
            found: list[DeviceKey] = [(row.tenant, row.device) for row in connection.execute(query)]
        if not found:
            return [], 0
        # First the alerts: after a crash in between this is found again, and done again to no effect.
        events = sum(len(self._alerts.mark_stale(tenant, device, reason)) for tenant, device in found)
        rows = [{"tenant": tenant, "device": device, "since": now} for tenant, device in found]

        def write(connection: Connection) -> None:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            connection.execute(insert(silent_devices).on_conflict_do_nothing(), rows)
            # Who spoke in this moment stays.
            connection.execute(update(devices).where(_key.in_(found), is_silent).values(online=False))

        in_write(self._engine, write)
        return found, events

    def _silent(self) -> set[DeviceKey]:
        with read_transaction(self._engine) as connection:
            return {(row.tenant, row.device) for row in connection.execute(select(silent_devices))}

    def _forget(self, keys: Sequence[DeviceKey]) -> None:
        def write(connection: Connection) -> None:
            for part in _parts(keys):
                connection.execute(delete(silent_devices).where(_silent_key.in_(part)))

        if keys:
            in_write(self._engine, write)


def _wake(connection: Connection, part: Sequence[DeviceKey]) -> None:
    connection.execute(update(devices).where(_key.in_(part)).values(online=True))
    connection.execute(delete(silent_devices).where(_silent_key.in_(part)))


def _parts(keys: Sequence[DeviceKey]) -> Iterable[Sequence[DeviceKey]]:
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))
