"""The run queue: admits runs to their lanes, watches their jobs, ends what overstays.

Jobs and resources come through ``JobBackend``, rows through ``RunStore``, time through
the clock; how one run changes is ``run_life.py``, who may begin ``admission.py``. All it
must remember is in the table, so a restarted queue goes on by ``step()`` alone.
Invariants: a run ends exactly once; it holds its lane from its slot to its end; and
repeating a call changes nothing.
"""

import dataclasses
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster import metrics, run_life
from cluster.admission import Capacity, admit, in_order, missing
from cluster.clock import Clock
from cluster.errors import LaunchRefusedError, ServiceUnavailableError, UnknownTaskError
from cluster.ids import new_id
from cluster.job_backend import JobBackend, JobReport, JobState
from cluster.lanes import LANES, ROUTES, Lane, get_lane, get_route
from cluster.run_store import RunStore
from cluster.runs import LaneStatus, Lease, Run, RunOrigin, RunRequest, RunState

logger = logging.getLogger(__name__)

CHANNEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""What may stand behind ``run:`` in a channel's name."""
STOP_AGAIN_S = 5.0
"""How long after asking a job to stop it is asked again."""
RESTARTED = "Ray was restarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQueueSettings:
    """How the queue watches its runs."""

    step_interval_s: float = 1.0
    """How often jobs are looked at and slots given out, in seconds."""
    start_timeout_s: float = 60.0
    """How long a job may take to ask for its lease, and then its worker group to start, in seconds."""
    listener: str = "realtime.run_listener:RunListener"
    """``module:Class`` whose ``on_change(run)`` hears of every change; ``none``: nobody does."""

    def __post_init__(self) -> None:
        if self.step_interval_s <= 0:
            raise ValueError(f"step_interval_s must be positive, got {self.step_interval_s}")
        if self.start_timeout_s <= 0:
            raise ValueError(f"start_timeout_s must be positive, got {self.start_timeout_s}")


class RunQueue:
    """Runs of one floor. Thread-safe."""

    def __init__(
        self,
        settings: RunQueueSettings,
        store: RunStore,
        backend: JobBackend,
        clock: Clock,
        on_change: Callable[[Run], None] = lambda _run: None,
        lanes: Mapping[str, Lane] = LANES,
    ) -> None:
        self._settings = settings
        self._store = store
        self._backend = backend
        self._now = clock.time_s
        self._on_change = on_change
        self._lanes = lanes
        # Commit and tell under one lock, so that listeners hear of a run's changes in their order.
        self._change_lock = threading.Lock()
        self._step_lock = threading.Lock()
        self._stop_asked_at: dict[str, float] = {}
        self._capacity: Capacity | None = None

    def submit(self, request: RunRequest) -> Run:
        """Queue a run whose job the queue will start."""
        if get_route(request.task).entrypoint is None:
            raise UnknownTaskError(request.task, tuple(task for task, route in ROUTES.items() if route.entrypoint))
        run_id = new_id()
        return self._add(run_id, run_id, RunOrigin.API, request)

    def register(self, submission_id: str, request: RunRequest) -> Run:
        """Queue the run of a job that is there already."""
        run_id = submission_id if CHANNEL_NAME.fullmatch(submission_id) else new_id()
        return self._add(run_id, submission_id, RunOrigin.JOB, request)

    def lease(self, run_id: str) -> Lease:
        """Answer a driver that wants to begin; the first granted answer starts the clock of its limits."""
        run = self._change(run_id, lambda run: run_life.leased(run, self._now()))
        lane = [other for other in self._store.live() if other.lane == run.lane and other.state is RunState.QUEUED]
        ahead = [other.id for other in in_order(lane)]
        return Lease(
            granted=run.state in {RunState.STARTING, RunState.RUNNING} and not run.is_stopping,
            state=run.state,
            place=ahead.index(run.id) + 1 if run.id in ahead else 0,
            waits_for=run.waits_for,
            stopping=run.is_stopping,
            soft_deadline=run.leased_at + run.soft_limit_s if run.leased_at is not None else None,
            hard_deadline=run.leased_at + run.hard_limit_s if run.leased_at is not None else None,
        )

    def start(self, run_id: str) -> Run:
        """Note that the run's worker group works."""
        return self._change(run_id, lambda run: run_life.started(run, self._now(), "start"))

    def progress(self, run_id: str, percent: float, message: str) -> Run:
        """Note how far the run is."""
        return self._change(run_id, lambda run: run_life.advanced(run, self._now(), percent, message))

    def finish(self, run_id: str, state: RunState, reason: str, result: dict[str, Any]) -> Run:
        """End the run as its driver says; after a stop was asked for, only success still counts."""
        if not state.is_terminal:
            raise ValueError(f"a run finishes in a terminal state, got {state}")
        return self._change(run_id, lambda run: run_life.finished(run, self._now(), state, reason, result))

    def cancel(self, run_id: str, user_id: str) -> Run:
        """End the run: at once while it waits, else by stopping its job."""
        reason = f"cancelled by {user_id}" if user_id else "cancelled"
        run = self._change(run_id, lambda run: run_life.cancelled(run, self._now(), reason))
        if run.origin is RunOrigin.JOB and run.leased_at is None and run.state is RunState.CANCELLED:
            # Its program waits for a lease that never comes. It would learn so by asking again;
            # stopping it also ends one that does not ask. Stopping twice does no harm.
            self._stop_job(run)
        return run

    def get(self, run_id: str) -> Run:
        """Return the run."""
        return self._store.get(run_id)

    def list(self, limit: int, state: RunState | None = None) -> tuple[Run, ...]:
        """Return runs, newest first."""
        return self._store.list(limit, state)

    def lanes(self) -> tuple[LaneStatus, ...]:
        """Return what goes on in each lane, largest priority first."""
        live = self._store.live()
        return tuple(
            _lane_status(lane, [run for run in live if run.lane == lane.name], self._capacity)
            for lane in sorted(self._lanes.values(), key=lambda lane: -lane.priority)
        )

    def step(self) -> None:
        """Look at every job once, end what must end, give free slots out."""
        with self._step_lock:
            for run in self._store.live():
                if run.origin is RunOrigin.JOB or run.launched_at is not None:
                    self._watch(run, self._backend.report(run.submission_id))
            self._admit()

    def _watch(self, run: Run, report: JobReport) -> None:
        if report.state in {JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED}:
            self._change(run.id, lambda now: run_life.job_ended(now, self._now(), report))
        elif report.state is not JobState.UNKNOWN:
            self._end_overstaying(run, report)
        elif run.origin is RunOrigin.API and run.leased_at is None and not run.is_stopping and not self._is_late(run):
            # The queue or Ray went away between the commit and the launch. Launching is safe to repeat.
            self._launch(run)
        else:
            self._change(run.id, lambda now: run_life.lost(now, self._now(), RESTARTED))

    def _end_overstaying(self, run: Run, report: JobReport) -> None:
        now_s = self._now()
        if run.leased_at is not None and now_s >= run.leased_at + run.hard_limit_s:
            reason = f"passed its hard limit of {run.hard_limit_s:g} s"
            run = self._change(run.id, lambda now: run_life.asked_to_stop(now, RunState.TIMED_OUT, reason))
        elif run.state is RunState.STARTING and not run.is_stopping and self._is_late(run):
            late = self._why_late(run, report)
            run = self._change(
                run.id,
                # Only if it has not started since the report was read.
                lambda now: (
                    run_life.asked_to_stop(now, RunState.FAILED, late) if now.state is RunState.STARTING else now
                ),
            )
        if run.is_stopping and now_s - self._stop_asked_at.get(run.id, float("-inf")) >= STOP_AGAIN_S:
            self._stop_asked_at[run.id] = now_s
            self._stop_job(run)

    def _is_late(self, run: Run) -> bool:
        since_s = run.launched_at if run.leased_at is None else run.leased_at
        return since_s is not None and self._now() - since_s >= self._settings.start_timeout_s

    def _why_late(self, run: Run, report: JobReport) -> str:
        limit = f"{self._settings.start_timeout_s:g} s"
        if report.state is JobState.UNREACHABLE:
            return f"its job did not start within {limit}: {report.message}"
        if run.leased_at is None:
            return f"its job did not ask for its lease within {limit}"
        capacity = self._backend.capacity()
        held = [
            f"{amount:g} {name} (free {capacity.available.get(name, 0.0):g} of {capacity.total.get(name, 0.0):g})"
            for name, amount in run.resources.items()
            if capacity is not None
        ]
        return f"its worker group did not start within {limit}; it takes {', '.join(held) or 'no resources'}"

    def _admit(self) -> None:
        self._capacity = self._backend.capacity()
        for decision in admit(self._store.live(), self._lanes, self._capacity, self._backend.holders):
            if decision.waits_for is not None:
                self._note_waiting(decision.run_id, decision.waits_for)
                continue
            run = self._change(decision.run_id, lambda run: run_life.admitted(run, self._now()))
            if run.state is RunState.STARTING and run.origin is RunOrigin.API:
                self._launch(run)
        for lane in self.lanes():
            metrics.lane_running.labels(lane.name).set(lane.running)
            metrics.lane_queued.labels(lane.name).set(lane.queued)

    def _note_waiting(self, run_id: str, waits_for: str) -> None:
        self._change(run_id, lambda run: run_life.waiting(run, waits_for))

    def _launch(self, run: Run) -> None:
        try:
            self._backend.launch(run, f"{get_route(run.task).entrypoint} --run-id {run.id}")
        except LaunchRefusedError as error:
            reason = str(error)
            self._change(run.id, lambda now: run_life.ended(now, self._now(), RunState.FAILED, reason))
        except ServiceUnavailableError as error:
            logger.warning("run %s is launched again in a moment: %s", run.id, error)

    def _stop_job(self, run: Run) -> None:
        try:
            self._backend.stop(run.submission_id)
        except ServiceUnavailableError as error:
            logger.warning("run %s is stopped again in a moment: %s", run.id, error)

    def _add(self, run_id: str, submission_id: str, origin: RunOrigin, request: RunRequest) -> Run:
        route = get_route(request.task)
        lane = self._lanes[get_lane(request.lane or route.lane).name]
        if request.preferred_resources is not None and self._cluster_has(request.preferred_resources):
            request = dataclasses.replace(request, resources=request.preferred_resources)
        run = run_life.new_run(run_id, submission_id, origin, request, route, lane, self._now())
        with self._change_lock:
            stored, is_new = self._store.add(run)
            if is_new:
                self._on_change(stored)
            return stored

    def _cluster_has(self, resources: Mapping[str, float]) -> bool:
        capacity = self._backend.capacity()
        return capacity is not None and not missing(resources, capacity.total)

    def _change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        with self._change_lock:
            run, changed = self._store.change(run_id, change)
            if changed:
                if run.state.is_terminal:  # and it was not before: ended runs do not change
                    metrics.runs_ended.labels(run.lane, run.state.value).inc()
                    self._stop_asked_at.pop(run.id, None)
                self._on_change(run)
            return run


def _lane_status(lane: Lane, live: Sequence[Run], capacity: Capacity | None) -> LaneStatus:
    holders = tuple(run.id for run in live if run.state is not RunState.QUEUED)
    queued = in_order([run for run in live if run.state is RunState.QUEUED])
    used = None
    if capacity is not None and lane.name in capacity.total:
        used = capacity.total[lane.name] - capacity.available.get(lane.name, 0.0)
    return LaneStatus(
        name=lane.name,
        priority=lane.priority,
        concurrency=lane.concurrency,
        soft_limit_s=lane.soft_limit_s,
        hard_limit_s=lane.hard_limit_s,
        running=len(holders),
        queued=len(queued),
        tokens_used=used,
        holders=holders,
        # Empty until the next step has looked at it.
        waiting={run.id: run.waits_for or "waits for its turn" for run in queued},
    )
