"""Limits, retries and metrics of a task, without Ray."""

import _thread
import signal
import threading
import time

import pytest

from cluster import metrics
from cluster.errors import HardLimitExceededError, SoftLimitExceededError, UnknownLaneError
from cluster.task import current_task, task
from cluster.task_worker import TaskOptions, run_with_limits


def options(**fields: object) -> TaskOptions:
    chosen = {
        "name": "t",
        "lane": "general",
        "soft_limit_s": 60.0,
        "hard_limit_s": 120.0,
        "max_retries": 0,
        "retry_on": (OSError,),
    } | fields
    return TaskOptions(**chosen)  # type: ignore[arg-type]


def attempts(outcome: str, lane: str = "general") -> float:
    samples = metrics.task_duration.labels(lane, outcome).collect()[0].samples
    return next(sample.value for sample in samples if sample.name.endswith("_count"))


def test_a_task_called_directly_is_its_function() -> None:
    """No cluster, no limit, no metric."""

    @task(lane="external")
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert double(21) == 42
    assert double.__doc__ == "Twice the number."
    assert double.options.lane == "external"


def test_limits_come_from_the_lane_unless_given() -> None:
    """The decorator without arguments is ``general``."""

    @task
    def plain() -> None: ...

    @task(lane="external", hard_limit_s=5)
    def short() -> None: ...

    assert (plain.options.soft_limit_s, plain.options.hard_limit_s) == (300.0, 600.0)
    assert (short.options.soft_limit_s, short.options.hard_limit_s) == (5, 5)


def test_an_unknown_lane_is_refused_at_the_definition() -> None:
    """Not at the first submit."""
    with pytest.raises(UnknownLaneError):
        task(lane="nope")(print)


def test_a_soft_limit_above_the_hard_one_is_refused() -> None:
    """The text has both."""
    with pytest.raises(ValueError, match=r"got 10 and 5"):
        task(soft_limit_s=10, hard_limit_s=5)(print)


def test_the_soft_limit_interrupts_and_can_be_cleaned_up_after() -> None:
    """A sleeping function is woken by the error and may still return something."""
    cleaned = []

    def sleep_long() -> str:
        try:
            time.sleep(30)
        except SoftLimitExceededError:
            cleaned.append(True)
            raise
        return "slept"

    with pytest.raises(SoftLimitExceededError, match=r"0\.05 s"):
        run_with_limits(sleep_long, options(soft_limit_s=0.05), (), {})
    assert cleaned == [True]


def test_the_hard_limit_ends_a_function_that_ignores_the_soft_one() -> None:
    """Catching ``Exception`` does not help it."""

    def stubborn() -> None:
        while True:
            try:
                time.sleep(30)
            except Exception:
                continue

    started_s = time.monotonic()
    with pytest.raises(HardLimitExceededError):
        run_with_limits(stubborn, options(soft_limit_s=0.05, hard_limit_s=0.15), (), {})
    assert time.monotonic() - started_s < 2


def test_declared_errors_are_tried_again() -> None:
    """Two failures, then success: three attempts, each counted."""
    before = attempts("failed"), attempts("succeeded")
    seen: list[int] = []

    def flaky() -> str:
        context = current_task()
        assert context is not None
        seen.append(context.attempt)
        if len(seen) < 3:
            raise ConnectionError
        return "done"

    assert run_with_limits(flaky, options(max_retries=2), (), {}, sleep=lambda _s: None) == "done"
    assert seen == [1, 2, 3]
    assert (attempts("failed"), attempts("succeeded")) == (before[0] + 2, before[1] + 1)


def test_other_errors_are_not() -> None:
    """A bad argument does not get better by waiting."""
    seen: list[int] = []

    def wrong() -> None:
        seen.append(1)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - the function's own, without a text
        run_with_limits(wrong, options(max_retries=5), (), {})
    assert seen == [1]


def test_the_last_error_is_the_callers() -> None:
    """After all attempts the error comes out unchanged."""

    def down() -> None:
        raise ConnectionError("still down")

    with pytest.raises(ConnectionError, match="still down"):
        run_with_limits(down, options(max_retries=2), (), {}, sleep=lambda _s: None)


def test_loops_can_ask_how_long_they_have() -> None:
    """``remaining_s`` counts to the soft limit; outside of a task there is none."""
    assert current_task() is None

    def ask() -> float:
        context = current_task()
        assert context is not None
        return context.remaining_s()

    assert 50 < run_with_limits(ask, options(), (), {}) <= 60


def test_in_another_thread_limits_are_kept_by_asking() -> None:
    """Signals reach the main thread only; nothing else breaks."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(run_with_limits(lambda: 1, options(), (), {})))
    thread.start()
    thread.join()

    assert results == [1]


def test_a_task_of_a_module_is_pickled_by_its_name() -> None:
    """By value it would take copies of its module's globals along, locks and metrics included."""
    assert module_task.__reduce__()[1] == (module_task.function.__module__, "module_task")


@task
def module_task() -> None:
    """Stands in a module, so it has a name."""


def test_an_interrupt_reaches_a_sleeping_task() -> None:
    """Ray's way to cancel wakes no system call by itself; the timer's tick does."""

    def sleep_long() -> None:
        threading.Timer(0.1, _thread.interrupt_main).start()
        time.sleep(30)

    before = attempts("cancelled")
    # As in a worker of Ray's, whatever an earlier test made of the signal.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_with_limits(sleep_long, options(), (), {})
    finally:
        signal.signal(signal.SIGINT, found)
    assert attempts("cancelled") == before + 1
