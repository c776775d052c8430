"""What the directory holds: tenants, their clients, their users and their devices, in one form.

Pure: a CSV row, an HTTP body and a row of SQL all become an ``Entry``. Invariant: an entry
that ``checked`` returned has only fields of its kind, each of a form that channels, topics
and columns take.
"""

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

MAX_TEXT = 128

_LEVEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# An identity provider's user may be called auth0|7.
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:+-]{0,63}")
_ROLES = frozenset({"viewer", "operator", "engineer", "admin"})


class Kind(StrEnum):
    """Kinds of entries, in the order in which they refer to each other."""

    TENANT = "tenant"
    CLIENT = "client"
    USER = "user"
    DEVICE = "device"

    @property
    def has_tenant_key(self) -> bool:
        """Tell whether an id is unique within its tenant only."""
        return self in {Kind.CLIENT, Kind.DEVICE}


FIELDS: dict[Kind, tuple[str, ...]] = {
    Kind.TENANT: ("name",),
    Kind.CLIENT: ("name",),
    Kind.USER: ("tenant", "name", "role", "client", "disabled"),
    Kind.DEVICE: ("name", "client", "site", "supervisor", "type"),
}
"""Kind -> what can be said of an entry beside its key."""

Key = tuple[str | None, str]
"""(tenant, id); the tenant is None where the id alone is the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry; a field that its kind does not have is None (``disabled``: False)."""

    kind: Kind
    id: str
    tenant: str | None = None
    """Of a user None: works for the whole floor."""
    name: str | None = None
    role: str | None = None
    """What the user is meant to be; what they may do is said by their token."""
    client: str | None = None
    site: str | None = None
    supervisor: str | None = None
    """User who hears of the device's alerts."""
    type: str | None = None
    disabled: bool = False

    @property
    def key(self) -> Key:
        """What names it among those of its kind."""
        return (self.tenant if self.kind.has_tenant_key else None, self.id)

    @property
    def title(self) -> str:
        """Its name for people: ``device acme/pump-7``."""
        return title_of(self.kind, self.key)


COLUMNS = tuple(field.name for field in fields(Entry))


def title_of(kind: Kind, key: Key) -> str:
    """Return how an entry is called in a sentence."""
    tenant, identifier = key
    return f"{kind} {tenant}/{identifier}" if tenant is not None else f"{kind} {identifier}"


def checked(entry: Entry) -> Entry:
    """Return ``entry``.

    Raises:
        ValueError: a field is missing, has a form that cannot be used, or is none of its kind.
    """
    pattern, form = _form_of(entry.kind)
    if not pattern.fullmatch(entry.id):
        raise ValueError(f"the id of a {entry.kind} must be {form}, got {entry.id[:80]!r}")
    if entry.kind.has_tenant_key and entry.tenant is None:
        raise ValueError(f"a {entry.kind} needs a tenant")
    foreign = [name for name in COLUMNS[3:] if name not in FIELDS[entry.kind] and getattr(entry, name)]
    if entry.kind is Kind.TENANT and entry.tenant is not None:
        foreign.insert(0, "tenant")
    if foreign:
        raise ValueError(f"a {entry.kind} has no {', '.join(foreign)}")
    for name, kind in (("tenant", Kind.TENANT), ("client", Kind.CLIENT), ("supervisor", Kind.USER)):
        value = getattr(entry, name)
        pattern, form = _form_of(kind)
        if value is not None and not pattern.fullmatch(value):
            raise ValueError(f"{name} must be {form}, got {value[:80]!r}")
    if entry.role is not None and entry.role not in _ROLES:
        raise ValueError(f"role must be viewer, operator, engineer or admin, got {entry.role[:80]!r}")
    if entry.kind is Kind.USER and entry.client is not None and entry.tenant is None:
        raise ValueError("a user of a client needs that client's tenant")
    for name in ("name", "site", "type"):
        value = getattr(entry, name)
        if value is not None and not (0 < len(value.strip()) == len(value) <= MAX_TEXT and value.isprintable()):
            raise ValueError(f"{name} must have 1-{MAX_TEXT} printable characters, no space at either end")
    return entry


def references(entry: Entry) -> tuple[tuple[Kind, Key], ...]:
    """Return the entries that an entry speaks of and that must exist."""
    found: list[tuple[Kind, Key]] = []
    if entry.tenant is not None:
        found.append((Kind.TENANT, (None, entry.tenant)))
    if entry.client is not None:
        found.append((Kind.CLIENT, (entry.tenant, entry.client)))
    if entry.supervisor is not None:
        # Of the device's tenant, or of none: its alerts must not reach another tenant's people.
        found.append((Kind.USER, (entry.tenant, entry.supervisor)))
    return tuple(found)


def to_json(entry: Entry) -> dict[str, Any]:
    """Return the fields that its kind has."""
    own = {"id": entry.id} if entry.kind is Kind.TENANT else {"tenant": entry.tenant, "id": entry.id}
    return own | {name: getattr(entry, name) for name in FIELDS[entry.kind]}


def _form_of(kind: Kind) -> tuple[re.Pattern[str], str]:
    if kind is Kind.CLIENT:
        return _CLIENT, "1-64 of [A-Za-z0-9._@-]"
    if kind is Kind.USER:
        return _USER, "1-64 of [A-Za-z0-9._@|:+-]"
    return _LEVEL, "1-64 of [A-Za-z0-9_-]"
