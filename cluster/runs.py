"""Runs: one execution each of a task that has a lane, and the SQL table that holds them.

Types only; reading and writing is ``run_store.py``, deciding is ``run_queue.py``.
Invariant: a run in a terminal state never changes again, and one run is one Ray
submission id.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from cluster.store import metadata


class RunState(StrEnum):
    """Where a run is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows this state."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT})


class RunOrigin(StrEnum):
    """Who made the process of a run."""

    API = "api"
    """The queue submits the Ray Job when a slot is free."""
    JOB = "job"
    """The program was there first (``ray job submit``), registered itself and waits."""


runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("task", String(64), nullable=False),
    Column("model_type", String(64), nullable=False),
    Column("dataset_id", String(256), nullable=False),
    Column("lane", String(32), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("resources", JSON, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("user_id", String(128), nullable=False),
    Column("tenant", String(64), nullable=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("progress", Float, nullable=False),
    Column("message", Text, nullable=False),
    Column("submission_id", String(128), nullable=False, unique=True),
    Column("origin", String(8), nullable=False),
    Column("waits_for", Text, nullable=True),
    Column("result", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("launched_at", Float, nullable=True),
    Column("leased_at", Float, nullable=True),
    Column("started_at", Float, nullable=True),
    Column("ended_at", Float, nullable=True),
    Column("soft_limit_s", Float, nullable=False),
    Column("hard_limit_s", Float, nullable=False),
    Column("stop_state", String(16), nullable=True),
    Column("stop_reason", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("request_id", String(128), nullable=True),
    # A request id is the caller's own, so two users may choose the same one.
    UniqueConstraint("user_id", "request_id"),
    Index("ix_runs_state_created_at", "state", "created_at"),
    Index("ix_runs_created_at", "created_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What somebody asks to be run."""

    task: str
    """A name of ``lanes.ROUTES``, such as ``train_model``."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """JSON arguments of the task; ``model_type`` and ``dataset_id`` also become columns."""
    user_id: str = ""
    """Who asked; the empty string for the floor itself."""
    tenant: str | None = None
    """Tenant of the user; None: floor-wide."""
    lane: str | None = None
    """None: the lane of the task's route."""
    resources: dict[str, float] | None = None
    """What the whole worker group takes, e.g. ``{"CPU": 2, "GPU": 1}``; None: as the task's route says."""
    preferred_resources: dict[str, float] | None = None
    """Taken instead of ``resources`` when the whole cluster has as much; None: nothing else will do."""
    request_id: str | None = None
    """Makes asking twice safe: the second call returns the first run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a task; times are seconds since the epoch."""

    id: str
    task: str
    model_type: str
    dataset_id: str
    lane: str
    priority: int
    resources: dict[str, float]
    arguments: dict[str, Any]
    user_id: str
    tenant: str | None
    state: RunState
    reason: str
    """Why it ended as it did; empty while it lives and after success."""
    progress: float
    """0 to 100."""
    message: str
    submission_id: str
    """The Ray Job's id; equal to ``id`` unless the job's own id cannot name a channel."""
    origin: RunOrigin
    waits_for: str | None
    """What a queued run waits for, in words; None once it has its lease."""
    result: dict[str, Any]
    created_at: float
    launched_at: float | None
    """When the queue gave it a slot and began to submit its job."""
    leased_at: float | None
    """When its driver took the lease; its worker group must start soon after."""
    started_at: float | None
    ended_at: float | None
    soft_limit_s: float
    hard_limit_s: float
    stop_state: RunState | None
    """The state it ends in once its job has stopped; None while nobody asked it to stop."""
    stop_reason: str
    version: int
    request_id: str | None

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked a live run to stop."""
        return self.stop_state is not None and not self.state.is_terminal


def run_to_json(run: Run) -> dict[str, Any]:
    """Return the run as the API and the messages show it; times are ISO 8601 in UTC."""
    return {
        "id": run.id,
        "task": run.task,
        "model_type": run.model_type,
        "dataset_id": run.dataset_id,
        "lane": run.lane,
        "priority": run.priority,
        "resources": run.resources,
        "arguments": run.arguments,
        "user_id": run.user_id,
        "tenant": run.tenant,
        "state": run.state.value,
        "stopping": run.is_stopping,
        "reason": run.reason or run.stop_reason,
        "progress": run.progress,
        "message": run.message,
        "submission_id": run.submission_id,
        "origin": run.origin.value,
        "waits_for": run.waits_for,
        "result": run.result,
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "soft_limit_s": run.soft_limit_s,
        "hard_limit_s": run.hard_limit_s,
        "version": run.version,
        "request_id": run.request_id,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The answer to a driver that asks whether it may begin."""

    granted: bool
    state: RunState
    """A terminal one tells the driver to end."""
    place: int
    """0 when granted, else how many runs of the lane go first, plus one."""
    waits_for: str | None
    stopping: bool
    """Somebody asked the run to stop."""
    soft_deadline: float | None
    """When to stop at the next safe point, seconds since the epoch; None before the lease."""
    hard_deadline: float | None
    """When the run is stopped, seconds since the epoch; None before the lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """What goes on in one lane."""

    name: str
    priority: int
    concurrency: int
    soft_limit_s: float
    hard_limit_s: float
    running: int
    """Runs that hold a slot, those still starting included."""
    queued: int
    tokens_used: float | None
    """Tokens of the lane that Ray has given out, to runs and to ``@task`` functions; None: Ray did not say."""
    holders: tuple[str, ...]
    """Ids of the runs that hold a slot."""
    waiting: dict[str, str]
    """Run id -> what it waits for, the next one first."""


def _iso(time_s: float | None) -> str | None:
    if time_s is None:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
