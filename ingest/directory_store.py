"""The directory in the SQL store: pages and single entries out, entries in.

Invariants: a change is one transaction and adds nothing that speaks of a tenant, client or
user that is not there; an entry written again as it was changes nothing, not even its time.
Who may do what is asked elsewhere. Synchronous: call it off the event loop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select

from cluster.clock import Clock
from cluster.store import in_write, read_transaction
from ingest.directory import devices
from ingest.directory_entry import Entry, Key, Kind, checked, references, title_of
from ingest.directory_rows import (
    COLUMNS,
    TABLES,
    Listed,
    existing,
    is_entry,
    key_columns,
    listed,
    missing,
    moved,
    selected,
    write,
)
from ingest.directory_tables import clients, users
from ingest.errors import DirectoryConflictError, DirectoryNotFoundError, DirectoryReferenceError


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryQuery:
    """Which entries of a kind are wanted; None leaves a side open."""

    kind: Kind
    tenant: str | None = None
    search: str | None = None
    """Part of an id, a name, a site or a type, in small or large letters."""
    client: str | None = None
    known: bool | None = None
    """Of devices: whether somebody registered them."""
    after: Key | None = None
    """Key of the last entry of the page before."""
    limit: int = 100


class DirectoryStore:
    """The directory of one floor."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def page(self, query: DirectoryQuery) -> tuple[Listed, ...]:
        """Return entries in the order of their keys."""
        columns = COLUMNS[query.kind]
        conditions = [columns["tenant"] == query.tenant] if query.tenant is not None and "tenant" in columns else []
        if query.kind is Kind.TENANT and query.tenant is not None:
            conditions.append(columns["id"] == query.tenant)
        if query.client is not None and "client" in columns:
            conditions.append(columns["client"] == query.client)
        if query.known is not None and query.kind is Kind.DEVICE:
            conditions.append(devices.c.known.is_(query.known))
        if query.search:
            searched = [columns[name] for name in ("id", "name", "site", "type") if name in columns]
            conditions.append(or_(*(column.icontains(query.search, autoescape=True) for column in searched)))
        keys = key_columns(query.kind)
        if query.after is not None:
            tenant, identifier = query.after
            is_after = columns["id"] > identifier
            if len(keys) > 1:
                is_after = or_(keys[0] > tenant, and_(keys[0] == tenant, is_after))
            conditions.append(is_after)
        statement = selected(query.kind).where(*conditions).order_by(*keys).limit(query.limit)
        with read_transaction(self._engine) as connection:
            return tuple(listed(query.kind, row._mapping) for row in connection.execute(statement))

    def get(self, kind: Kind, key: Key) -> Listed:
        """Return one entry.

        Raises:
            DirectoryNotFoundError: there is none.
        """
        with read_transaction(self._engine) as connection:
            row = connection.execute(selected(kind).where(is_entry(kind, key))).one_or_none()
        if row is None:
            raise DirectoryNotFoundError(title_of(kind, key))
        return listed(kind, row._mapping)

    def put(self, entry: Entry, user_id: str) -> bool:
        """Write one checked entry in place of what was; return whether it is new. A device becomes known by it.

        Raises:
            DirectoryReferenceError: it speaks of something that is not there.
            DirectoryConflictError: a user belongs to another tenant.
        """

        def step(connection: Connection) -> bool:
            before = existing(connection, entry.kind, [entry.key]).get(entry.key)
            _check(connection, before, entry, references(entry))
            write(connection, entry.kind, [entry], user_id, self._clock.time_s())
            return before is None

        return in_write(self._engine, step)

    def patch(self, kind: Kind, key: Key, changes: Mapping[str, Any], user_id: str) -> None:
        """Write some fields of an entry; also of a device that was merely seen, which is known from then on.

        Raises:
            DirectoryNotFoundError: there is none.
            DirectoryReferenceError: a change speaks of something that is not there.
            ValueError: a change has a form that cannot be used.
        """

        def step(connection: Connection) -> None:
            row = connection.execute(selected(kind).where(is_entry(kind, key))).one_or_none()
            if row is None:
                raise DirectoryNotFoundError(title_of(kind, key))
            before = listed(kind, row._mapping).entry
            after = checked(replace(before, **changes))
            # What it said before need not be true any more to change something else.
            _check(connection, before, after, set(references(after)) - set(references(before)))
            write(connection, kind, [after], user_id, self._clock.time_s())

        in_write(self._engine, step)

    def delete(self, kind: Kind, key: Key) -> None:
        """Remove one entry; a device that sends again comes back as an unknown one.

        Raises:
            DirectoryNotFoundError: there is none.
            DirectoryConflictError: other entries speak of it.
        """

        def step(connection: Connection) -> None:
            if connection.execute(delete(TABLES[kind]).where(is_entry(kind, key))).rowcount == 0:
                raise DirectoryNotFoundError(title_of(kind, key))
            used = _users_of(connection, kind, key)
            if used:
                title = title_of(kind, key)
                raise DirectoryConflictError(title, f"{title} is in use: {used}")

        in_write(self._engine, step)

    def entries(self, tenant: str | None = None) -> Iterable[Entry]:
        """Yield everything that was registered, kind by kind; of devices only those that are known."""
        for kind in Kind:
            after: Key | None = None
            while True:
                query = DirectoryQuery(kind=kind, tenant=tenant, known=True, after=after, limit=1000)
                page = self.page(query)
                yield from (one.entry for one in page)
                if not page:
                    break
                after = page[-1].entry.key

    def disabled_users(self) -> frozenset[tuple[str, str | None]]:
        """Return id and tenant of users who may not come in."""
        query = select(users.c.id, users.c.tenant).where(users.c.disabled.is_(True))
        with read_transaction(self._engine) as connection:
            return frozenset((row.id, row.tenant) for row in connection.execute(query))


def _check(connection: Connection, before: Entry | None, after: Entry, spoken_of: Iterable[tuple[Kind, Key]]) -> None:
    if moved(before, after):
        raise DirectoryConflictError(after.title, moved(before, after))
    gone = missing(connection, set(spoken_of))
    if gone:
        raise DirectoryReferenceError(after.title, title_of(*min(gone, key=str)))


def _users_of(connection: Connection, kind: Kind, key: Key) -> str:
    """Return who speaks of an entry, in words; empty: nobody."""
    tenant, identifier = key
    match kind:
        case Kind.TENANT:
            asked = {
                "clients": (clients, clients.c.tenant == identifier),
                "users": (users, users.c.tenant == identifier),
                "devices": (devices, and_(devices.c.tenant == identifier, devices.c.known.is_(True))),
            }
        case Kind.CLIENT:
            asked = {
                "users": (users, and_(users.c.tenant == tenant, users.c.client_id == identifier)),
                "devices": (devices, and_(devices.c.tenant == tenant, devices.c.client_id == identifier)),
            }
        case Kind.USER:
            asked = {"devices": (devices, devices.c.supervisor_id == identifier)}
        case _:
            asked = {}
    counts = {
        name: connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
        for name, (table, condition) in asked.items()
    }
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)
