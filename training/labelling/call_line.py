"""Calls that travel together: whoever comes while others are on their way shares the next trip.

On one event loop, one trip at a time, and a bounded line. Knows no Ray and no queue. Invariants:
trips never overlap; calls handed over together travel together; what is taken back while it waits
does not leave; a full line refuses at once instead of growing, and nobody waits without a bound.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from cluster.errors import ServiceUnavailableError

MOST_WAITING = 10_000
MOST_TOGETHER = 128
"""Calls of one trip: beyond it the first ones would wait for the last without gaining from what they share."""

T = TypeVar("T")


class CallLine(Generic[T]):
    """Hands calls to ``travel``, several at a time."""

    def __init__(self, travel: Callable[[Sequence[T]], Awaitable[Sequence[Any]]], rest_s: float = 0.0) -> None:
        """Begin empty.

        Args:
            travel: carries calls out and returns a result for each; what it raises, it raises to all of them.
            rest_s: least time from one trip's begin to the next one's; more calls share a trip, and a lone call
                leaves at once.
        """
        self._travel = travel
        self._rest_s = rest_s
        self._line: deque[tuple[Sequence[T], asyncio.Future[Sequence[Any]]]] = deque()
        self._num_waiting = 0
        self._trip: asyncio.Task[None] | None = None

    async def carry(self, calls: Sequence[T], timeout_s: float) -> Sequence[Any]:
        """Return what ``travel`` returned for these calls.

        Raises:
            ServiceUnavailableError: the line is full, or ``timeout_s`` went by; then they may have been carried out.
            Exception: what ``travel`` raised.
        """
        if self._num_waiting + len(calls) > MOST_WAITING:
            raise ServiceUnavailableError("label queue", "its line", f"{self._num_waiting} calls wait already")
        results: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self._line.append((calls, results))
        self._num_waiting += len(calls)
        if self._trip is None or self._trip.done():
            self._trip = asyncio.create_task(self._run(), name="label-calls")
        try:
            return await asyncio.wait_for(results, timeout_s)
        except TimeoutError:
            raise ServiceUnavailableError("label queue", "its line", f"no answer within {timeout_s:g} s") from None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while together := self._next():
            may_leave_s = loop.time() + self._rest_s
            calls = [call for group, _ in together for call in group]
            try:
                outcome: Sequence[Any] | Exception = await self._travel(calls)
            except Exception as error:  # everybody on the trip hears of it, and the next one leaves
                outcome = error
            at = 0
            for group, results in together:
                if results.done():
                    pass  # taken back meanwhile
                elif isinstance(outcome, Exception):
                    results.set_exception(outcome)
                else:
                    results.set_result(outcome[at : at + len(group)])
                at += len(group)
            if (rest_s := may_leave_s - loop.time()) > 0:
                await asyncio.sleep(rest_s)

    def _next(self) -> list[tuple[Sequence[T], "asyncio.Future[Sequence[Any]]"]]:
        together = []
        count = 0
        while self._line and count < MOST_TOGETHER:
            group, results = self._line.popleft()
            self._num_waiting -= len(group)
            if not results.done():
                together.append((group, results))
                count += len(group)
        return together
