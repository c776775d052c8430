"""Inside the worker that runs a task: limits, retries, duration.

Knows no Ray. Limits are timers of the main thread, which Ray runs tasks on; in another
thread they are kept by asking ``current_task()`` only. Invariant: on the main thread a
task does not outlive its hard limit by more than ``KILL_GRACE_S``.
"""

import contextvars
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from cluster import metrics
from cluster.errors import HardLimitExceededError, SoftLimitExceededError

logger = logging.getLogger(__name__)

KILL_GRACE_S = 5.0
"""How long after the hard limit the process is ended, if the function does not give way."""
TICK_S = 1.0
"""Ray cancels by an interrupt that wakes no sleeping system call; the timer's signal does, so it comes often."""
BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task runs."""

    name: str
    lane: str
    soft_limit_s: float
    hard_limit_s: float
    max_retries: int
    retry_on: tuple[type[Exception], ...]

    def __post_init__(self) -> None:
        if not 0 < self.soft_limit_s <= self.hard_limit_s:
            raise ValueError(
                f"limits of {self.name} must be 0 < soft <= hard, got {self.soft_limit_s} and {self.hard_limit_s}"
            )
        if self.max_retries < 0:
            raise ValueError(f"max_retries of {self.name} must not be negative, got {self.max_retries}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """The task that the present code runs in."""

    name: str
    lane: str
    attempt: int
    """1 for the first."""
    soft_deadline_s: float
    """Monotonic."""

    def remaining_s(self) -> float:
        """Return the time until the soft limit, never negative; for loops and for clients' time-outs."""
        return max(0.0, self.soft_deadline_s - time.monotonic())


_context: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("watchfloor_task", default=None)


def current_task() -> TaskContext | None:
    """Return the task that this code runs in; None outside of one."""
    return _context.get()


class _HardLimit(BaseException):
    """Ends a function that catches ``Exception``; leaves ``run_task`` as ``HardLimitExceededError``."""


def run_task(function: Callable[..., Any], options: TaskOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one task to its end: the body of every remote function that ``@task`` makes.

    The limits cover all attempts together.

    Raises:
        SoftLimitExceededError, HardLimitExceededError: as named.
        Exception: what the function raised in its last attempt.
    """
    from cluster.actors import configure_process  # only here: a unit test of limits needs no Ray

    configure_process("task")
    return run_with_limits(function, options, args, kwargs)


def run_with_limits(
    function: Callable[..., Any],
    options: TaskOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Run ``function`` with the limits and retries of ``options``, counting each attempt."""
    soft_deadline_s = time.monotonic() + options.soft_limit_s
    try:
        with _timers(options):
            for attempt in range(1, options.max_retries + 2):
                context = TaskContext(
                    name=options.name, lane=options.lane, attempt=attempt, soft_deadline_s=soft_deadline_s
                )
                try:
                    return _attempt(function, context, args, kwargs)
                except options.retry_on as error:
                    delay_s = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt))  # noqa: S311
                    if attempt > options.max_retries or delay_s >= context.remaining_s():
                        raise
                    metrics.task_retries.labels(options.lane).inc()
                    logger.warning(
                        "task %s failed in attempt %d, again in %.1f s: %r", options.name, attempt, delay_s, error
                    )
                    sleep(delay_s)
    except _HardLimit:
        raise HardLimitExceededError(options.name, options.hard_limit_s) from None
    raise AssertionError("an attempt either returns or raises")


def _attempt(function: Callable[..., Any], context: TaskContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    token = _context.set(context)
    started_s = time.monotonic()
    outcome = "succeeded"
    try:
        return function(*args, **kwargs)
    except SoftLimitExceededError:
        outcome = "soft_limit"
        raise
    except _HardLimit:
        outcome = "hard_limit"
        raise
    except Exception:
        outcome = "failed"
        raise
    except BaseException:
        outcome = "cancelled"  # Ray cancels by KeyboardInterrupt
        raise
    finally:
        _context.reset(token)
        metrics.task_duration.labels(context.lane, outcome).observe(time.monotonic() - started_s)


@contextmanager
def _timers(options: TaskOptions) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only; here ``remaining_s`` is what there is
        return
    started_s = time.monotonic()
    soft_raised = False

    def arm() -> None:
        next_limit_s = options.hard_limit_s if soft_raised else options.soft_limit_s
        left_s = started_s + next_limit_s - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, min(TICK_S, max(0.001, left_s)))

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        nonlocal soft_raised
        passed_s = time.monotonic() - started_s
        if passed_s >= options.hard_limit_s:
            raise _HardLimit
        is_over = passed_s >= options.soft_limit_s and not soft_raised
        soft_raised = soft_raised or is_over
        arm()
        if is_over:
            raise SoftLimitExceededError(options.name, options.soft_limit_s)

    # The signal's handler runs between bytecodes only; a function that hangs in C code ends
    # with its process. A daemon thread, because it must not outlive a task that returns.
    killer = threading.Timer(options.hard_limit_s + KILL_GRACE_S, _kill_process, (options,))
    killer.daemon = True
    killer.start()
    previous = signal.signal(signal.SIGALRM, on_alarm)
    arm()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        killer.cancel()


def _kill_process(options: TaskOptions) -> None:
    logger.error("task %s did not give way at its hard limit: its process is ended", options.name)
    os._exit(1)
