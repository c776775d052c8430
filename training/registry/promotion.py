"""Which model version is live: the aliases moved by compare-and-set, with a journal.

A version becomes champion by moving the pointer that the detectors poll; the version before it
becomes ``previous``, and one that is tried first ``challenger``. Invariants: pointer and journal
entry are one transaction, and journal rows are only ever added, so every moment's champion can be
told afterwards (beyond ``KEPT_MOVES`` the oldest leave: years, at several promotions a day).
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, Column, Connection, Engine, Float, Integer, String, Table, Text, delete, insert, select

from cluster.ids import new_id
from cluster.store import in_write, metadata, read_transaction
from ingest.live_models import CHALLENGER, CHAMPION, PREVIOUS, LiveModel, read_live_model, write_live_model
from ingest.model_trial import TrialState, add_trial
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
    engine: Engine,
    manifest: Manifest,
    uri: str,
    *,
    reason: str,
    at: float,
    expected_revision: int,
    user_id: str | None = None,
) -> LiveModel:
    """Make a version the champion, and what was champion ``previous``.

    Args:
        engine: the floor's SQL store.
        manifest: of the version.
        uri: folder of the version.
        reason: why, in words; kept in the journal.
        at: seconds since the Unix epoch.
        expected_revision: the champion's revision when the decision was made, 0 when there was none.
        user_id: who decided it; None: nobody but the gates, and the journal names who trained it.

    Raises:
        StaleRevisionError: somebody promoted another version since; nothing was changed.
    """

    def move(connection: Connection) -> LiveModel:
        before = read_live_model(connection, CHAMPION)
        after = _point(connection, CHAMPION, manifest.model_type, manifest.version, uri, expected_revision, at)
        _write_down(connection, after, before, manifest, reason, user_id)
        if before is not None:
            fallback = read_live_model(connection, PREVIOUS)
            revision = fallback.revision if fallback else 0
            now = _point(connection, PREVIOUS, before.scorer, before.version, before.uri, revision, at)
            _write_down(connection, now, fallback, manifest, reason, user_id)
        return after

    return in_write(engine, move)


def challenge(engine: Engine, manifest: Manifest, uri: str, *, reason: str, at: float) -> str | None:
    """Try a version silently beside the champion; whatever was on trial is so no more.

    Returns:
        Id of the trial; None when there is no champion to try it against.
    """

    def move(connection: Connection) -> str | None:
        current = read_live_model(connection, CHAMPION)
        if current is None:
            return None
        before = read_live_model(connection, CHALLENGER)
        revision = before.revision if before else 0
        now = _point(connection, CHALLENGER, manifest.model_type, manifest.version, uri, revision, at)
        _write_down(connection, now, before, manifest, reason, None)
        return add_trial(
            connection,
            scorer=manifest.model_type,
            version=manifest.version,
            uri=uri,
            run_id=manifest.run_id,
            user_id=manifest.user_id,
            against=current.version,
            state=TrialState.RUNNING,
            reason=reason,
            at=at,
        )

    return in_write(engine, move)


def refuse(engine: Engine, manifest: Manifest, uri: str, *, reason: str, at: float) -> str:
    """Write down that a version was not even tried, and why; returns the trial's id."""

    def write(connection: Connection) -> str:
        return add_trial(
            connection,
            scorer=manifest.model_type,
            version=manifest.version,
            uri=uri,
            run_id=manifest.run_id,
            user_id=manifest.user_id,
            against=None,
            state=TrialState.REFUSED,
            reason=reason,
            at=at,
        )

    return in_write(engine, write)


def _point(
    connection: Connection, alias: str, scorer: str, version: str, uri: str, expected_revision: int, at: float
) -> LiveModel:
    return write_live_model(
        connection, alias=alias, scorer=scorer, version=version, uri=uri, expected_revision=expected_revision, at=at
    )


def _write_down(
    connection: Connection,
    now: LiveModel,
    replaced: LiveModel | None,
    manifest: Manifest,
    reason: str,
    user_id: str | None,
) -> None:
    connection.execute(
        insert(model_journal).values(
            id=new_id(),
            at=now.updated_at,
            alias=now.alias,
            revision=now.revision,
            model_type=now.scorer,
            version=now.version,
            uri=now.uri,
            replaced_version=replaced.version if replaced else None,
            run_id=manifest.run_id,
            user_id=manifest.user_id if user_id is None else user_id,
            reason=reason,
            metrics=manifest.metrics,
        )
    )
    kept = select(model_journal.c.id).order_by(model_journal.c.id.desc()).offset(KEPT_MOVES).limit(1)
    connection.execute(delete(model_journal).where(model_journal.c.id <= kept.scalar_subquery()))


def journal(engine: Engine, limit: int = 100) -> list[JournalEntry]:
    """Return the last moves of all aliases, newest first."""
    columns = [column for column in model_journal.c if column.name != "id"]
    statement = select(*columns).order_by(model_journal.c.id.desc()).limit(limit)
    with read_transaction(engine) as connection:
        return [JournalEntry(**row._mapping) for row in connection.execute(statement)]
