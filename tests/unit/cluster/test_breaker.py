"""The guard around a call: what runs, what counts, what comes back."""

import asyncio
import ssl
import threading
import time
import tracemalloc

import pytest
from fakes_cluster import FakeClock

from cluster import metrics
from cluster.breaker import Breaker
from cluster.circuit import CircuitState
from cluster.circuit_policies import BreakerSettings
from cluster.errors import CallTimeoutError, CircuitOpenError

OPEN_S = 300.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(BreakerSettings(), now=clock.monotonic_s)


def fail(breaker: Breaker, error: BaseException, times: int = 5, service: str = "mqtt_broker") -> None:
    for _ in range(times):
        with pytest.raises(type(error)), breaker.call(service):
            raise error


def counted(counter: object, service: str = "mqtt_broker") -> float:
    return float(counter.labels(service)._value.get())  # type: ignore[attr-defined]


def test_after_five_failures_the_body_does_not_run(breaker: Breaker) -> None:
    """The sixth call is refused before it begins."""
    fail(breaker, ConnectionError("down"))

    with pytest.raises(CircuitOpenError) as refused, breaker.call("mqtt_broker"):
        pytest.fail("a refused call ran")
    assert refused.value.retry_in_s == OPEN_S
    assert breaker.is_open("mqtt_broker")


def test_services_have_circuits_of_their_own(breaker: Breaker) -> None:
    """The broker's outage does not stop webhooks."""
    fail(breaker, ConnectionError("down"))

    assert not breaker.is_open("webhook")


def test_it_closes_after_a_probe(breaker: Breaker, clock: FakeClock) -> None:
    """After 300 s one call goes through, and its success closes the circuit."""
    fail(breaker, ConnectionError("down"))
    clock.advance(OPEN_S)

    with breaker.call("mqtt_broker"):
        pass

    assert breaker.snapshot()[0].state is CircuitState.CLOSED


def test_who_asks_before_each_call_does_not_keep_the_probe_away(breaker: Breaker, clock: FakeClock) -> None:
    """``is_open`` is false as soon as a call would be let through, and asking changes nothing."""
    fail(breaker, ConnectionError("down"))
    clock.advance(OPEN_S)

    assert [breaker.is_open("mqtt_broker") for _ in range(3)] == [False] * 3
    assert breaker.snapshot()[0].state is CircuitState.OPEN


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ValueError("bad payload"), id="bad-payload"),
        pytest.param(TypeError("wrong type"), id="wrong-type"),
        pytest.param(KeyError("missing"), id="missing-key"),
        pytest.param(UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), id="bad-text"),
        pytest.param(CircuitOpenError("other", 1.0), id="another-circuit-is-open"),
        pytest.param(KeyboardInterrupt(), id="ctrl-c"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
        pytest.param(GeneratorExit(), id="generator-closed"),
    ],
)
def test_what_is_no_outage_neither_counts_nor_heals(breaker: Breaker, error: BaseException) -> None:
    """Ignored errors between failures leave the count as it is."""
    fail(breaker, ConnectionError("down"), times=4)
    fail(breaker, error, times=10)
    assert not breaker.is_open("mqtt_broker")

    fail(breaker, ConnectionError("down"), times=1)

    assert breaker.is_open("mqtt_broker")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConnectionRefusedError("refused"), id="refused"),
        pytest.param(TimeoutError("slow"), id="timeout"),
        pytest.param(CallTimeoutError("mqtt_broker", 10), id="deadline"),
        pytest.param(ssl.SSLCertVerificationError("expired"), id="certificate-is-also-a-value-error"),
        pytest.param(RuntimeError("unknown"), id="anything-else"),
    ],
)
def test_outages_count(breaker: Breaker, error: Exception) -> None:
    """Five of each open."""
    fail(breaker, error)

    assert breaker.is_open("mqtt_broker")


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()], ids=["ignored", "interrupted"])
def test_a_probe_that_says_nothing_gives_its_permit_back(
    breaker: Breaker, clock: FakeClock, error: BaseException
) -> None:
    """The next call may probe at once; the circuit is not stuck half-open."""
    fail(breaker, ConnectionError("down"))
    clock.advance(OPEN_S)
    fail(breaker, error, times=1)

    with breaker.call("mqtt_broker"):
        pass

    assert breaker.snapshot()[0].state is CircuitState.CLOSED


def test_each_refusal_is_a_new_error(breaker: Breaker) -> None:
    """A shared one would collect tracebacks for the length of an outage."""
    fail(breaker, ConnectionError("down"))
    refusals = []
    for _ in range(2):
        with pytest.raises(CircuitOpenError) as refused, breaker.call("mqtt_broker"):
            pass
        refusals.append(refused.value)

    assert refusals[0] is not refusals[1]


def test_the_deadline_counts_down(breaker: Breaker, clock: FakeClock) -> None:
    """The client is given what is left, and checking raises when nothing is."""
    with breaker.call("mqtt_broker", timeout_s=10) as deadline:
        clock.advance(4)
        assert deadline.remaining_s() == 6
        deadline.check()
        clock.advance(7)
        assert deadline.remaining_s() == 0
        with pytest.raises(CallTimeoutError, match="longer than 10 s"):
            deadline.check()


def test_forcing_and_reset(breaker: Breaker) -> None:
    """An operator opens a circuit before a maintenance and closes it after."""
    breaker.force("mqtt_broker", CircuitState.FORCED_OPEN, author="ada", reason="broker moves")
    assert breaker.is_open("mqtt_broker")
    status = breaker.status("mqtt_broker")
    assert (status.cause, status.author, status.reason) == ("forced", "ada", "broker moves")

    breaker.reset("mqtt_broker", author="ada")
    assert not breaker.is_open("mqtt_broker")

    breaker.force("mqtt_broker", CircuitState.FORCED_CLOSED)
    fail(breaker, ConnectionError("down"), times=20)
    assert not breaker.is_open("mqtt_broker")


@pytest.mark.parametrize("service", ["sql.127.0.0.1-5432", "valkey"])
def test_what_each_process_decides_for_itself_cannot_be_forced(breaker: Breaker, service: str) -> None:
    """It would hold in one process of many, and nobody could say in which."""
    with pytest.raises(ValueError, match="on its own"):
        breaker.force(service, CircuitState.FORCED_OPEN)


def test_stores_are_probed_again_after_a_second(breaker: Breaker, clock: FakeClock) -> None:
    """Three time-outs in a row, then nobody waits for a time-out more than once a second."""
    fail(breaker, ConnectionError("down"), times=3, service="valkey.127.0.0.1-6379")
    assert breaker.is_open("valkey.127.0.0.1-6379")
    clock.advance(1.0)

    with breaker.call("valkey.127.0.0.1-6379"):
        pass
    assert breaker.status("valkey.127.0.0.1-6379").state is CircuitState.CLOSED


def test_an_adapter_says_what_an_outage_is(breaker: Breaker) -> None:
    """A full store answers: that is no outage of it, and no proof of health either."""
    breaker.count_only("valkey", lambda error: isinstance(error, ConnectionError))
    fail(breaker, RuntimeError("OOM command not allowed"), times=20, service="valkey")
    assert not breaker.is_open("valkey")

    fail(breaker, ConnectionError("down"), times=3, service="valkey")
    assert breaker.is_open("valkey")


def test_a_guarded_function_is_counted_and_refused(breaker: Breaker, clock: FakeClock) -> None:
    """The decorator does what the block does, and leaves name and result alone."""
    answers: list[Exception | str] = [ConnectionError("down")] * 5 + ["fine"]

    @breaker.guard("mqtt_broker")
    def ask(question: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return question + answer

    for _ in range(5):
        with pytest.raises(ConnectionError):
            ask("?")
    with pytest.raises(CircuitOpenError):
        ask("?")
    clock.advance(OPEN_S)

    assert ask("how? ") == "how? fine"
    assert ask.__name__ == "ask"
    assert breaker.status("mqtt_broker").state is CircuitState.CLOSED


async def test_a_guarded_coroutine_is_counted_and_refused(breaker: Breaker, clock: FakeClock) -> None:
    """pybreaker never counts these: after 20 errors it is still closed."""

    @breaker.guard("mqtt_broker")
    async def ask(error: Exception | None) -> str:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return "fine"

    for _ in range(5):
        with pytest.raises(ConnectionError):
            await ask(ConnectionError("down"))
    with pytest.raises(CircuitOpenError):
        await ask(None)
    clock.advance(OPEN_S)
    with pytest.raises(ValueError, match="bad"):
        await ask(ValueError("bad payload"))  # says nothing: the permit comes back

    assert await ask(None) == "fine"
    assert breaker.status("mqtt_broker").state is CircuitState.CLOSED


def test_an_outage_is_detected_after_five_deadlines(breaker: Breaker, clock: FakeClock) -> None:
    """A broker that swallows everything: five calls of 10 s, and the sixth does not wait."""

    def swallowed() -> None:
        with breaker.call("mqtt_broker", timeout_s=10) as deadline:
            clock.advance(deadline.remaining_s())
            deadline.check()

    while not breaker.is_open("mqtt_broker"):
        with pytest.raises(CallTimeoutError):
            swallowed()

    assert clock.monotonic_s() - FakeClock().monotonic_s() <= 50


def test_no_thread_waits_while_the_circuit_is_open(breaker: Breaker) -> None:
    """The service hangs, and yet 64 threads are through at once: none of them calls it."""
    fail(breaker, TimeoutError("no answer"))
    let_go = threading.Event()
    refused: list[int] = []

    def call(number: int) -> None:
        try:
            with breaker.call("mqtt_broker", timeout_s=600):
                let_go.wait(600)
        except CircuitOpenError:
            refused.append(number)

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(refused) == list(range(64))


def test_the_status_says_what_went_wrong(breaker: Breaker) -> None:
    """For ``watchfloor circuits``."""
    fail(breaker, ConnectionError("connection refused"), times=2)

    (status,) = breaker.snapshot()

    assert (status.service, status.state, status.failures) == ("mqtt_broker", CircuitState.CLOSED, 2)
    assert status.last_error == "ConnectionError: connection refused"


def test_a_service_name_is_a_metric_label(breaker: Breaker) -> None:
    """So it cannot be just anything."""
    with pytest.raises(ValueError, match="named by"):
        breaker.call("http://host/path?q=1")


def test_each_breaker_metric_is_caused(breaker: Breaker, clock: FakeClock) -> None:
    """The four of the seed, and refusals."""
    watched = (
        metrics.external_service_circuit_open,
        metrics.external_service_circuit_closed,
        metrics.external_service_call_timeout,
        metrics.external_service_call_failure,
        metrics.external_service_rejected,
    )
    before = [counted(metric) for metric in watched]
    fail(breaker, ConnectionError("down"), times=3)
    fail(breaker, TimeoutError("slow"), times=2)
    with pytest.raises(CircuitOpenError), breaker.call("mqtt_broker"):
        pass
    clock.advance(OPEN_S)
    with breaker.call("mqtt_broker"):
        pass

    assert [counted(metric) - old for metric, old in zip(watched, before, strict=True)] == [1, 1, 2, 5, 1]


async def test_async_calls_are_counted(breaker: Breaker, clock: FakeClock) -> None:
    """The same object guards ``async with``."""
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with breaker.call("mqtt_broker"):
                raise TimeoutError
    with pytest.raises(CircuitOpenError):
        async with breaker.call("mqtt_broker"):
            pytest.fail("a refused call ran")
    clock.advance(OPEN_S)

    async with breaker.call("mqtt_broker"):
        pass

    assert not breaker.is_open("mqtt_broker")


async def test_cancelled_calls_do_not_open(breaker: Breaker) -> None:
    """A client that hangs up is no outage."""

    async def guarded() -> None:
        async with breaker.call("mqtt_broker"):
            await asyncio.sleep(3600)

    for _ in range(10):
        task = asyncio.create_task(guarded())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert not breaker.is_open("mqtt_broker")


async def test_a_cancelled_probe_gives_its_permit_back(breaker: Breaker, clock: FakeClock) -> None:
    """In asyncio as well."""
    fail(breaker, ConnectionError("down"))
    clock.advance(OPEN_S)

    async def probe() -> None:
        async with breaker.call("mqtt_broker"):
            await asyncio.sleep(3600)

    task = asyncio.create_task(probe())
    while not breaker.is_open("mqtt_broker"):  # noqa: ASYNC110 - until the permit is out
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with breaker.call("mqtt_broker"):
        pass
    assert breaker.snapshot()[0].state is CircuitState.CLOSED


async def test_100_tasks_and_32_threads_at_the_edge_make_one_probe(breaker: Breaker, clock: FakeClock) -> None:
    """All begin when the open time is over: one body runs, the others are refused."""
    fail(breaker, ConnectionError("down"))
    clock.advance(OPEN_S)
    ran: list[str] = []
    refused: list[str] = []
    all_asked = threading.Event()

    async def in_task() -> None:
        try:
            async with breaker.call("mqtt_broker"):
                ran.append("task")
                await asyncio.to_thread(all_asked.wait, 10)
        except CircuitOpenError:
            refused.append("task")

    def in_thread() -> None:
        try:
            with breaker.call("mqtt_broker"):
                ran.append("thread")
                all_asked.wait(10)
        except CircuitOpenError:
            refused.append("thread")

    threads = [threading.Thread(target=in_thread) for _ in range(32)]
    for thread in threads:
        thread.start()
    tasks = [asyncio.create_task(in_task()) for _ in range(100)]
    while len(refused) < 131:  # noqa: ASYNC110 - threads count as well
        await asyncio.sleep(0.001)
    all_asked.set()
    await asyncio.gather(*tasks)
    for thread in threads:
        thread.join()

    assert len(ran) == 1
    assert breaker.snapshot()[0].state is CircuitState.CLOSED


def test_no_opening_in_100_000_healthy_calls(breaker: Breaker) -> None:
    """Single failures among successes never open it."""
    opened = counted(metrics.external_service_circuit_open, "healthy")
    for call in range(100_000):
        if call % 50 == 0:
            fail(breaker, ConnectionError("once"), times=1, service="healthy")
        else:
            with breaker.call("healthy"):
                pass

    assert counted(metrics.external_service_circuit_open, "healthy") == opened


def test_refusals_cost_no_memory(breaker: Breaker) -> None:
    """An outage of any length leaves nothing behind."""
    fail(breaker, ConnectionError("down"))

    def refuse(times: int) -> None:
        for _ in range(times):
            try:
                with breaker.call("mqtt_broker"):
                    pass
            except CircuitOpenError:
                continue

    refuse(1000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    refuse(20_000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert grown < 20_000


def test_a_guarded_call_is_cheap() -> None:
    """A loose bound for a busy machine; the figure itself is the bench's."""
    breaker = Breaker(BreakerSettings())
    started_s = time.thread_time()
    for _ in range(50_000):
        with breaker.call("cheap"):
            pass

    assert (time.thread_time() - started_s) / 50_000 < 20e-6
