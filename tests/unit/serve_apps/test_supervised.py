"""A program is started, watched, and started again with growing delays."""

import random

from serve_apps.restart import MAX_DELAY_S, STEADY_AFTER_S, RestartPolicy
from serve_apps.supervised import Supervised


class FakeClock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeProcess:
    """A process whose end the test decides."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.was_stopped = False

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.status = -15

    def stop(self, grace_s: float = 10.0) -> None:
        self.was_stopped = True


class Bench:
    """A supervised program with all its hands visible."""

    def __init__(self, once: bool = False) -> None:
        self.clock = FakeClock()
        self.processes: list[FakeProcess] = []
        self.is_ready = False
        self.part = Supervised(
            "x",
            self._start,
            is_ready=lambda: self.is_ready,
            clock=self.clock,
            policy=RestartPolicy(random.Random(7)),
            once=once,
        )

    def _start(self) -> FakeProcess:
        self.processes.append(FakeProcess(100 + len(self.processes)))
        return self.processes[-1]


def test_a_program_runs_when_it_answers() -> None:
    """Started is not yet running."""
    bench = Bench()
    bench.part.launch()

    assert not bench.part.step()
    assert bench.part.state == "starting"
    bench.is_ready = True
    assert bench.part.step()
    assert bench.part.state == "running"


def test_a_program_that_ended_is_started_again() -> None:
    """After a delay, once, and what was left of its group is ended before."""
    bench = Bench()
    bench.part.launch()
    bench.processes[0].status = 1
    bench.part.step()
    assert bench.part.state == "waiting"
    assert bench.processes[0].was_stopped

    bench.part.step()
    assert len(bench.processes) == 1
    bench.clock.advance(1.0)
    bench.part.step()

    assert len(bench.processes) == 2
    assert (bench.part.state, bench.part.restarts) == ("starting", 1)
    assert bench.part.record().pid == 101


def test_a_stopped_program_stays_stopped() -> None:
    """Its end is no reason to start it again."""
    bench = Bench()
    bench.part.launch()
    bench.part.stop()
    bench.clock.advance(100.0)

    assert not bench.part.step()
    assert bench.part.state == "stopped"


def test_a_task_that_succeeded_is_done() -> None:
    """Status 0 ends it for good; another status does not."""
    bench = Bench(once=True)
    bench.part.launch()
    bench.processes[0].status = 0
    bench.part.step()
    assert bench.part.state == "done"

    other = Bench(once=True)
    other.part.launch()
    other.processes[0].status = 2
    other.part.step()
    assert (other.part.state, other.part.last_status) == ("waiting", 2)


def test_delays_grow_to_a_cap_and_start_over() -> None:
    """A program that fails at once waits longer and longer; one that ran well does not."""
    policy = RestartPolicy(random.Random(1))
    delays = [policy.delay_s(lived_s=0.0) for _ in range(200)]

    assert max(delays) <= MAX_DELAY_S + 1.0
    assert max(delays[50:]) > 5.0
    assert policy.delay_s(lived_s=STEADY_AFTER_S) < 1.0


def test_a_program_can_be_begun_anew() -> None:
    """It ends and is started again like one that died."""
    bench = Bench()
    bench.part.launch()
    bench.part.begin_anew()
    bench.part.step()
    assert bench.part.state == "waiting"
    bench.clock.advance(MAX_DELAY_S)
    bench.part.step()

    assert (bench.part.restarts, len(bench.processes)) == (1, 2)
