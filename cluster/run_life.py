"""How one run changes: each function takes a run and returns what becomes of it.

Pure: no store, no clock, no Ray. Invariants: a run in a terminal state is returned as it
is; the first reason to stop stays; and a run that was asked to stop ends for that reason,
unless its driver was done before.
"""

import dataclasses
from typing import Any

from cluster.errors import RunStateError
from cluster.job_backend import JobReport, JobState
from cluster.lanes import Lane, TaskRoute
from cluster.runs import Run, RunOrigin, RunRequest, RunState

MAX_TEXT_CHARS = 2000


def new_run(
    run_id: str,
    submission_id: str,
    origin: RunOrigin,
    request: RunRequest,
    route: TaskRoute,
    lane: Lane,
    now_s: float,
) -> Run:
    """Return a queued run of ``request``."""
    return Run(
        id=run_id,
        task=request.task,
        model_type=str(request.arguments.get("model_type", "")),
        dataset_id=str(request.arguments.get("dataset_id", "")),
        lane=lane.name,
        priority=lane.priority,
        resources=dict(route.resources if request.resources is None else request.resources),
        arguments=dict(request.arguments),
        user_id=request.user_id,
        tenant=request.tenant,
        state=RunState.QUEUED,
        reason="",
        progress=0.0,
        message="",
        submission_id=submission_id,
        origin=origin,
        waits_for="waits to be looked at",
        result={},
        created_at=now_s,
        launched_at=None,
        leased_at=None,
        started_at=None,
        ended_at=None,
        soft_limit_s=lane.soft_limit_s,
        hard_limit_s=lane.hard_limit_s,
        stop_state=None,
        stop_reason="",
        version=1,
        request_id=request.request_id,
    )


def waiting(run: Run, waits_for: str) -> Run:
    """Note what a queued run waits for."""
    return dataclasses.replace(run, waits_for=waits_for) if run.state is RunState.QUEUED else run


def admitted(run: Run, now_s: float) -> Run:
    """Give a queued run its slot; one that was cancelled meanwhile gets none."""
    if run.state is not RunState.QUEUED:
        return run
    return dataclasses.replace(run, state=RunState.STARTING, waits_for=None, launched_at=now_s)


def leased(run: Run, now_s: float) -> Run:
    """Note that the driver took its lease; its limits count from here."""
    if run.state is RunState.STARTING and run.leased_at is None and run.stop_state is None:
        return dataclasses.replace(run, leased_at=now_s)
    return run


def started(run: Run, now_s: float, action: str) -> Run:
    """Note that the worker group works.

    Raises:
        RunStateError: the run has no lease; ``action`` says what was tried.
    """
    if run.state is RunState.QUEUED:
        raise RunStateError(run.id, run.state, action)
    if run.state is not RunState.STARTING:
        return run
    leased_at = now_s if run.leased_at is None else run.leased_at
    return dataclasses.replace(run, state=RunState.RUNNING, started_at=now_s, leased_at=leased_at)


def advanced(run: Run, now_s: float, percent: float, message: str) -> Run:
    """Note how far the run is; the first note also starts it.

    Raises:
        RunStateError: the run has no lease.
    """
    run = started(run, now_s, "report progress of")
    if run.state.is_terminal:
        return run
    return dataclasses.replace(run, progress=min(100.0, max(0.0, percent)), message=message[:MAX_TEXT_CHARS])


def asked_to_stop(run: Run, state: RunState, reason: str) -> Run:
    """Note that the run shall stop and end in ``state``."""
    if run.state.is_terminal or run.stop_state is not None:
        return run
    return dataclasses.replace(run, stop_state=state, stop_reason=reason)


def cancelled(run: Run, now_s: float, reason: str) -> Run:
    """End a queued run, ask any other one to stop."""
    if run.state is RunState.QUEUED:
        return ended(run, now_s, RunState.CANCELLED, reason)
    return asked_to_stop(run, RunState.CANCELLED, reason)


def finished(run: Run, now_s: float, state: RunState, reason: str, result: dict[str, Any]) -> Run:
    """End the run as its driver says."""
    if run.stop_state is not None and state is not RunState.SUCCEEDED:
        return ended(run, now_s, run.stop_state, run.stop_reason, result)
    return ended(run, now_s, state, reason, result)


def job_ended(run: Run, now_s: float, report: JobReport) -> Run:
    """End a run whose job is over although its driver did not say so."""
    if run.stop_state is not None:
        return ended(run, now_s, run.stop_state, run.stop_reason)
    if report.state is JobState.STOPPED:
        return ended(run, now_s, RunState.CANCELLED, "its job was stopped")
    if report.state is JobState.FAILED:
        return ended(run, now_s, RunState.FAILED, report.message or "its job failed")
    if run.state is RunState.RUNNING and not report.is_plain_driver:
        return ended(run, now_s, RunState.SUCCEEDED, "")
    return ended(run, now_s, RunState.FAILED, "its program ended without a result")


def lost(run: Run, now_s: float, reason: str) -> Run:
    """End a run of whose job nothing is known."""
    if run.stop_state is not None:
        return ended(run, now_s, run.stop_state, run.stop_reason)
    return ended(run, now_s, RunState.FAILED, reason)


def ended(run: Run, now_s: float, state: RunState, reason: str, result: dict[str, Any] | None = None) -> Run:
    """End the run."""
    if run.state.is_terminal:
        return run
    succeeded = state is RunState.SUCCEEDED
    return dataclasses.replace(
        run,
        state=state,
        reason="" if succeeded else reason[:MAX_TEXT_CHARS],
        progress=100.0 if succeeded else run.progress,
        waits_for=None,
        result=result or run.result,
        ended_at=now_s,
    )
