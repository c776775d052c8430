"""Entries of the directory as rows of SQL: which column holds which field, in both directions.

Within a transaction of the caller's; decides nothing. Invariant: a device that was merely seen
is no entry of the directory, although it has a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, and_, insert, select, tuple_, update

from ingest.alerts.model import iso
from ingest.directory import DeviceEntry, devices, register
from ingest.directory_entry import Entry, Key, Kind, to_json
from ingest.directory_tables import clients, tenants, users

CHUNK = 400
"""Keys of one IN list: two values each, far below SQLite's limit of bound parameters."""

TABLES: dict[Kind, Table] = {Kind.TENANT: tenants, Kind.CLIENT: clients, Kind.USER: users, Kind.DEVICE: devices}
COLUMNS: dict[Kind, dict[str, Column[Any]]] = {
    Kind.TENANT: {"id": tenants.c.id, "name": tenants.c.name},
    Kind.CLIENT: {"tenant": clients.c.tenant, "id": clients.c.id, "name": clients.c.name},
    Kind.USER: {
        "tenant": users.c.tenant,
        "id": users.c.id,
        "name": users.c.name,
        "role": users.c.role,
        "client": users.c.client_id,
        "disabled": users.c.disabled,
    },
    Kind.DEVICE: {
        "tenant": devices.c.tenant,
        "id": devices.c.device,
        "name": devices.c.name,
        "client": devices.c.client_id,
        "site": devices.c.site,
        "supervisor": devices.c.supervisor_id,
        "type": devices.c.type,
    },
}


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry with what the floor knows besides."""

    entry: Entry
    updated_at: float | None
    """When a person last wrote it, seconds since the epoch; None: nobody did."""
    updated_by: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    """Of a device: known, online, first_seen_at, last_seen_at, and the names of its client and supervisor."""


def listed_to_json(one: Listed) -> dict[str, Any]:
    """Return an entry and its facts as the API and the command line show them."""
    facts = {name: iso(value) if name.endswith("_at") else value for name, value in one.facts.items()}
    return to_json(one.entry) | facts | {"updated_at": iso(one.updated_at), "updated_by": one.updated_by}


def selected(kind: Kind) -> Select[Any]:
    """Return the query of the rows of a kind, for ``listed``."""
    table = TABLES[kind]
    columns: list[ColumnElement[Any]] = [column.label(name) for name, column in COLUMNS[kind].items()]
    columns += [table.c.updated_at, table.c.updated_by]
    if kind is not Kind.DEVICE:
        return select(*columns)
    facts = [devices.c[name] for name in ("known", "online", "first_seen_at", "last_seen_at")]
    names = [clients.c.name.label("client_name"), users.c.name.label("supervisor_name")]
    of_client = and_(clients.c.tenant == devices.c.tenant, clients.c.id == devices.c.client_id)
    return (
        select(*columns, *facts, *names)
        .outerjoin(clients, of_client)
        .outerjoin(users, users.c.id == devices.c.supervisor_id)
    )


def listed(kind: Kind, row: Any) -> Listed:
    """Return what a row of ``selected`` says."""
    own = {name: row[name] for name in COLUMNS[kind]}
    facts = ("known", "online", "first_seen_at", "last_seen_at", "client_name", "supervisor_name")
    return Listed(
        Entry(kind=kind, **own),
        row["updated_at"],
        row["updated_by"],
        {name: row[name] for name in facts} if kind is Kind.DEVICE else {},
    )


def existing(connection: Connection, kind: Kind, keys: Sequence[Key]) -> dict[Key, Entry]:
    """Return what is registered under these keys; a device that was merely seen is not."""
    found: dict[Key, Entry] = {}
    columns = COLUMNS[kind]
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        if kind.has_tenant_key:
            is_wanted = tuple_(columns["tenant"], columns["id"]).in_(part)
        else:
            is_wanted = columns["id"].in_([identifier for _, identifier in part])
        query = select(*(column.label(name) for name, column in columns.items())).where(is_wanted)
        if kind is Kind.DEVICE:
            query = query.where(devices.c.known.is_(True))
        for row in connection.execute(query):
            entry = Entry(kind=kind, **row._mapping)
            found[entry.key] = entry
    return found


def moved(before: Entry | None, after: Entry) -> str:
    """Return why a change is refused that would take a user to another tenant; empty: it would not.

    Who hears of a device's alerts was checked against the tenant that the user had then.
    """
    if before is None or after.kind is not Kind.USER or before.tenant == after.tenant:
        return ""
    home = f"to tenant {before.tenant}" if before.tenant is not None else "to no tenant"
    return f"{after.title} belongs {home}: remove it there before it can belong elsewhere"


def missing(connection: Connection, wanted: set[tuple[Kind, Key]]) -> set[tuple[Kind, Key]]:
    """Return those of the wanted entries that are not there."""
    left = set(wanted)
    for kind in {kind for kind, _ in wanted}:
        keys = [key for one, key in wanted if one is kind]
        known = existing(connection, kind, keys)
        for key in keys:
            # A user is known by the id alone; the tenant says for whom they must be there.
            entry = known.get((None, key[1]) if kind is Kind.USER else key)
            if entry is not None and (kind is not Kind.USER or entry.tenant in {None, key[0]}):
                left.discard((kind, key))
    return left


def write(connection: Connection, kind: Kind, entries: Sequence[Entry], user_id: str, at: float) -> None:
    """Write entries of one kind that differ from what is there; a device becomes known by it."""
    known = existing(connection, kind, [entry.key for entry in entries])
    changed = [entry for entry in entries if known.get(entry.key) != entry]
    if kind is Kind.DEVICE:
        register(connection, [_device_entry(entry) for entry in changed], at, user_id)
        return
    table, columns = TABLES[kind], COLUMNS[kind]
    stamp = {"updated_at": at, "updated_by": user_id}
    rows = [{column.name: getattr(entry, name) for name, column in columns.items()} | stamp for entry in changed]
    new = [row for row, entry in zip(rows, changed, strict=True) if entry.key not in known]
    if new:
        connection.execute(insert(table), new)
    for row, entry in zip(rows, changed, strict=True):
        if entry.key in known:
            connection.execute(update(table).where(is_entry(kind, entry.key)).values(row))


def _device_entry(entry: Entry) -> DeviceEntry:
    assert entry.tenant is not None
    return DeviceEntry(
        tenant=entry.tenant,
        device=entry.id,
        client_id=entry.client,
        site=entry.site,
        supervisor_id=entry.supervisor,
        name=entry.name,
        type=entry.type,
    )


def key_columns(kind: Kind) -> tuple[ColumnElement[Any], ...]:
    """Return the columns of a kind's key, in the order of its pages."""
    columns = COLUMNS[kind]
    return (columns["tenant"], columns["id"]) if kind.has_tenant_key else (columns["id"],)


def is_entry(kind: Kind, key: Key) -> ColumnElement[bool]:
    """Return the condition that a row is this entry's."""
    tenant, identifier = key
    columns = COLUMNS[kind]
    is_id = columns["id"] == identifier
    return and_(columns["tenant"] == tenant, is_id) if kind.has_tenant_key else is_id
