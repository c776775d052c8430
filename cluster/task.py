"""``@task``: a plain function that runs in a lane of the cluster, with limits, retries and metrics.

Called directly it is the function and nothing else. Submitted, it runs in a worker of
Ray that holds one token of its lane; how limits are kept there is ``task_worker.py``.
Invariant: a submitted task ends -- with its result, its error, or at its hard limit.
"""

import asyncio
import functools
import importlib
import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

import ray
from ray.exceptions import (
    GetTimeoutError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.exceptions import TaskCancelledError as RayTaskCancelledError

from cluster.actor_link import ray_reason
from cluster.errors import HardLimitExceededError, ServiceUnavailableError, TaskCancelledError
from cluster.lanes import get_lane
from cluster.task_worker import KILL_GRACE_S, TaskContext, TaskOptions, current_task, run_task

__all__ = ["Task", "TaskContext", "TaskHandle", "current_task", "task"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class TaskHandle(Generic[R]):
    """A submitted task."""

    ref: Any
    """The ``ObjectRef`` of the result."""
    options: TaskOptions
    submitted_at_s: float
    """Monotonic."""

    def result(self, timeout_s: float | None = None) -> R:
        """Wait for the result; None waits until the task has ended.

        Raises:
            TimeoutError: it goes on after ``timeout_s``; it is not stopped.
            HardLimitExceededError, SoftLimitExceededError, TaskCancelledError: as named.
            Exception: what the function raised.
        """
        try:
            return cast(R, ray.get(self.ref, timeout=timeout_s))
        except RayError as error:
            raise self._translated(error) from error

    async def aresult(self, timeout_s: float | None = None) -> R:
        """``result`` for an event loop."""
        try:
            return cast(R, await asyncio.wait_for(asyncio.shield(self.ref), timeout_s))
        except RayError as error:
            raise self._translated(error) from error

    def cancel(self, *, force: bool = False) -> None:
        """End the task by an interrupt, within about a second unless it is in C code; ``force`` kills its process."""
        ray.cancel(self.ref, force=force)

    def _translated(self, error: RayError) -> BaseException:
        if isinstance(error, GetTimeoutError):
            return TimeoutError(f"task {self.options.name!r} has not ended yet")
        if isinstance(error, RayTaskCancelledError):
            return TaskCancelledError(self.options.name)
        if isinstance(error, RayTaskError):
            return error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(error, WorkerCrashedError):
            # A function that does not return from C code is ended with its process, which
            # leaves no message. Only the watchdog kills at this moment.
            limit_s = self.options.hard_limit_s
            if time.monotonic() - self.submitted_at_s >= limit_s + KILL_GRACE_S:
                return HardLimitExceededError(self.options.name, limit_s)
        return ServiceUnavailableError(self.options.name, "its worker", ray_reason(error))


class Task(Generic[P, R]):
    """A function with a lane."""

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here, without limits, retries or metrics."""
        return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # By name where there is one: pickled by value, the function would take copies of its
        # module's globals along, metrics and locks included.
        module, path = self.function.__module__, self.function.__qualname__
        if module != "__main__" and "<locals>" not in path and _find(module, path) is self:
            return (_find, (module, path))
        return (Task, (self.function, self.options))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Run the function in its lane; returns at once.

        It waits for a free token of the lane. A worker that dies takes the task with it:
        it is not run again, because it may have had its effect.
        """
        ref = _remote(self.options.lane, self.options.name).remote(self, self.options, args, kwargs)
        return TaskHandle(ref=ref, options=self.options, submitted_at_s=time.monotonic())


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    lane: str = ...,
    soft_limit_s: float | None = ...,
    hard_limit_s: float | None = ...,
    max_retries: int = ...,
    retry_on: tuple[type[Exception], ...] = ...,
    name: str | None = ...,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    lane: str = "general",
    soft_limit_s: float | None = None,
    hard_limit_s: float | None = None,
    max_retries: int = 0,
    retry_on: tuple[type[Exception], ...] = (OSError, ServiceUnavailableError),
    name: str | None = None,
) -> Any:
    """Make a function a task of ``lane``.

    Args:
        function: the function, when used as ``@task`` without parentheses.
        lane: a name of ``lanes.LANES``.
        soft_limit_s: when ``SoftLimitExceededError`` is raised inside the function, which may
            catch it to clean up; None: the lane's.
        hard_limit_s: when the task is ended; None: the lane's.
        max_retries: attempts after the first, for errors in ``retry_on`` only.
        retry_on: errors worth another attempt; back-off between attempts has full jitter.
        name: how it is called in logs and in Ray's dashboard; None: module and function.

    Raises:
        UnknownLaneError: no such lane.
        ValueError: a limit is not positive, or the soft one is above the hard one.
    """

    def decorate(decorated: Callable[..., Any]) -> Task[..., Any]:
        chosen = get_lane(lane)
        hard_s = hard_limit_s if hard_limit_s is not None else chosen.hard_limit_s
        options = TaskOptions(
            name=name or f"{decorated.__module__}.{decorated.__qualname__}",
            lane=lane,
            soft_limit_s=soft_limit_s if soft_limit_s is not None else min(chosen.soft_limit_s, hard_s),
            hard_limit_s=hard_s,
            max_retries=max_retries,
            retry_on=retry_on,
        )
        return Task(decorated, options)

    return decorate if function is None else decorate(function)


def _find(module: str, path: str) -> Any:
    return operator.attrgetter(path)(importlib.import_module(module))


@functools.cache
def _remote(lane: str, name: str) -> Any:
    return ray.remote(run_task).options(num_cpus=0, resources={lane: 1}, max_retries=0, name=name)
