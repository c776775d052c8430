"""One circuit against a small model, and at its edges."""

import threading

import pytest

from cluster.circuit import Cause, Circuit, CircuitState, SharedState
from cluster.circuit_policies import BreakerSettings
from cluster.failure_rate import FailureRate

OPEN_S = 300.0


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
        circuit.succeed(begin(circuit, 0), 0)

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

    circuit.succeed(probe, OPEN_S)

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

    circuit.succeed(hung, OPEN_S + 31)
    assert circuit.state is CircuitState.HALF_OPEN

    circuit.succeed(second, OPEN_S + 31)
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

    circuit.succeed(slow, OPEN_S)
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

    shared = circuit.shared_state(OPEN_S)
    assert (shared.state, shared.remaining_s) == (CircuitState.OPEN, 0.0)
    assert shared.cause == Cause("failures", reason="down")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"failure_threshold": 0}, id="no-failures"),
        pytest.param({"open_s": 0}, id="no-time"),
        pytest.param({"open_growth": 0.5}, id="shrinking"),
        pytest.param({"failure_rate": 1.5}, id="more-failures-than-calls"),
        pytest.param({"minimum_calls": 0}, id="a-rate-of-no-calls"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, float]) -> None:
    """The text has the bad value."""
    with pytest.raises(ValueError, match=str(next(iter(fields.values())))):
        BreakerSettings(**fields)  # type: ignore[arg-type]


def test_a_circuit_that_would_never_open_is_refused() -> None:
    """Neither rule is on: a mistake, not a breaker."""
    with pytest.raises(ValueError, match="no circuit would ever open"):
        BreakerSettings(failure_threshold=0)


def ten_calls(circuit: Circuit, failures: int, now_s: float) -> None:
    """Failures and successes taking turns, so that no streak opens it."""
    for number in range(10):
        ticket = begin(circuit, now_s)
        if number % 2 == 0 and number // 2 < failures:
            circuit.fail(ticket, now_s, "down")
        else:
            circuit.succeed(ticket, now_s)


def test_a_failure_rate_opens_without_a_streak() -> None:
    """Every second call fails: no five in a row, and yet nobody is served."""
    circuit = Circuit("x", BreakerSettings(failure_rate=0.5, minimum_calls=10, window_s=60))
    ten_calls(circuit, failures=4, now_s=0)
    assert circuit.state is CircuitState.CLOSED
    ten_calls(circuit, failures=5, now_s=1)  # 9 of 20
    assert circuit.state is CircuitState.CLOSED

    for _ in range(2):
        circuit.fail(begin(circuit, 2), 2, "down")

    assert circuit.state is CircuitState.OPEN
    assert circuit.cause == Cause("failure rate", reason="down")


def test_below_the_minimum_of_calls_a_rate_says_nothing() -> None:
    """The first call of the day fails: that is 100 %, and no outage."""
    circuit = Circuit("x", BreakerSettings(failure_threshold=0, failure_rate=0.5, minimum_calls=10))
    for _ in range(9):
        circuit.fail(begin(circuit, 0), 0)
    assert circuit.state is CircuitState.CLOSED

    circuit.fail(begin(circuit, 0), 0)
    assert circuit.state is CircuitState.OPEN


def test_calls_that_left_the_window_do_not_count_in_the_rate() -> None:
    """A bad minute an hour ago says nothing about now."""
    settings = BreakerSettings(failure_threshold=0, failure_rate=0.5, minimum_calls=10, window_s=60)
    circuit = Circuit("x", settings)
    for _ in range(9):
        circuit.fail(begin(circuit, 0), 0)
    for _ in range(9):
        circuit.fail(begin(circuit, 60), 60)

    assert circuit.state is CircuitState.CLOSED


def test_the_window_of_the_rate_has_a_bound() -> None:
    """A million calls take no more memory than ten."""
    rate = FailureRate(60.0)
    for call in range(10_000):
        rate.count(call * 0.1, failed=call % 2 == 0)

    assert len(rate._slots) == 10
    assert 540 <= rate.calls <= 600
    assert rate.failures == rate.calls // 2


def test_who_forced_a_circuit_is_known_until_it_is_reset() -> None:
    """Author and reason go with the state to the other processes."""
    circuit = Circuit("x", BreakerSettings())
    circuit.force(CircuitState.FORCED_OPEN, "ada", "broker moves")
    shared = circuit.shared_state(0)
    other = Circuit("x", BreakerSettings())
    other.adopt(shared, 0)
    assert other.cause == Cause("forced", "ada", "broker moves")

    other.reset("bob", "moved")
    assert other.cause == Cause("reset", "bob", "moved")


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
