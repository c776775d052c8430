"""Calls that travel together: what is shared, what is not, and what ends nobody's wait but one's own."""

import asyncio
from collections.abc import Sequence

import pytest

from cluster.errors import ServiceUnavailableError
from training.labelling import call_line
from training.labelling.call_line import CallLine

SOON_S = 30.0


class Trips:
    """Carries numbers: each comes back doubled, once the gate is open; 13 ends its trip."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gone: list[list[int]] = []
        self.under_way = 0

    async def travel(self, calls: Sequence[int]) -> list[int]:
        self.gone.append(list(calls))
        self.under_way += 1
        assert self.under_way == 1
        await self.gate.wait()
        self.under_way -= 1
        if 13 in calls:
            raise ServiceUnavailableError("label queue", "its trip", "13")
        return [2 * call for call in calls]


async def begun(line: CallLine[int], *groups: Sequence[int]) -> list["asyncio.Task[Sequence[int]]"]:
    """Hand each group over, in this order; the first one is on its way, alone."""
    tasks = []
    for group in groups:
        tasks.append(asyncio.create_task(line.carry(group, SOON_S)))
        for _ in range(3):
            await asyncio.sleep(0)
    return tasks


async def test_whoever_comes_while_a_trip_is_under_way_shares_the_next() -> None:
    """Each hears of its own calls."""
    trips = Trips()
    tasks = await begun(CallLine(trips.travel), [1], [2], [3, 4], [5])
    trips.gate.set()

    assert [await task for task in tasks] == [[2], [4], [6, 8], [10]]
    assert trips.gone == [[1], [2, 3, 4, 5]]


async def test_a_rest_between_trips_lets_more_calls_share_one() -> None:
    """A lone call does not wait for company; whoever comes soon after a trip began does."""
    trips = Trips()
    trips.gate.set()
    line = CallLine(trips.travel, rest_s=1.0)

    assert await line.carry([1], SOON_S) == [2]
    tasks = await begun(line, [2], [3])
    assert [await task for task in tasks] == [[4], [6]]
    assert trips.gone == [[1], [2, 3]]


async def test_a_trip_has_a_limit_and_a_group_stays_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_line, "MOST_TOGETHER", 2)
    trips = Trips()
    tasks = await begun(CallLine(trips.travel), [1], [2], [3, 4], [5])
    trips.gate.set()

    assert [await task for task in tasks] == [[2], [4], [6, 8], [10]]
    assert trips.gone == [[1], [2, 3, 4], [5]]


async def test_a_trip_that_fails_is_heard_of_by_those_on_it_alone() -> None:
    trips = Trips()
    line = CallLine(trips.travel)
    first, shared, failed = await begun(line, [1], [2], [13])
    trips.gate.set()

    assert await first == [2]
    for task in (shared, failed):
        with pytest.raises(ServiceUnavailableError, match="13"):
            await task
    assert await line.carry([4], SOON_S) == [8]


async def test_what_is_taken_back_while_it_waits_does_not_leave() -> None:
    """And what is taken back on its way hinders nobody on the same trip."""
    trips = Trips()
    line = CallLine(trips.travel)
    first, waiting, other = await begun(line, [1], [2], [3])
    first.cancel()
    waiting.cancel()
    await asyncio.wait([first, waiting])
    trips.gate.set()

    assert await other == [6]
    assert trips.gone == [[1], [3]]


async def test_nobody_waits_without_a_bound() -> None:
    """Neither on the way nor in the line."""
    trips = Trips()
    line = CallLine(trips.travel)
    await begun(line, [1])
    with pytest.raises(ServiceUnavailableError, match=r"no answer within 0\.01 s"):
        await line.carry([2], 0.01)
    trips.gate.set()

    assert await line.carry([3], SOON_S) == [6]
    assert trips.gone == [[1], [3]]


async def test_a_full_line_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_line, "MOST_WAITING", 2)
    trips = Trips()
    line = CallLine(trips.travel)
    tasks = await begun(line, [1], [2, 3])
    with pytest.raises(ServiceUnavailableError, match="2 calls wait already"):
        await line.carry([4], SOON_S)
    trips.gate.set()

    assert [await task for task in tasks] == [[2], [4, 6]]
    assert await line.carry([4, 5], SOON_S) == [8, 10]


def test_a_line_outlives_the_loop_that_ended_under_it() -> None:
    """A client is used by one ``asyncio.run`` after the other."""
    gone: list[int] = []

    async def travel(calls: Sequence[int]) -> Sequence[int]:
        gone.extend(calls)
        if 1 in calls:
            await asyncio.sleep(3600)
        return calls

    line = CallLine(travel)

    async def given_up() -> None:
        await begun(line, [1], [2])

    asyncio.run(given_up())
    assert asyncio.run(line.carry([3], SOON_S)) == [3]
    assert gone == [1, 3]
