"""The device directory: whose device it is, where it stands, whether it is there now.

A table and its reads and writes; who calls when is the ingest actor's business, and what else
the directory holds is in ``directory_store.py``. Invariant: a device that sends is in the
table -- one that nobody registered is accepted, marked ``known = false`` and keeps that mark
until a CSV or the API names it -- unless so many strangers are there already that one more is
not listed; what it sends is stored all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Engine, Float, String, Table, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.store import in_write, metadata, read_transaction

devices = Table(
    "devices",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("client_id", String(64), nullable=True),
    Column("site", String(128), nullable=True),
    Column("supervisor_id", String(64), nullable=True),
    Column("first_seen_at", Float, nullable=True),
    Column("last_seen_at", Float, nullable=True),
    Column("online", Boolean, nullable=True),
    Column("known", Boolean, nullable=False),
    Column("name", String(128), nullable=True),
    Column("type", String(128), nullable=True),
    Column("updated_at", Float, nullable=True),
    Column("updated_by", String(128), nullable=True),
)
"""``online`` is null for a device that never said; times are seconds since the epoch."""

DeviceKey = tuple[str, str]
Row = Mapping[str, Any]
MAX_UNKNOWN = 10_000
"""Devices that nobody registered in the table at once: who may publish can make up names without end."""
CHUNK = 500
"""Devices of one statement: far below SQLite's limit of bound parameters."""
_key = tuple_(devices.c.tenant, devices.c.device)


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """What a person registers about a device."""

    tenant: str
    device: str
    client_id: str | None = None
    site: str | None = None
    supervisor_id: str | None = None
    name: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One row of the directory."""

    tenant: str
    device: str
    client_id: str | None
    site: str | None
    supervisor_id: str | None
    first_seen_at: float | None
    last_seen_at: float | None
    online: bool | None
    known: bool
    name: str | None = None
    type: str | None = None
    updated_at: float | None = None
    """When a person last changed the entry; times of its messages do not count."""
    updated_by: str | None = None


class DeviceDirectory:
    """The directory in the SQL store."""

    def __init__(self, engine: Engine, max_unknown: int = MAX_UNKNOWN) -> None:
        self._engine = engine
        self._max_unknown = max_unknown

    def register(self, entries: Sequence[DeviceEntry]) -> int:
        """Write what is registered about devices, replacing what was; return how many."""
        in_write(self._engine, lambda connection: register(connection, entries))
        return len(entries)

    def saw(self, last_seen_at: Mapping[DeviceKey, float]) -> int:
        """Note when devices were last heard of; new ones enter the table unmarked as known.

        Returns:
            Devices that were left out, because as many strangers as may be are listed.
        """
        rows = [
            {"tenant": tenant, "device": device, "first_seen_at": at, "last_seen_at": at, "known": False}
            for (tenant, device), at in sorted(last_seen_at.items())
        ]

        def write(connection: Connection) -> int:
            listed = self._with_room(connection, rows)
            _upsert(connection, listed, replaced=("last_seen_at",))
            # A registered device that never sent has no first time yet.
            connection.execute(
                update(devices)
                .where(devices.c.first_seen_at.is_(None), devices.c.last_seen_at.is_not(None))
                .values(first_seen_at=devices.c.last_seen_at)
            )
            return len(rows) - len(listed)

        return in_write(self._engine, write)

    def set_online(self, states: Mapping[DeviceKey, bool]) -> int:
        """Note the presence that devices, or the broker in their name, have published; return as ``saw`` does."""
        rows = [
            {"tenant": tenant, "device": device, "online": online, "known": False}
            for (tenant, device), online in sorted(states.items())
        ]

        def write(connection: Connection) -> int:
            listed = self._with_room(connection, rows)
            _upsert(connection, listed, replaced=("online",))
            return len(rows) - len(listed)

        return in_write(self._engine, write)

    def _with_room(self, connection: Connection, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows of devices that are in the table, and of as many others as there is room for."""
        there: set[DeviceKey] = set()
        for start in range(0, len(rows), CHUNK):
            part = [(row["tenant"], row["device"]) for row in rows[start : start + CHUNK]]
            query = select(devices.c.tenant, devices.c.device).where(_key.in_(part))
            there.update((row.tenant, row.device) for row in connection.execute(query))
        if len(there) == len(rows):
            return rows
        unknown = select(func.count()).where(devices.c.known.is_(False))
        room = max(0, self._max_unknown - int(connection.execute(unknown).scalar_one()))
        strangers = [row for row in rows if (row["tenant"], row["device"]) not in there]
        left_out = {(row["tenant"], row["device"]) for row in strangers[room:]}
        return [row for row in rows if (row["tenant"], row["device"]) not in left_out]

    def get(self, tenant: str, device: str) -> Device | None:
        """Return one device, or None."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(
                select(devices).where(devices.c.tenant == tenant, devices.c.device == device)
            ).one_or_none()
        return Device(**row._mapping) if row is not None else None

    def count_online(self) -> int:
        """Number of devices that said they are online."""
        with read_transaction(self._engine) as connection:
            return int(connection.execute(select(func.count()).where(devices.c.online.is_(True))).scalar_one())

    def list(self, tenant: str | None = None, limit: int = 1000) -> tuple[Device, ...]:
        """Return devices by tenant and name; of all tenants when ``tenant`` is None."""
        query = select(devices).order_by(devices.c.tenant, devices.c.device).limit(limit)
        if tenant is not None:
            query = query.where(devices.c.tenant == tenant)
        with read_transaction(self._engine) as connection:
            return tuple(Device(**row._mapping) for row in connection.execute(query))


def register(
    connection: Connection, entries: Sequence[DeviceEntry], at: float | None = None, user_id: str | None = None
) -> None:
    """Write what is registered about devices in a write transaction of the caller's."""
    stamp = {"known": True, "updated_at": at, "updated_by": user_id}
    rows = [asdict(entry) | stamp for entry in entries]
    own = [field.name for field in fields(DeviceEntry) if field.name not in {"tenant", "device"}]
    _upsert(connection, rows, replaced=(*own, *stamp))


def _upsert(connection: Connection, rows: Sequence[Row], replaced: Sequence[str]) -> None:
    if not rows:
        return
    # Both databases speak the same ON CONFLICT; SQLAlchemy has it per dialect only.
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(devices)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant", "device"], set_={name: statement.excluded[name] for name in replaced}
        ),
        list(rows),
    )
