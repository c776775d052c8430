"""Which model version is live: the aliases moved by compare-and-set, with a journal.

A version becomes champion by moving the pointer that the detectors poll; the version
before it becomes ``previous``. Invariants: pointer and journal entry are one transaction,
and journal rows are only ever added, so every moment's champion can be told afterwards
(beyond ``KEPT_MOVES`` the oldest leave: years, at several promotions a day).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Connection, Engine, Float, Integer, String, Table, Text, delete, insert, select

from cluster.ids import new_id
from cluster.store import in_write, metadata, read_transaction
from ingest.live_models import CHAMPION, PREVIOUS, LiveModel, read_live_model, write_live_model
from training.registry.manifest import Manifest

KEPT_MOVES = 10_000
"""Moves of aliases that the journal keeps."""

model_journal = Table(
    "model_journal",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("at", Float, nullable=False),
    Column("alias", String(32), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("model_type", String(64), nullable=False),
    Column("version", String(128), nullable=False),
    Column("uri", String(1024), nullable=False),
    Column("replaced_version", String(128), nullable=True),
    Column("run_id", String(64), nullable=False),
    Column("user_id", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One move of an alias."""

    at: float
    """Seconds since the Unix epoch."""
    alias: str
    revision: int
    model_type: str
    version: str
    uri: str
    replaced_version: str | None
    """What the alias pointed to before; None for its first value."""
    run_id: str
    user_id: str
    reason: str
    metrics: dict[str, Any]


def champion(engine: Engine) -> LiveModel | None:
    """Return the version that the detectors use; None before the first promotion."""
    with read_transaction(engine) as connection:
        return read_live_model(connection, CHAMPION)


def promote(
    engine: Engine, manifest: Manifest, uri: str, *, reason: str, at: float, expected_revision: int
) -> LiveModel:
    """Make a version the champion, and what was champion ``previous``.

    Args:
        engine: the floor's SQL store.
        manifest: of the version.
        uri: folder of the version.
        reason: why, in words; kept in the journal.
        at: seconds since the Unix epoch.
        expected_revision: the champion's revision when the decision was made, 0 when there was none.

    Raises:
        StaleRevisionError: somebody promoted another version since; nothing was changed.
    """

    def move(connection: Connection) -> LiveModel:
        before = read_live_model(connection, CHAMPION)
        after = write_live_model(
            connection,
            alias=CHAMPION,
            scorer=manifest.model_type,
            version=manifest.version,
            uri=uri,
            expected_revision=expected_revision,
            at=at,
        )
        moved = [(after, before)]
        if before is not None:
            fallback = read_live_model(connection, PREVIOUS)
            moved.append(
                (
                    write_live_model(
                        connection,
                        alias=PREVIOUS,
                        scorer=before.scorer,
                        version=before.version,
                        uri=before.uri,
                        expected_revision=fallback.revision if fallback else 0,
                        at=at,
                    ),
                    fallback,
                )
            )
        for now, replaced in moved:
            connection.execute(
                insert(model_journal).values(
                    id=new_id(),
                    at=at,
                    alias=now.alias,
                    revision=now.revision,
                    model_type=now.scorer,
                    version=now.version,
                    uri=now.uri,
                    replaced_version=replaced.version if replaced else None,
                    run_id=manifest.run_id,
                    user_id=manifest.user_id,
                    reason=reason,
                    metrics=manifest.metrics,
                )
            )
        kept = select(model_journal.c.id).order_by(model_journal.c.id.desc()).offset(KEPT_MOVES).limit(1)
        connection.execute(delete(model_journal).where(model_journal.c.id <= kept.scalar_subquery()))
        return after

    return in_write(engine, move)


def journal(engine: Engine, limit: int = 100) -> list[JournalEntry]:
    """Return the last moves of all aliases, newest first."""
    columns = [column for column in model_journal.c if column.name != "id"]
    statement = select(*columns).order_by(model_journal.c.id.desc()).limit(limit)
    with read_transaction(engine) as connection:
        return [JournalEntry(**row._mapping) for row in connection.execute(statement)]
