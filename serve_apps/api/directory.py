"""The directory over HTTP: tenants, their clients, users and devices; read by viewers, written by admins.

What may stand in it is ``ingest.directory_store``'s. Invariants: whatever is of another tenant
is not found, on every verb; a tenant's admin writes that tenant's entries only, and tenants
themselves are the floor's; nothing here gives anybody a right, for those are in the token.
"""

import asyncio
import base64
import binascii
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import StringConstraints

from cluster.clock import SystemClock
from ingest.directory_entry import Entry, Key, Kind, checked, title_of, to_json
from ingest.directory_rows import Listed, listed_to_json
from ingest.directory_store import DirectoryQuery, DirectoryStore
from ingest.errors import DirectoryNotFoundError
from serve_apps.api.border import ApiRoute, Body, Cursor, Limit, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import deps_of

router = APIRouter(prefix="/api/v1/directory", route_class=ApiRoute)

Viewer = Annotated[Identity, Depends(require(Role.VIEWER))]
Admin = Annotated[Identity, Depends(require(Role.ADMIN))]
EntryId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Text = Annotated[str, StringConstraints(max_length=128)] | None
Search = Annotated[str | None, Query(max_length=64, description="Part of an id, a name, a site or a type.")]
Global = Literal["tenants", "users"]
"""Kinds whose ids are unique on the whole floor."""
Own = Literal["clients", "devices"]
"""Kinds whose ids are unique within a tenant."""
KINDS = {f"{kind}s": kind for kind in Kind}


class EntryBody(Body):
    """What is said of an entry; which fields a kind has, the answer shows."""

    tenant: EntryId | None = None
    name: Text = None
    role: Text = None
    client: Text = None
    site: Text = None
    supervisor: Text = None
    type: Text = None
    disabled: bool = False


@router.get("/{kind}")
async def list_entries(
    request: Request,
    identity: Viewer,
    kind: Global | Own,
    q: Search = None,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    client: Annotated[str | None, Query(max_length=64)] = None,
    known: bool | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """Return entries of one kind, by tenant and id; ``known=false``: devices that nobody registered."""
    own = tenant_of(identity)
    if own is not None and tenant not in (None, own):
        return {"items": [], "next_cursor": None}
    query = DirectoryQuery(
        kind=KINDS[kind],
        tenant=own or tenant,
        search=q,
        client=client,
        known=known,
        after=_read_cursor(KINDS[kind], cursor),
        limit=limit + 1,
    )
    found = await asyncio.to_thread(_store(request).page, query)
    items = found[:limit]
    return {
        "items": [listed_to_json(listed) for listed in items],
        "next_cursor": _cursor(items[-1]) if len(found) > limit else None,
    }


@router.get("/{kind}/{entry_id}")
async def get_entry(request: Request, identity: Viewer, kind: Global, entry_id: EntryId) -> dict[str, Any]:
    """Return a tenant or a user."""
    return listed_to_json(await _found(request, identity, KINDS[kind], (None, entry_id)))


@router.put("/{kind}/{entry_id}")
async def put_entry(
    request: Request, identity: Admin, kind: Global, entry_id: EntryId, body: EntryBody
) -> dict[str, Any]:
    """Write a tenant or a user, in place of what was."""
    return await _put(request, identity, KINDS[kind], (None, entry_id), body)


@router.patch("/{kind}/{entry_id}")
async def patch_entry(
    request: Request, identity: Admin, kind: Global, entry_id: EntryId, body: EntryBody
) -> dict[str, Any]:
    """Change some fields of a tenant or a user; ``disabled`` closes a user's connections."""
    return await _patch(request, identity, KINDS[kind], (None, entry_id), body)


@router.delete("/{kind}/{entry_id}")
async def delete_entry(request: Request, identity: Admin, kind: Global, entry_id: EntryId) -> dict[str, Any]:
    """Remove a tenant or a user that no other entry speaks of."""
    return await _delete(request, identity, KINDS[kind], (None, entry_id))


@router.get("/{kind}/{tenant}/{entry_id}")
async def get_own_entry(
    request: Request, identity: Viewer, kind: Own, tenant: EntryId, entry_id: EntryId
) -> dict[str, Any]:
    """Return a tenant's client or device."""
    return listed_to_json(await _found(request, identity, KINDS[kind], (tenant, entry_id)))


@router.put("/{kind}/{tenant}/{entry_id}")
async def put_own_entry(
    request: Request, identity: Admin, kind: Own, tenant: EntryId, entry_id: EntryId, body: EntryBody
) -> dict[str, Any]:
    """Write a tenant's client or device, in place of what was."""
    return await _put(request, identity, KINDS[kind], (tenant, entry_id), body)


@router.patch("/{kind}/{tenant}/{entry_id}")
async def patch_own_entry(
    request: Request, identity: Admin, kind: Own, tenant: EntryId, entry_id: EntryId, body: EntryBody
) -> dict[str, Any]:
    """Change some fields of a client or a device; a device that was merely seen is known from then on."""
    return await _patch(request, identity, KINDS[kind], (tenant, entry_id), body)


@router.delete("/{kind}/{tenant}/{entry_id}")
async def delete_own_entry(
    request: Request, identity: Admin, kind: Own, tenant: EntryId, entry_id: EntryId
) -> dict[str, Any]:
    """Remove a client that no other entry speaks of, or a device; one that sends again is unknown."""
    return await _delete(request, identity, KINDS[kind], (tenant, entry_id))


async def _put(request: Request, identity: Identity, kind: Kind, key: Key, body: EntryBody) -> dict[str, Any]:
    own = _writable(identity, kind, key)
    said = body.model_dump()
    tenant = said.pop("tenant") or (own if kind is Kind.USER else None)
    entry = Entry(kind=kind, id=key[1], tenant=_same(kind, key, tenant), **said)
    if kind is Kind.USER and own is not None:
        _check_own(own, kind, key, entry.tenant)
        await _check_not_foreign(request, own, key)
    await asyncio.to_thread(_store(request).put, _checked(entry), identity.user_id)
    return await _answer(request, identity, kind, key)


async def _patch(request: Request, identity: Identity, kind: Kind, key: Key, body: EntryBody) -> dict[str, Any]:
    own = _writable(identity, kind, key)
    before = (await _found(request, identity, kind, key)).entry
    changes = body.model_dump(include=body.model_fields_set)
    if "tenant" in changes and kind is not Kind.USER:
        changes["tenant"] = _same(kind, key, changes["tenant"])
    after = _checked(replace(before, **changes))
    if kind is Kind.USER and own is not None:
        _check_own(own, kind, key, after.tenant)
    await asyncio.to_thread(_store(request).patch, kind, key, changes, identity.user_id)
    return await _answer(request, identity, kind, key)


async def _delete(request: Request, identity: Identity, kind: Kind, key: Key) -> dict[str, Any]:
    _writable(identity, kind, key)
    entry = (await _found(request, identity, kind, key)).entry
    await asyncio.to_thread(_store(request).delete, kind, key)
    deps_of(request).disabled.wake()
    return to_json(entry)


async def _answer(request: Request, identity: Identity, kind: Kind, key: Key) -> dict[str, Any]:
    deps_of(request).disabled.wake()
    return listed_to_json(await _found(request, identity, kind, key))


async def _found(request: Request, identity: Identity, kind: Kind, key: Key) -> Listed:
    own = tenant_of(identity)
    if own is not None and kind.has_tenant_key:
        _check_own(own, kind, key, key[0])
    listed = await asyncio.to_thread(_store(request).get, kind, key)
    if own is not None:
        _check_own(own, kind, key, listed.entry.id if kind is Kind.TENANT else listed.entry.tenant)
    return listed


async def _check_not_foreign(request: Request, own: str, key: Key) -> None:
    try:
        listed = await asyncio.to_thread(_store(request).get, Kind.USER, key)
    except DirectoryNotFoundError:
        return
    _check_own(own, Kind.USER, key, listed.entry.tenant)


def _writable(identity: Identity, kind: Kind, key: Key) -> str | None:
    """Return the one tenant whose entries the caller may write; None: those of all."""
    own = tenant_of(identity)
    if own is None:
        return None
    if kind is Kind.TENANT:
        raise HTTPException(403, "tenants are the floor's: this needs an admin without a tenant")
    if kind.has_tenant_key:
        _check_own(own, kind, key, key[0])
    return own


def _check_own(own: str, kind: Kind, key: Key, tenant: str | None) -> None:
    if tenant != own:
        raise HTTPException(404, f"there is no {title_of(kind, key)}")


def _same(kind: Kind, key: Key, tenant: str | None) -> str | None:
    """Return the tenant of an entry whose key may name it."""
    if not kind.has_tenant_key:
        return tenant
    if tenant not in (None, key[0]):
        raise HTTPException(422, f"tenant: the address says {key[0]}")
    return key[0]


def _checked(entry: Entry) -> Entry:
    try:
        return checked(entry)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def _store(request: Request) -> DirectoryStore:
    return DirectoryStore(deps_of(request).engine, SystemClock())


def _cursor(listed: Listed) -> str:
    tenant, identifier = listed.entry.key
    return base64.urlsafe_b64encode(f"{tenant or ''}/{identifier}".encode()).decode()


def _read_cursor(kind: Kind, cursor: str | None) -> Key | None:
    if cursor is None:
        return None
    try:
        tenant, slash, identifier = base64.urlsafe_b64decode(cursor).decode().partition("/")
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "cursor: not one of this list") from error
    if not slash or bool(tenant) is not kind.has_tenant_key:
        raise HTTPException(422, "cursor: not one of this list")
    return (tenant or None, identifier)
