"""Ray shell of the run queue: one named actor per floor.

Decides nothing. The queue steps on a thread started at construction, so a restarted
actor goes on without being asked. Invariant: calls run on a few threads, never on the
event loop, because each of them is a transaction.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import ray

from cluster import names
from cluster.actors import configure_process, get_or_create
from cluster.clock import SystemClock
from cluster.ray_jobs import RayJobs, dashboard_url
from cluster.run_listening import RunNews, load_listener
from cluster.run_queue import RunQueue, RunQueueSettings
from cluster.run_queue_client import RunQueueClient
from cluster.run_store import RunStore
from cluster.runs import LaneStatus, Lease, Run, RunRequest, RunState
from cluster.settings import Settings, load_section
from cluster.store import open_engine

logger = logging.getLogger(__name__)

NUM_THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")


class RunQueueActor:
    """Turns calls into ``RunQueue`` operations."""

    def __init__(self, settings: Settings, queue_settings: RunQueueSettings) -> None:
        configure_process("run-queue")
        listener = load_listener(queue_settings.listener)
        self._queue = RunQueue(
            queue_settings,
            RunStore(open_engine(settings.database_url)),
            # What this actor was given by its floor is missing on the nodes, so jobs are given it as well.
            RayJobs(dashboard_url(), ray.get_runtime_context().runtime_env.get("env_vars", {})),
            SystemClock(),
            on_change=RunNews(listener).tell if listener else lambda _run: None,
        )
        self._interval_s = queue_settings.step_interval_s
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="run-queue")
        self._wake = threading.Event()
        threading.Thread(target=self._step_for_ever, name="run-queue-step", daemon=True).start()

    async def ready(self) -> bool:
        """Return once the table of runs can be read."""
        await self._in_thread(self._queue.lanes)
        return True

    async def submit(self, request: RunRequest) -> Run:
        """Queue a run whose job the queue will start."""
        return await self._in_thread(self._queue.submit, request, wake=True)

    async def register(self, submission_id: str, request: RunRequest) -> Run:
        """Queue the run of a job that is there already."""
        return await self._in_thread(self._queue.register, submission_id, request, wake=True)

    async def lease(self, run_id: str) -> Lease:
        """Answer a driver that wants to begin."""
        return await self._in_thread(self._queue.lease, run_id)

    async def start(self, run_id: str) -> Run:
        """Note that the run's worker group works."""
        return await self._in_thread(self._queue.start, run_id)

    async def progress(self, run_id: str, percent: float, message: str) -> Run:
        """Note how far the run is."""
        return await self._in_thread(self._queue.progress, run_id, percent, message)

    async def finish(self, run_id: str, state: RunState, reason: str, result: dict[str, Any]) -> Run:
        """End the run as its driver says."""
        return await self._in_thread(self._queue.finish, run_id, state, reason, result, wake=True)

    async def cancel(self, run_id: str, user_id: str) -> Run:
        """End the run for a user."""
        return await self._in_thread(self._queue.cancel, run_id, user_id, wake=True)

    async def get(self, run_id: str) -> Run:
        """Return the run."""
        return await self._in_thread(self._queue.get, run_id)

    async def list_runs(self, limit: int, state: RunState | None) -> tuple[Run, ...]:
        """Return runs, newest first."""
        return await self._in_thread(self._queue.list, limit, state)

    async def lanes(self) -> tuple[LaneStatus, ...]:
        """Return what goes on in each lane."""
        return await self._in_thread(self._queue.lanes)

    async def _in_thread(self, function: Callable[..., R], *args: Any, wake: bool = False) -> R:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        finally:
            if wake:
                self._wake.set()

    def _step_for_ever(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            try:
                self._queue.step()
            except Exception:
                # A queue that stopped stepping would leave every run where it is. What is wrong
                # (a database that is away) may pass, and the next step starts from the table.
                logger.exception("a step of the run queue failed")


def get_or_create_run_queue(settings: Settings) -> RunQueueClient:
    """Return a client of the floor's run queue, starting it when nobody has.

    Raises:
        ServiceUnavailableError: it did not become ready.
    """
    queue_settings = load_section(RunQueueSettings)
    return RunQueueClient(get_or_create(RunQueueActor, settings, queue_settings, name=names.RUN_QUEUE))
