"""The list of data sets: names, numbers, and the version that each stands for.

A name and a number point to one version for ever; the same version may have several names. What a
version holds stands in its manifest (``versions.py``); here is what a list of them shows. Knows SQL, no
files. Invariants: numbers of a name count from 1 without a gap while nothing left; rows never
change, but for one that a run made and a person keeps.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    UniqueConstraint,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from cluster.store import in_write, metadata, read_transaction
from training.data.snapshots import RECORDED, Dataset, is_source
from training.data.versions import ID, DatasetManifest
from training.errors import UnknownDatasetError

KEPT_ROWS = 10_000
"""Versions that runs froze by themselves and that stay listed; the oldest leave."""
ATTEMPTS = 8
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What people may call a data set; sources have colons and slashes too."""
SHORT_ID = re.compile(r"[0-9a-f]{12,64}")
_REFERENCE = re.compile(r"(?P<name>[!-~]{1,192}?)(?::(?P<version>[1-9]\d{0,8}))?")

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("name", String(192), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("parent", String(64), nullable=True),
    Column("source_kind", String(16), nullable=False),
    Column("tenant", String(64), nullable=True),
    Column("content", String(64), nullable=False),
    Column("labels", String(64), nullable=False),
    Column("num_series", Integer, nullable=False),
    Column("num_readings", BigInteger, nullable=False),
    Column("num_labels", Integer, nullable=False),
    Column("num_held_out_devices", Integer, nullable=False),
    Column("from_ts", Float, nullable=True),
    Column("to_ts", Float, nullable=True),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("is_kept", Boolean, nullable=False),
    UniqueConstraint("name", "id", name="uq_dataset_versions_name_id"),
    Index("ix_dataset_versions_id", "id"),
    Index("ix_dataset_versions_created_at", "created_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One line of the list."""

    name: str
    version: int
    id: str
    """Of the version, see ``DatasetManifest.id``."""
    parent: str | None
    """Id of the version that this one was made from, or that had the name before."""
    source_kind: str
    tenant: str | None
    """Whose readings it holds; None: those of several, or of nobody on this floor."""
    content: str
    labels: str
    num_series: int
    num_readings: int
    num_labels: int
    num_held_out_devices: int
    from_ts: float | None
    """Device time of the oldest reading, seconds since the Unix epoch; None: there is none."""
    to_ts: float | None
    created_at: float
    created_by: str
    is_kept: bool
    """Whether a person froze or brought it; the readings of others leave when there are many."""

    @property
    def reference(self) -> str:
        """What ``resolve`` takes: ``name:version``."""
        return f"{self.name}:{self.version}"


def add(
    engine: Engine,
    dataset: Dataset,
    manifest: DatasetManifest,
    *,
    name: str,
    created_at: float,
    created_by: str,
    is_kept: bool,
    parent: str | None = None,
) -> DatasetVersion:
    """Put a version under the next number of a name; one that the name has already is left as it is.

    Args:
        engine: the floor's SQL store.
        dataset: what was frozen, with its id.
        manifest: of the version.
        name: a source, or what people call it.
        created_at: seconds since the Unix epoch.
        created_by: whose doing it is.
        is_kept: see ``DatasetVersion.is_kept``.
        parent: what it was made from; None: the version that had the name before.
    """
    spans = manifest.series
    values: dict[str, Any] = {
        "id": dataset.id,
        "source_kind": str(manifest.source["kind"]),
        "tenant": _tenant_of(dataset),
        "content": manifest.content,
        "labels": manifest.labels,
        "num_series": len(spans),
        "num_readings": dataset.num_readings,
        "num_labels": manifest.num_labels,
        "num_held_out_devices": len(manifest.split["held_out"]),
        "from_ts": min((one["from_ts"] for one in spans), default=None),
        "to_ts": max((one["to_ts"] for one in spans), default=None),
        "created_at": created_at,
        "created_by": created_by,
        "is_kept": is_kept,
    }

    def step(connection: Connection) -> DatasetVersion:
        mine = dataset_versions.c.name == name
        known = connection.execute(select(dataset_versions).where(mine, dataset_versions.c.id == dataset.id)).first()
        if known is not None:
            return _keep(connection, _version(known)) if is_kept else _version(known)
        last = connection.execute(_newest(name)).first()
        row = values | {
            "name": name,
            "version": 1 if last is None else last.version + 1,
            "parent": parent or (None if last is None else last.id),
        }
        connection.execute(insert(dataset_versions).values(**row))
        _forget(connection)
        return DatasetVersion(**row)

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return in_write(engine, step)
        except IntegrityError:  # PostgreSQL: somebody took the number meanwhile
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def resolve(engine: Engine, reference: str) -> DatasetVersion:
    """Return the version that a reference means.

    Args:
        engine: the floor's SQL store.
        reference: ``NAME`` for its newest version, ``NAME:VERSION``, or 12 or more digits of an id.

    Raises:
        UnknownDatasetError: there is none; the text says which there are.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UnknownDatasetError(reference, "expected NAME, NAME:VERSION or an id")
    query = _newest(match["name"])
    if match["version"]:
        query = query.where(dataset_versions.c.version == int(match["version"]))
    with read_transaction(engine) as connection:
        row = connection.execute(query).first()
        if row is None and SHORT_ID.fullmatch(reference):
            row = _by_id(connection, reference)
        if row is not None:
            return _version(row)
        names = connection.execute(
            select(dataset_versions.c.name).distinct().order_by(dataset_versions.c.name).limit(20)
        ).scalars()
        raise UnknownDatasetError(reference, f"there are {', '.join(names) or 'none yet'}")


def list_versions(
    engine: Engine, limit: int, *, name: str | None = None, tenant: str | None = None, before: float | None = None
) -> list[DatasetVersion]:
    """Return versions, newest first.

    Args:
        engine: the floor's SQL store.
        limit: how many at most.
        name: of this name only; None: all.
        tenant: what this tenant may see: its own, and the recordings; None: all.
        before: only those made before this time, seconds since the Unix epoch.
    """
    query = select(dataset_versions).order_by(
        dataset_versions.c.created_at.desc(), dataset_versions.c.name, dataset_versions.c.version.desc()
    )
    if name is not None:
        query = query.where(dataset_versions.c.name == name)
    if tenant is not None:
        query = query.where(or_(dataset_versions.c.tenant == tenant, dataset_versions.c.source_kind == RECORDED))
    if before is not None:
        query = query.where(dataset_versions.c.created_at < before)
    with read_transaction(engine) as connection:
        return [_version(row) for row in connection.execute(query.limit(limit))]


def kept_contents(engine: Engine) -> frozenset[str]:
    """Return the digests of the readings that people want kept."""
    query = select(dataset_versions.c.content).where(dataset_versions.c.is_kept.is_(True)).distinct()
    with read_transaction(engine) as connection:
        return frozenset(connection.execute(query).scalars())


def names_version(reference: str) -> bool:
    """Say whether a reference ends with a number, so that a source's name means what was frozen of it."""
    return bool((match := _REFERENCE.fullmatch(reference)) and match["version"])


def is_visible(version: DatasetVersion, tenant: str | None) -> bool:
    """Say whether a tenant's people may see a version; None: who works floor-wide."""
    return tenant is None or version.tenant == tenant or version.source_kind == RECORDED


def check_name(name: str) -> str:
    """Return ``name`` when people may call a data set so.

    Raises:
        UnknownDatasetError: it is no such name, or a source's.
    """
    if is_source(name) or not NAME.fullmatch(name) or ID.fullmatch(name):
        raise UnknownDatasetError(
            name, "a name is 1-64 of A-Z, a-z, 0-9, dot, dash and underscore, and neither telemetry nor recorded"
        )
    return name


def to_json(version: DatasetVersion) -> Mapping[str, Any]:
    """Return a line of the list as the API and ``--json`` show it; times are seconds since the Unix epoch."""
    return dataclasses.asdict(version) | {"reference": version.reference}


def _newest(name: str) -> Select[Any]:
    mine = dataset_versions.c.name == name
    return select(dataset_versions).where(mine).order_by(dataset_versions.c.version.desc()).limit(1)


def _by_id(connection: Connection, prefix: str) -> Row[Any] | None:
    query = select(dataset_versions).where(dataset_versions.c.id.startswith(prefix)).limit(100)
    rows = connection.execute(query).all()
    if len({row.id for row in rows}) > 1:
        raise UnknownDatasetError(prefix, "several ids begin like this; give more of it")
    return rows[0] if rows else None


def _keep(connection: Connection, version: DatasetVersion) -> DatasetVersion:
    mine = (dataset_versions.c.name == version.name) & (dataset_versions.c.version == version.version)
    connection.execute(update(dataset_versions).where(mine).values(is_kept=True))
    return dataclasses.replace(version, is_kept=True)


def _forget(connection: Connection) -> None:
    passing = dataset_versions.c.is_kept.is_(False)
    created = dataset_versions.c.created_at
    oldest = select(created).where(passing).order_by(created.desc()).offset(KEPT_ROWS).limit(1)
    connection.execute(delete(dataset_versions).where(passing, created <= oldest.scalar_subquery()))


def _tenant_of(dataset: Dataset) -> str | None:
    tenants = {one.key.partition("/")[0] for one in dataset.series}
    return tenants.pop() if len(tenants) == 1 else None


def _version(row: Row[Any]) -> DatasetVersion:
    return DatasetVersion(**row._mapping)
