"""One circuit against a small model, and at its edges."""

import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.circuit import BreakerSettings, Circuit, CircuitState, SharedState, Transition

OPEN_S = 300.0
LEGAL = {
    ("closed", "open"),
    ("open", "half_open"),
    ("half_open", "closed"),
    ("half_open", "open"),
    ("open", "closed"),
}


def begin(circuit: Circuit, now_s: float) -> int:
    """Begin a call that must be let through."""
    ticket = circuit.acquire(now_s)
    assert ticket is not None
    return ticket


def opened(now_s: float = 0.0, **fields: float) -> Circuit:
    circuit = Circuit("mqtt_broker", BreakerSettings(**fields))  # type: ignore[arg-type]
    for _ in range(5):
        circuit.fail(begin(circuit, now_s), now_s, "down")
    return circuit


def test_five_consecutive_failures_open() -> None:
    """The fourth leaves it closed, the fifth opens it."""
    circuit = Circuit("x", BreakerSettings())
    for _ in range(4):
        circuit.fail(begin(circuit, 0), 0)
    assert circuit.state is CircuitState.CLOSED

    circuit.fail(begin(circuit, 0), 0)

    assert circuit.state is CircuitState.OPEN


def test_a_success_starts_the_count_anew() -> None:
    """Consecutive means consecutive."""
    circuit = Circuit("x", BreakerSettings())
    for _ in range(10):
        for _ in range(4):
            circuit.fail(begin(circuit, 0), 0)
        circuit.succeed(begin(circuit, 0))

    assert circuit.state is CircuitState.CLOSED


def test_failures_spread_over_more_than_the_window_do_not_open() -> None:
    """Five failures in a week are no outage."""
    circuit = Circuit("x", BreakerSettings())
    for hour in range(24):
        circuit.fail(begin(circuit, hour * 3600), hour * 3600)

    assert circuit.state is CircuitState.CLOSED


def test_an_open_circuit_says_how_long() -> None:
    """A refused call knows when to come back."""
    circuit = opened()

    assert circuit.acquire(100) is None
    assert circuit.retry_in_s(100) == OPEN_S - 100


def test_exactly_one_probe_goes_through() -> None:
    """The second call after the open time is refused while the first is out."""
    circuit = opened()
    probe = begin(circuit, OPEN_S)
    assert circuit.acquire(OPEN_S) is None

    circuit.succeed(probe)

    assert circuit.state is CircuitState.CLOSED


def test_a_failed_probe_opens_for_another_period() -> None:
    """The time starts again, and does not grow unless asked to."""
    circuit = opened()
    circuit.fail(begin(circuit, OPEN_S), OPEN_S)

    assert circuit.retry_in_s(OPEN_S) == OPEN_S


def test_the_open_time_grows_on_request_up_to_its_bound() -> None:
    """300, 600, 1000, 1000 seconds."""
    circuit = opened(open_growth=2.0, open_max_s=1000.0)
    now_s, seen = 0.0, []
    for _ in range(4):
        seen.append(circuit.retry_in_s(now_s))
        now_s += seen[-1]
        circuit.fail(begin(circuit, now_s), now_s)

    assert seen == [300.0, 600.0, 1000.0, 1000.0]


def test_a_probe_that_hangs_loses_its_permit() -> None:
    """After the permit's time another call probes, and the late answer changes nothing."""
    circuit = opened()
    hung = begin(circuit, OPEN_S)
    second = begin(circuit, OPEN_S + 30)

    circuit.succeed(hung)
    assert circuit.state is CircuitState.HALF_OPEN

    circuit.succeed(second)
    assert circuit.state is CircuitState.CLOSED


def test_a_released_probe_can_be_taken_at_once() -> None:
    """An ignored error or a cancellation gives the permit back."""
    circuit = opened()
    circuit.release(begin(circuit, OPEN_S), OPEN_S)

    assert circuit.is_probe(begin(circuit, OPEN_S))


def test_a_success_from_before_the_outage_does_not_heal() -> None:
    """A slow call that began while all was well says nothing about now."""
    circuit = Circuit("x", BreakerSettings())
    slow = begin(circuit, 0)
    for _ in range(5):
        circuit.fail(begin(circuit, 0), 0)
    probe = begin(circuit, OPEN_S)

    circuit.succeed(slow)
    assert circuit.state is CircuitState.HALF_OPEN

    circuit.fail(probe, OPEN_S)
    assert circuit.state is CircuitState.OPEN


def test_forced_states_hold_until_reset() -> None:
    """Neither failures nor time move them."""
    circuit = Circuit("x", BreakerSettings())
    circuit.force(CircuitState.FORCED_OPEN)
    assert circuit.acquire(10_000) is None
    circuit.force(CircuitState.FORCED_CLOSED)
    for _ in range(20):
        circuit.fail(begin(circuit, 0), 0)
    assert circuit.state is CircuitState.FORCED_CLOSED

    circuit.reset()
    assert circuit.state is CircuitState.CLOSED


def test_what_another_process_decided_is_taken_over() -> None:
    """Open for the rest of its time, and closed again when it closed there."""
    circuit = Circuit("x", BreakerSettings())
    circuit.adopt(SharedState(state=CircuitState.OPEN, remaining_s=42.0), 1000)
    assert circuit.retry_in_s(1000) == 42.0

    circuit.adopt(SharedState(state=CircuitState.CLOSED, remaining_s=0.0), 1010)
    assert circuit.passes


def test_half_open_is_told_as_an_open_time_that_is_over() -> None:
    """Who may probe is no state but a lease."""
    circuit = opened()
    circuit.acquire(OPEN_S)

    assert circuit.shared_state(OPEN_S) == SharedState(state=CircuitState.OPEN, remaining_s=0.0)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"failure_threshold": 0}, id="no-failures"),
        pytest.param({"open_s": 0}, id="no-time"),
        pytest.param({"open_growth": 0.5}, id="shrinking"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, float]) -> None:
    """The text has the bad value."""
    with pytest.raises(ValueError, match=str(next(iter(fields.values())))):
        BreakerSettings(**fields)  # type: ignore[arg-type]


def test_32_threads_at_the_edge_make_one_probe() -> None:
    """All ask at once when the open time is over; one is let through."""
    circuit = opened()
    barrier = threading.Barrier(32)
    tickets: list[int] = []

    def ask() -> None:
        barrier.wait()
        ticket = circuit.acquire(OPEN_S)
        if ticket is not None:
            tickets.append(ticket)

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(tickets) == 1


class CircuitAgainstModel(RuleBasedStateMachine):
    """Random calls, results, waits and cancellations; a few lines of model say what must be."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions: list[Transition] = []
        self.settings = BreakerSettings(failure_threshold=3, window_s=100.0, open_s=50.0, permit_s=10.0)
        self.circuit = Circuit("x", self.settings, self.transitions.append)
        self.now_s = 0.0
        self.out: list[int] = []
        # The model.
        self.state = "closed"
        self.failures: list[float] = []
        self.open_until_s = 0.0
        self.probe: int | None = None
        self.probe_until_s = 0.0
        self.era = 0
        self.eras: dict[int, int] = {}

    @rule()
    def begin(self) -> None:
        passes = self.state == "closed"
        if self.state == "open" and self.now_s >= self.open_until_s:
            self.state, self.probe = "half_open", None
            self.era += 1
        is_probe = self.state == "half_open" and (self.probe is None or self.now_s >= self.probe_until_s)
        ticket = self.circuit.acquire(self.now_s)
        assert (ticket is not None) == (passes or is_probe)
        if ticket is None:
            return
        self.out.append(ticket)
        self.eras.setdefault(ticket, self.era)
        if is_probe:
            self.probe, self.probe_until_s = ticket, self.now_s + self.settings.permit_s

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "fail", "ignored"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        ticket = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        {
            "ok": lambda: self.circuit.succeed(ticket),
            "fail": lambda: self.circuit.fail(ticket, self.now_s),
            "ignored": lambda: self.circuit.release(ticket, self.now_s),
        }[outcome]()
        if self.state == "half_open" and ticket == self.probe:
            self._probe_ended(outcome)
        elif self.state == "closed" and self.eras[ticket] == self.era:
            if outcome == "ok":
                self.failures = []
            elif outcome == "fail":
                self.failures = [*self.failures, self.now_s][-self.settings.failure_threshold :]
                if len(self.failures) == 3 and self.now_s - self.failures[0] <= self.settings.window_s:
                    self._open()

    def _probe_ended(self, outcome: str) -> None:
        self.probe = None
        if outcome == "ok":
            self.state, self.failures = "closed", []
            self.era += 1
        elif outcome == "fail":
            self._open()

    def _open(self) -> None:
        self.state, self.failures, self.probe = "open", [], None
        self.open_until_s = self.now_s + self.settings.open_s
        self.era += 1

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 49.0, 50.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def reset(self) -> None:
        self.circuit.reset()
        self.state, self.failures, self.probe = "closed", [], None
        self.era += 1

    @invariant()
    def states_agree(self) -> None:
        assert self.circuit.state.value == self.state
        assert self.circuit.passes == (self.state == "closed")
        assert self.circuit.num_failures() == len(self.failures)

    @invariant()
    def transitions_are_legal(self) -> None:
        resets = {("half_open", "closed"), ("open", "closed")}
        for change in self.transitions:
            assert (change.before.value, change.after.value) in LEGAL | resets


TestCircuitAgainstModel: Callable[[], None] = CircuitAgainstModel.TestCase
TestCircuitAgainstModel.settings = settings(  # type: ignore[attr-defined]
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
