"""Coroutines that begin at once."""

import asyncio

import pytest

from cluster.eager import begin

pytestmark = pytest.mark.anyio


async def test_what_need_not_wait_is_over_at_once() -> None:
    """No turn of the loop is taken."""
    done: list[str] = []

    async def work() -> None:
        done.append("done")

    assert begin(work()) is None
    assert done == ["done"]


async def test_the_rest_goes_on_where_it_waited() -> None:
    """Through several waits of different kinds."""
    gate, done = asyncio.Event(), []

    async def work() -> None:
        done.append("begun")
        await gate.wait()
        await asyncio.sleep(0)
        done.append("done")

    rest = begin(work())
    assert rest is not None
    assert done == ["begun"]

    async def finish() -> None:
        await rest

    task = asyncio.create_task(finish())
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    await task
    assert done == ["begun", "done"]


async def test_errors_come_from_where_they_happen() -> None:
    """Before the first wait from ``begin``, after it from the rest."""
    gate = asyncio.Event()

    async def early() -> None:
        raise ValueError("early")

    async def late() -> None:
        await gate.wait()
        raise ValueError("late")

    with pytest.raises(ValueError, match="early"):
        begin(early())
    rest = begin(late())
    gate.set()
    assert rest is not None
    with pytest.raises(ValueError, match="late"):
        await rest


async def test_a_cancelled_rest_cancels_the_coroutine() -> None:
    """It may tidy up."""
    tidied = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tidied.append(True)

    rest = begin(work())
    assert rest is not None

    async def finish() -> None:
        await rest

    task = asyncio.create_task(finish())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tidied == [True]
