"""Circuits of several processes over a real Valkey."""

import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
import redis

from cluster.breaker import Breaker
from cluster.breaker_redis import CIRCUITS_KEY, Announce, RedisSharing
from cluster.circuit import CircuitState, SharedState
from cluster.circuit_policies import BreakerSettings
from cluster.errors import CircuitOpenError
from tests import waiting

pytestmark = pytest.mark.redis

SERVICE = "mqtt_broker"


@pytest.fixture
def processes() -> Iterator[Callable[..., Breaker]]:
    """Makes breakers that act as if each were in a process of its own."""
    made: list[RedisSharing] = []

    def make(url: str, announce: Announce | None = None, **fields: float) -> Breaker:
        settings = BreakerSettings(sync_interval_s=0.05, **fields)  # type: ignore[arg-type]
        breaker = Breaker(settings)
        sharing = RedisSharing(url, breaker, settings.sync_interval_s, announce)
        breaker.share(sharing)
        made.append(sharing)
        return breaker

    yield make
    for sharing in made:
        sharing.close()


def fail(breaker: Breaker, times: int = 5) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError), breaker.call(SERVICE):
            raise ConnectionError("down")


def eventually(check: Callable[[], bool], within_s: float = 3.0) -> bool:
    return waiting.eventually(check, within_s, every_s=0.01)


def knows_outage(breaker: Breaker) -> bool:
    """Also when the open time is over already, on a slow machine."""
    return any(circuit.state is not CircuitState.CLOSED for circuit in breaker.snapshot())


def test_a_process_that_made_no_call_knows(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """It opens here and is open there; also in a process that starts later."""
    one, two = processes(redis_url), processes(redis_url)
    fail(one)

    assert eventually(lambda: two.is_open(SERVICE))
    assert processes(redis_url).is_open(SERVICE)


def test_it_closes_everywhere(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """One process's probe closes the circuit of all."""
    one, two = processes(redis_url, open_s=0.3), processes(redis_url, open_s=0.3)
    fail(one)
    assert eventually(lambda: knows_outage(two))
    time.sleep(0.35)
    with one.call(SERVICE):
        pass

    assert eventually(lambda: two.snapshot()[0].state is CircuitState.CLOSED)


def test_while_one_process_probes_the_others_are_refused(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """The lease is the floor's, not the process's."""
    one, two = processes(redis_url, open_s=0.3), processes(redis_url, open_s=0.3)
    fail(one)
    assert eventually(lambda: knows_outage(two))
    time.sleep(0.35)

    with one.call(SERVICE), pytest.raises(CircuitOpenError), two.call(SERVICE):
        pytest.fail("a second probe")


def test_a_probe_given_back_can_be_taken_by_another_process(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """An ignored error in one process does not hold up the rest."""
    one, two = processes(redis_url, open_s=0.3), processes(redis_url, open_s=0.3)
    fail(one)
    assert eventually(lambda: knows_outage(two))
    time.sleep(0.35)
    with pytest.raises(ValueError, match="bad"), one.call(SERVICE):
        raise ValueError("bad payload")

    with two.call(SERVICE):
        pass
    assert eventually(lambda: one.snapshot()[0].state is CircuitState.CLOSED)


def test_forcing_reaches_everyone(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """An operator's word counts in all processes, with name and reason, and so does the reset."""
    one, two = processes(redis_url), processes(redis_url)
    assert one.force(SERVICE, CircuitState.FORCED_OPEN, author="ada", reason="broker moves")
    assert eventually(lambda: two.is_open(SERVICE))
    status = two.status(SERVICE)
    assert (status.state, status.author, status.reason) == (CircuitState.FORCED_OPEN, "ada", "broker moves")

    assert two.reset(SERVICE, author="bob", reason="moved")
    assert eventually(lambda: not one.is_open(SERVICE))
    assert one.status(SERVICE).author == "bob"


def test_a_process_that_starts_later_does_not_make_one_call(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """Forced open before it began: its first call is refused already."""
    processes(redis_url).force(SERVICE, CircuitState.FORCED_OPEN)

    with pytest.raises(CircuitOpenError), processes(redis_url).call(SERVICE):
        pytest.fail("a call while forced open")


def test_an_operator_wins_against_calls(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """One process's failures open the circuit in the moment in which another's operator forces it closed."""
    one, two = processes(redis_url), processes(redis_url)
    fail(one)
    two.force(SERVICE, CircuitState.FORCED_CLOSED, author="ada")

    assert eventually(lambda: one.status(SERVICE).state is CircuitState.FORCED_CLOSED)
    assert two.status(SERVICE).state is CircuitState.FORCED_CLOSED


def test_a_change_is_announced_once(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """By the process that decided; the others hear of it and say nothing."""
    said: list[tuple[str, str]] = []

    def announce(service: str, state: SharedState, key: str) -> None:
        said.append((str(state.state), key))

    many = [processes(redis_url, announce=announce, open_s=0.3) for _ in range(4)]
    fail(many[0])
    assert eventually(lambda: all(knows_outage(one) for one in many))
    time.sleep(0.35)
    with many[1].call(SERVICE):
        pass
    assert eventually(lambda: all(one.status(SERVICE).state is CircuitState.CLOSED for one in many))

    assert [state for state, _ in said] == ["open", "closed"]
    assert len({key for _, key in said}) == 2


def test_a_store_away_is_announced_under_one_key(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """Each process decides about a store itself: the hub drops what it has heard under the same key."""
    said: list[tuple[str, str, int]] = []

    def announce(service: str, state: SharedState, key: str) -> None:
        said.append((service, str(state.state), int(key.rpartition(":")[2])))

    many = [processes(redis_url, announce=announce) for _ in range(4)]
    for one in many:
        for _ in range(3):
            with pytest.raises(ConnectionError), one.call("sql.127.0.0.1-5432"):
                raise ConnectionError("down")

    assert eventually(lambda: len(said) == 4)
    assert {(service, state) for service, state, _ in said} == {("sql.127.0.0.1-5432", "open")}
    assert max(bucket for *_, bucket in said) - min(bucket for *_, bucket in said) <= 1


def test_a_store_that_lost_its_data_does_not_close_a_circuit(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """What the processes know stays, and later changes are told again."""
    one, two = processes(redis_url), processes(redis_url)
    fail(one)
    assert eventually(lambda: two.is_open(SERVICE))
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    time.sleep(0.2)
    assert one.is_open(SERVICE)
    assert two.is_open(SERVICE)

    one.reset(SERVICE)
    assert eventually(lambda: not two.is_open(SERVICE))


def test_without_a_store_each_process_goes_on_alone(processes: Callable[..., Breaker]) -> None:
    """Nothing listens at the address: the breaker works, and asking does not hang."""
    alone = processes("redis://127.0.0.1:1/0", open_s=0.3)
    started_s = time.monotonic()
    fail(alone)
    assert knows_outage(alone)
    assert time.monotonic() - started_s < 2
    time.sleep(0.35)

    with alone.call(SERVICE):
        pass
    assert not alone.is_open(SERVICE)


def test_the_circuit_of_the_store_itself_is_not_shared(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """It must work exactly when the store does not."""
    one = processes(redis_url)
    for service in ("valkey", SERVICE):
        for _ in range(5):
            with suppress(CircuitOpenError, ConnectionError), one.call(service):
                raise ConnectionError("down")
    with redis.Redis.from_url(redis_url) as client:
        assert eventually(lambda: bool(client.hexists(CIRCUITS_KEY, SERVICE)))
        assert not client.hexists(CIRCUITS_KEY, "valkey")


PROBING_PROCESS = """
    import sys, threading, time
    from cluster.breaker import Breaker
    from cluster.breaker_redis import RedisSharing
    from cluster.circuit import CircuitState
    from cluster.circuit_policies import BreakerSettings
    from cluster.errors import CircuitOpenError

    settings = BreakerSettings(open_s=600.0, sync_interval_s=0.1)
    breaker = Breaker(settings)
    breaker.share(RedisSharing(sys.argv[1], breaker, settings.sync_interval_s))
    told_to_stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told_to_stop.set()), daemon=True).start()
    print("ready", flush=True)
    while not any(circuit.state is CircuitState.OPEN for circuit in breaker.snapshot()):
        time.sleep(0.001)
    ran = 0
    while not told_to_stop.is_set():
        try:
            with breaker.call("mqtt_broker"):
                ran += 1
                print("probing", flush=True)
                told_to_stop.wait(60)
        except CircuitOpenError:
            time.sleep(0.001)
    print(ran, flush=True)
"""


def test_8_processes_at_the_edge_make_one_probe(redis_url: str, processes: Callable[..., Breaker]) -> None:
    """All hammer when the open time is over; one body runs in the whole floor."""
    argv = [sys.executable, "-c", textwrap.dedent(PROBING_PROCESS), redis_url]
    with ExitStack() as stack:
        children = [
            stack.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(8)
        ]
        for child in children:
            stack.callback(child.kill)
        for child in children:
            assert said(child) == "ready"
        fail(processes(redis_url, open_s=2.0))

        by_output = {child.stdout: child for child in children}
        (first,), _, _ = select.select(list(by_output), [], [], 30)
        prober = by_output.pop(first)
        assert said(prober) == "probing"
        time.sleep(1)  # for a second one to show itself
        # The prober last: its success closes the circuit, and then every call may pass.
        ran = [stopped(child) for child in by_output.values()]

        assert [*ran, stopped(prober)] == [["0"]] * 7 + [["1"]]


def said(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def stopped(child: "subprocess.Popen[str]") -> list[str]:
    """Let a process end, and return what it had still to say."""
    return child.communicate("stop\n", timeout=30)[0].split()
