"""The device directory: whose device it is, where it stands, whether it is there now.

A table and its reads and writes; who calls when is the ingest actor's business. Invariant:
a device that sends is in the table -- one that nobody registered is accepted, marked
``known = false`` and keeps that mark until a CSV or an API names it.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Boolean, Column, Connection, Engine, Float, String, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.store import in_write, metadata, read_transaction
from ingest.topics import is_level

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
)
"""``online`` is null for a device that never said; times are seconds since the epoch."""

DeviceKey = tuple[str, str]

COLUMNS = ("tenant", "device", "client_id", "site", "supervisor_id")


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """What a person registers about a device."""

    tenant: str
    device: str
    client_id: str | None = None
    site: str | None = None
    supervisor_id: str | None = None


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


class DeviceDirectory:
    """The directory in the SQL store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, entries: Sequence[DeviceEntry]) -> int:
        """Write what is registered about devices, replacing what was; return how many."""
        rows = [
            {
                "tenant": entry.tenant,
                "device": entry.device,
                "client_id": entry.client_id,
                "site": entry.site,
                "supervisor_id": entry.supervisor_id,
                "known": True,
            }
            for entry in entries
        ]

        def write(connection: Connection) -> None:
            _upsert(connection, rows, replaced=("client_id", "site", "supervisor_id", "known"))

        in_write(self._engine, write)
        return len(rows)

    def saw(self, last_seen_at: Mapping[DeviceKey, float]) -> None:
        """Note when devices were last heard of; new ones enter the table unmarked as known."""
        rows = [
            {"tenant": tenant, "device": device, "first_seen_at": at, "last_seen_at": at, "known": False}
            for (tenant, device), at in sorted(last_seen_at.items())
        ]

        def write(connection: Connection) -> None:
            _upsert(connection, rows, replaced=("last_seen_at",))
            # A registered device that never sent has no first time yet.
            connection.execute(
                update(devices)
                .where(devices.c.first_seen_at.is_(None), devices.c.last_seen_at.is_not(None))
                .values(first_seen_at=devices.c.last_seen_at)
            )

        in_write(self._engine, write)

    def set_online(self, states: Mapping[DeviceKey, bool]) -> None:
        """Note the presence that devices, or the broker in their name, have published."""
        rows = [
            {"tenant": tenant, "device": device, "online": online, "known": False}
            for (tenant, device), online in sorted(states.items())
        ]

        def write(connection: Connection) -> None:
            _upsert(connection, rows, replaced=("online",))

        in_write(self._engine, write)

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


def read_entries(path: Path) -> list[DeviceEntry]:
    """Read devices from a CSV with the columns tenant, device, client_id, site, supervisor_id.

    The last three may be missing or empty.

    Raises:
        ValueError: a column is missing or unknown, or a row names no valid device; the text
            gives the row.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        header = set(reader.fieldnames or ())
        if not {"tenant", "device"} <= header or header - set(COLUMNS):
            raise ValueError(f"{path.name}: columns must be {', '.join(COLUMNS)}; got {', '.join(sorted(header))}")
        entries = []
        for number, row in enumerate(reader, start=2):
            if None in row:  # csv's key for cells beyond the header
                raise ValueError(f"{path.name}, row {number}: more cells than columns")
            if not is_level(row["tenant"] or "") or not is_level(row["device"] or ""):
                raise ValueError(f"{path.name}, row {number}: tenant and device must be 1-64 of [A-Za-z0-9_-]")
            entries.append(DeviceEntry(**{name: (row.get(name) or "").strip() or None for name in COLUMNS}))  # type: ignore[arg-type]
    return entries


def _upsert(connection: Connection, rows: Sequence[Mapping[str, object]], replaced: Sequence[str]) -> None:
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
