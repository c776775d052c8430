"""Coroutines that begin at once instead of at the loop's next turn.

What CPython 3.12 calls eager tasks (``asyncio.eager_task_factory``), for older Pythons and
for one call at a time. A send that need not wait ends before ``begin`` returns: no task, no
turn of the loop. Only for coroutines that never ask which task they run in, because up to
their first wait they run in the caller's.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any


def begin(coroutine: Coroutine[Any, Any, None]) -> "Rest | None":
    """Run ``coroutine`` up to its first wait; None when there was none, else an awaitable for the rest.

    Raises:
        Exception: what the coroutine raised before its first wait.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return Rest(coroutine, waits_for)


class Rest:
    """The part of a coroutine after its first wait; awaited once, by a task."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        # A future that it waits for is still marked as yielded and not yet taken, as a task expects it.
        waits_for = self._waits_for
        while True:
            advance: Callable[[], Any]
            try:
                advance = partial(self._coroutine.send, (yield waits_for))
            except BaseException as error:
                advance = partial(self._coroutine.throw, error)
            try:
                waits_for = advance()
            except StopIteration:
                return
