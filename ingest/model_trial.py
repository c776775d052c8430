"""Trials: a challenger judges beside the champion, silently, and this table keeps the score.

``training`` begins and ends them, the detector counts. Invariants: at most one trial is running;
a trial ends once, and its counts do not change afterwards; what a trial said is kept (beyond
``KEPT`` the oldest leave).
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, Connection, Float, Index, Integer, String, Table, Text, delete, insert, select, update

from cluster.ids import new_id
from cluster.store import metadata

KEPT = 1000
"""Trials that are kept."""


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    PROMOTED = "promoted"
    REFUSED = "refused"
    SUPERSEDED = "superseded"
    """Another challenger or another champion came before it was over."""
    ROLLED_BACK = "rolled_back"
    """It was promoted, and people's verdicts took that back."""


model_trials = Table(
    "model_trials",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("scorer", String(64), nullable=False),
    Column("version", String(128), nullable=False),
    Column("uri", String(1024), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("user_id", String(128), nullable=False),
    # The champion it is held against; NULL: it was refused or promoted before anything was judged.
    Column("against", String(128)),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("readings", Integer, nullable=False, default=0),
    Column("champion_alerts", Integer, nullable=False, default=0),
    Column("challenger_alerts", Integer, nullable=False, default=0),
)
_running = model_trials.c.state == TrialState.RUNNING.value
Index("ix_model_trials_running", model_trials.c.id, sqlite_where=_running, postgresql_where=_running)
Index("ix_model_trials_version", model_trials.c.scorer, model_trials.c.version)


@dataclass(frozen=True, slots=True)
class Trial:
    """One version on trial, or what became of it."""

    id: str
    scorer: str
    version: str
    uri: str
    run_id: str
    user_id: str
    against: str | None
    """Version of the champion it is compared with."""
    state: TrialState
    reason: str
    started_at: float
    """Seconds since the Unix epoch."""
    ended_at: float | None
    readings: int
    """Judged by both."""
    champion_alerts: int
    """Alerts that the champion raised on them."""
    challenger_alerts: int
    """Alerts that the challenger would have raised."""


def running_trial(connection: Connection) -> Trial | None:
    """Return the trial that is running, if any."""
    row = connection.execute(select(model_trials).where(_running).order_by(model_trials.c.id.desc()).limit(1)).first()
    return None if row is None else _trial(dict(row._mapping))


def list_trials(connection: Connection, limit: int, version: str | None = None) -> list[Trial]:
    """Return the newest trials, newest first; of one version when it is given."""
    query = select(model_trials).order_by(model_trials.c.id.desc()).limit(limit)
    if version is not None:
        query = query.where(model_trials.c.version == version)
    return [_trial(dict(row._mapping)) for row in connection.execute(query)]


def add_trial(
    connection: Connection,
    *,
    scorer: str,
    version: str,
    uri: str,
    run_id: str,
    user_id: str,
    against: str | None,
    state: TrialState,
    reason: str,
    at: float,
) -> str:
    """Write a trial and return its id; a running one ends the one that is running."""
    if state is TrialState.RUNNING:
        connection.execute(
            update(model_trials)
            .where(_running)
            .values(state=TrialState.SUPERSEDED, reason=f"{scorer}@{version} came", ended_at=at)
        )
    trial_id = new_id()
    connection.execute(
        insert(model_trials).values(
            id=trial_id,
            scorer=scorer,
            version=version,
            uri=uri,
            run_id=run_id,
            user_id=user_id,
            against=against,
            state=state,
            reason=reason,
            started_at=at,
            ended_at=None if state is TrialState.RUNNING else at,
        )
    )
    kept = select(model_trials.c.id).order_by(model_trials.c.id.desc()).offset(KEPT).limit(1)
    connection.execute(delete(model_trials).where(model_trials.c.id <= kept.scalar_subquery()))
    return trial_id


def count_trial(
    connection: Connection, trial_id: str, *, readings: int, champion_alerts: int, challenger_alerts: int
) -> None:
    """Write what the detector has counted so far; of a trial that is over nothing changes."""
    connection.execute(
        update(model_trials)
        .where(model_trials.c.id == trial_id, _running)
        .values(readings=readings, champion_alerts=champion_alerts, challenger_alerts=challenger_alerts)
    )


def end_trial(
    connection: Connection,
    trial_id: str,
    state: TrialState,
    reason: str,
    at: float,
    *,
    was: TrialState = TrialState.RUNNING,
) -> bool:
    """End a trial that is in state ``was``; False when it is in another one."""
    ended = connection.execute(
        update(model_trials)
        .where(model_trials.c.id == trial_id, model_trials.c.state == was)
        .values(state=state, reason=reason, ended_at=at)
    )
    return ended.rowcount == 1


def _trial(values: dict[str, object]) -> Trial:
    return Trial(**(values | {"state": TrialState(str(values["state"]))}))  # type: ignore[arg-type]
