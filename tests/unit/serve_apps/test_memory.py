"""One replica's memory for its clients: bounded, and paid by those who read least."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from serve_apps.codes import CloseCode
from serve_apps.credit import Budget, CreditWindow
from serve_apps.gateway_settings import KIB, GatewaySettings
from serve_apps.memory import Memory
from tests.fakes_gateway import LocalHub, draft
from tests.unit.serve_apps.test_connections import connected, make

LIMITS = GatewaySettings(
    ring_total_bytes=100, memory_soft_bytes=1000, memory_bytes=2000, credit_bytes=400, credit_ping_bytes=100
)


def test_windows_shrink_between_the_limits() -> None:
    """From the full window to one ping's distance, and to nothing beyond the hard limit."""
    memory = Memory(LIMITS)
    windows = []
    for held in (1000, 1500, 2000, 2001, 2500, 0):
        memory.add(held - memory.client_bytes)
        windows.append(memory.window_bytes)

    assert windows == [400, 250, 100, 0, 0, 400]


def test_rings_count_as_well() -> None:
    """They are held for all together."""
    memory = Memory(LIMITS)
    memory.set_rings(1500)

    assert (memory.held_bytes, memory.window_bytes) == (1500, 250)


class Held:
    def __init__(self, held_bytes: int, waits_since_s: float | None = 1.0) -> None:
        self.held_bytes = held_bytes
        self.waits_since_s = waits_since_s


def test_those_who_leave_most_unread_for_longest_are_cut_until_the_rest_fits() -> None:
    """Down to the soft limit, at once and once; nobody before the hard limit is passed."""
    calls: list[int] = []
    memory = Memory(LIMITS, lambda: calls.append(memory.held_bytes))
    clients = [Held(900, waits_since_s=None), Held(300, waits_since_s=-2.0), Held(700), Held(200)]
    memory.add(2000)
    assert (memory.surplus(clients, 2.0), calls) == ([], [])
    for _ in range(2):
        memory.add(50)

    assert [client.held_bytes for client in memory.surplus(clients, 2.0)] == [300, 700, 200]
    assert calls == [2050]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["send", "ping", "pong", "end"]), st.integers(1, 500))))
def test_what_is_held_is_what_the_clients_hold(steps: list[tuple[int, str, int]]) -> None:
    """After any steps, and nothing once they have ended."""
    memory = Memory(LIMITS)
    budgets = [CreditWindow(LIMITS, memory), CreditWindow(LIMITS, memory), Budget(LIMITS, memory)]
    for number, step, size in steps:
        credit = budgets[number]
        match step:
            case "send":
                credit.on_sent(size)
            case "ping":
                credit.on_ping(0.0)
            case "pong":
                credit.on_pong(0.0)
            case _:
                credit.end()
        assert memory.client_bytes == sum(one.in_flight_bytes for one in budgets)
    for credit in budgets:
        credit.end()
    assert memory.client_bytes == 0


async def test_clients_that_never_read_are_cut_and_the_reader_goes_on() -> None:
    """The hard limit holds at every moment; who answers its pings gets everything."""
    hub = LocalHub()
    register = make(
        hub, ring_total_bytes=100 * KIB, memory_soft_bytes=200 * KIB, memory_bytes=300 * KIB,
        credit_bytes=100 * KIB, credit_ping_bytes=4 * KIB,
    )  # fmt: skip
    idle = [await connected(register, user="bob") for _ in range(60)]
    for _ in range(4):  # each is sent a ping with the last of these, and answers none
        await hub.publish([draft("noc:all", {"x": "y" * 1000})])
        await idle[0][1].until(lambda made: len(made.publications("noc:all")) > 0)
    await asyncio.sleep(0.05)
    reader, heard = await connected(register)
    most = answered = 0
    for number in range(60):
        await hub.publish([draft("noc:all", {"n": number, "x": "y" * 1000})])
        await heard.until(lambda made, wanted=number: len(made.publications("noc:all")) > wanted)  # type: ignore[misc]
        pings = sum(line == {} for line in heard.lines)
        for _ in range(pings - answered):
            await reader.on_text("{}")
        answered = pings
        most = max(most, register.memory.held_bytes)

    assert most <= (300 + 64) * KIB
    assert [push["data"]["n"] for push in heard.publications("noc:all")] == list(range(60))
    cut = [transport for _, transport in idle if transport.close_code is not None]
    assert cut
    assert {transport.close_code for transport in cut} == {CloseCode.SLOW}
    assert heard.close_code is None
    for connection, _ in [*idle, (reader, heard)]:
        register.close(connection)
    assert (register.memory.client_bytes, register.book().imbalance()) == (0, {})
    await register.stop()
