"""One circuit against a small model: random calls, results, waits, cancellations, orders of an operator."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.circuit import Cause, Circuit, CircuitState, SharedState, Transition
from cluster.circuit_policies import BreakerSettings

LEGAL = {("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open")}
"""What calls and time may do; an operator, or another process, may do anything."""


class CircuitAgainstModel(RuleBasedStateMachine):
    """The rule of failures in a row, as it is by default."""

    settings = BreakerSettings(failure_threshold=3, window_s=100.0, open_s=50.0, permit_s=10.0)

    def __init__(self) -> None:
        super().__init__()
        self.transitions: list[Transition] = []
        self.circuit = Circuit("x", self.settings, self.transitions.append)
        self.now_s = 0.0
        self.out: list[int] = []
        # The model.
        self.state = "closed"
        self.failures: list[float] = []
        self.calls: list[tuple[float, bool]] = []
        self.open_until_s = 0.0
        self.probe: int | None = None
        self.probe_until_s = 0.0
        self.era = 0
        self.eras: dict[int, int] = {}

    @rule()
    def begin(self) -> None:
        passes = self.state in {"closed", "forced_closed"}
        if self.state == "open" and self.now_s >= self.open_until_s:
            self._move("half_open")
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
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "fail", "fail", "ignored"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        ticket = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        {
            "ok": lambda: self.circuit.succeed(ticket, self.now_s),
            "fail": lambda: self.circuit.fail(ticket, self.now_s),
            "ignored": lambda: self.circuit.release(ticket, self.now_s),
        }[outcome]()
        if self.state == "half_open" and ticket == self.probe:
            self.probe = None
            if outcome == "ok":
                self._move("closed")
            elif outcome == "fail":
                self._open()
        elif self.state == "closed" and self.eras[ticket] == self.era and outcome != "ignored":
            self._count(failed=outcome == "fail")

    def _count(self, *, failed: bool) -> None:
        self.calls.append((self.now_s, failed))
        if not failed:
            self.failures = []
            return
        self.failures = [*self.failures, self.now_s][-3:]
        if self._is_streak() or self._is_rate_reached():
            self._open()

    def _is_streak(self) -> bool:
        threshold = self.settings.failure_threshold
        return 0 < threshold == len(self.failures) and self.now_s - self.failures[0] <= self.settings.window_s

    def _is_rate_reached(self) -> bool:
        slot_s = self.settings.window_s / 10
        oldest = self.now_s // slot_s - 10
        recent = [failed for at_s, failed in self.calls if at_s // slot_s > oldest]
        rate = self.settings.failure_rate
        return 0 < rate <= sum(recent) / len(recent) and len(recent) >= self.settings.minimum_calls

    def _open(self) -> None:
        self.open_until_s = self.now_s + self.settings.open_s
        self._move("open")

    def _move(self, state: str) -> None:
        self.state, self.failures, self.calls, self.probe = state, [], [], None
        self.era += 1

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0, 49.0, 50.0, 101.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def reset(self) -> None:
        self.circuit.reset("ada", "mended")
        self._move("closed")

    @rule(state=st.sampled_from([CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED]))
    def force(self, state: CircuitState) -> None:
        self.circuit.force(state, "ada", "maintenance")
        self._move(state.value)

    @rule(state=st.sampled_from([CircuitState.OPEN, CircuitState.CLOSED]), seconds=st.sampled_from([0.0, 7.0, 50.0]))
    def adopt(self, state: CircuitState, seconds: float) -> None:
        self.circuit.adopt(SharedState(state=state, remaining_s=seconds, cause=Cause("failures")), self.now_s)
        if state is CircuitState.OPEN:
            self.open_until_s = self.now_s + seconds
        self._move(state.value)

    @invariant()
    def states_agree(self) -> None:
        assert self.circuit.state.value == self.state
        assert self.circuit.passes == (self.state in {"closed", "forced_closed"})
        if self.settings.failure_threshold:
            assert self.circuit.num_failures() == len(self.failures)

    @invariant()
    def a_quiet_circuit_has_nothing_to_forget(self) -> None:
        if self.circuit.quiet:
            assert self.state == "forced_closed" or not self.failures

    @invariant()
    def transitions_are_legal(self) -> None:
        for change in self.transitions:
            by_calls = not change.is_adopted and change.cause.what not in {"forced", "reset"}
            assert not by_calls or (change.before.value, change.after.value) in LEGAL

    @invariant()
    def the_wait_agrees(self) -> None:
        if self.state == "open":
            assert self.circuit.retry_in_s(self.now_s) == max(0.0, self.open_until_s - self.now_s)


class CircuitWithRateAgainstModel(CircuitAgainstModel):
    """The failure rate alone."""

    settings = BreakerSettings(
        failure_threshold=0, failure_rate=0.5, minimum_calls=4, window_s=100.0, open_s=50.0, permit_s=10.0
    )


ENOUGH = settings(max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
TestCircuitAgainstModel: Callable[[], None] = CircuitAgainstModel.TestCase
TestCircuitAgainstModel.settings = ENOUGH  # type: ignore[attr-defined]
TestCircuitWithRateAgainstModel: Callable[[], None] = CircuitWithRateAgainstModel.TestCase
TestCircuitWithRateAgainstModel.settings = ENOUGH  # type: ignore[attr-defined]
