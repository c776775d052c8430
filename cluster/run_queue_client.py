"""Typed front of the run queue, for the API, the page, the CLI and the drivers of runs.

Each call exists for threads and, with an ``a`` in front, for event loops. Invariant:
every call may be repeated; asking twice for the same thing does it once.
"""

import asyncio
import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from cluster import names
from cluster.actor_link import ActorLink
from cluster.errors import RunStateError, ServiceUnavailableError
from cluster.ids import new_id
from cluster.runs import LaneStatus, Lease, Run, RunRequest, RunState

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 10.0
PATIENCE_S = 5.0
"""How long a call is repeated while the queue's actor restarts."""
AWAY_S = 120.0
"""How long a program that waits for its lease bears with a queue that is away."""
LEASE_POLL_S = 1.0
RUN_ID_VARIABLE = "WATCHFLOOR_RUN_ID"
"""Set by the queue in the environment of every job it submits."""


class RunQueueClient:
    """Asks the floor's run queue."""

    def __init__(self, handle: Any = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._link = ActorLink(names.RUN_QUEUE, handle)
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls) -> "RunQueueClient":
        """Return a client of the floor's run queue.

        Raises:
            ServiceUnavailableError: it is not there.
        """
        client = cls()
        client._link.connect()
        return client

    def submit(self, request: RunRequest) -> Run:
        """Put a run into its lane; the queue starts its job when a slot is free.

        Raises:
            UnknownTaskError: the task has no program that a job could run.
            UnknownLaneError: no such lane.
            ServiceUnavailableError: the queue did not answer; call again with the same ``request_id``.
        """
        return self._run("submit", _with_request_id(request))

    def register(self, submission_id: str, request: RunRequest) -> Run:
        """Put the calling program, itself a Ray Job, into its lane; it then waits for its lease."""
        return self._run("register", submission_id, request)

    def lease(self, run_id: str) -> Lease:
        """Ask whether the run may begin; a driver asks every second until it may."""
        lease: Lease = self._ask("lease", run_id)
        return lease

    def wait_for_lease(
        self, run_id: str, *, on_wait: Callable[[Lease], None] | None = None, timeout_s: float | None = None
    ) -> Lease:
        """Wait until the run may begin, calling ``on_wait`` with each answer that changed.

        Raises:
            RunStateError: the run ended while it waited, or somebody asked it to stop.
            TimeoutError: no slot within ``timeout_s``; None waits as long as the run is queued.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        told: Lease | None = None
        heard_at = time.monotonic()
        while True:
            try:
                lease = self.lease(run_id)
                heard_at = time.monotonic()
            except ServiceUnavailableError:
                # Its place is in the table, so a queue that restarts costs it nothing.
                if time.monotonic() - heard_at > AWAY_S:
                    raise
                time.sleep(LEASE_POLL_S)
                continue
            if lease.granted:
                return lease
            _refuse_ended(run_id, lease)
            if lease != told and on_wait is not None:
                on_wait(lease)
            told = lease
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise TimeoutError(f"run {run_id} got no slot within {timeout_s:g} s")
            time.sleep(LEASE_POLL_S)

    def start(self, run_id: str) -> Run:
        """Say that the run's worker group works now."""
        return self._run("start", run_id)

    def progress(self, run_id: str, percent: float, message: str = "") -> Run:
        """Keep how far the run is; implies ``start``. The answer's ``is_stopping`` asks the driver to end."""
        return self._run("progress", run_id, percent, message)

    def finish(self, run_id: str, state: RunState, reason: str = "", result: dict[str, Any] | None = None) -> Run:
        """End the run; a run that has ended already stays as it ended."""
        return self._run("finish", run_id, RunState(state), reason, result or {})

    def cancel(self, run_id: str, user_id: str) -> Run:
        """End the run: at once while it is queued, else by stopping its job; ended runs stay as they are."""
        return self._run("cancel", run_id, user_id)

    def get(self, run_id: str) -> Run:
        """Return the run.

        Raises:
            RunNotFoundError: there is none.
        """
        return self._run("get", run_id)

    def list(self, limit: int = 100, state: RunState | None = None) -> tuple[Run, ...]:
        """Return runs, newest first."""
        found: tuple[Run, ...] = self._ask("list_runs", limit, state)
        return found

    def lanes(self) -> tuple[LaneStatus, ...]:
        """Return what goes on in each lane, largest priority first."""
        lanes: tuple[LaneStatus, ...] = self._ask("lanes")
        return lanes

    async def asubmit(self, request: RunRequest) -> Run:
        """``submit`` for an event loop."""
        return await self._arun("submit", _with_request_id(request))

    async def aregister(self, submission_id: str, request: RunRequest) -> Run:
        """``register`` for an event loop."""
        return await self._arun("register", submission_id, request)

    async def alease(self, run_id: str) -> Lease:
        """``lease`` for an event loop."""
        lease: Lease = await self._aask("lease", run_id)
        return lease

    async def await_lease(self, run_id: str, *, on_wait: Callable[[Lease], None] | None = None) -> Lease:
        """``wait_for_lease`` for an event loop; bound it with ``asyncio.timeout``."""
        told: Lease | None = None
        while True:
            lease = await self.alease(run_id)
            if lease.granted:
                return lease
            _refuse_ended(run_id, lease)
            if lease != told and on_wait is not None:
                on_wait(lease)
            told = lease
            await asyncio.sleep(LEASE_POLL_S)

    async def astart(self, run_id: str) -> Run:
        """``start`` for an event loop."""
        return await self._arun("start", run_id)

    async def aprogress(self, run_id: str, percent: float, message: str = "") -> Run:
        """``progress`` for an event loop."""
        return await self._arun("progress", run_id, percent, message)

    async def afinish(
        self, run_id: str, state: RunState, reason: str = "", result: dict[str, Any] | None = None
    ) -> Run:
        """``finish`` for an event loop."""
        return await self._arun("finish", run_id, RunState(state), reason, result or {})

    async def acancel(self, run_id: str, user_id: str) -> Run:
        """``cancel`` for an event loop."""
        return await self._arun("cancel", run_id, user_id)

    async def aget(self, run_id: str) -> Run:
        """``get`` for an event loop."""
        return await self._arun("get", run_id)

    async def alist(self, limit: int = 100, state: RunState | None = None) -> tuple[Run, ...]:
        """``list`` for an event loop."""
        found: tuple[Run, ...] = await self._aask("list_runs", limit, state)
        return found

    async def alanes(self) -> tuple[LaneStatus, ...]:
        """``lanes`` for an event loop."""
        lanes: tuple[LaneStatus, ...] = await self._aask("lanes")
        return lanes

    def _ask(self, method: str, *args: Any) -> Any:
        return self._link.call(method, *args, timeout_s=self._timeout_s, patience_s=PATIENCE_S)

    async def _aask(self, method: str, *args: Any) -> Any:
        return await self._link.acall(method, *args, timeout_s=self._timeout_s, patience_s=PATIENCE_S)

    def _run(self, method: str, *args: Any) -> Run:
        run: Run = self._ask(method, *args)
        return run

    async def _arun(self, method: str, *args: Any) -> Run:
        run: Run = await self._aask(method, *args)
        return run


def current_submission_id() -> str | None:
    """Return the id of the Ray Job this process is the driver of; None when it is none."""
    # Ray hands a job its own id in this variable only (it is how ``ray.init`` in a job learns it).
    config = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    if not config:
        return None
    submission_id = json.loads(config).get("metadata", {}).get("job_submission_id")
    return str(submission_id) if submission_id else None


def _with_request_id(request: RunRequest) -> RunRequest:
    # A call that timed out may have been carried out; with an id of its own it can be repeated.
    return request if request.request_id else dataclasses.replace(request, request_id=new_id())


def _refuse_ended(run_id: str, lease: Lease) -> None:
    if lease.state.is_terminal or lease.stopping:
        raise RunStateError(run_id, lease.state, "begin")
