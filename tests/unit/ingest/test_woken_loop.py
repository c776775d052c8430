"""A thread that works when woken: at once, until there is no more, through failures, to the end."""

import logging
import threading

import pytest

from ingest.woken_loop import WokenLoop

PATIENCE_S = 20.0
NEVER_S = 3600.0


class Work:
    """Turns that are counted, and fail as told."""

    def __init__(self) -> None:
        self.left = 0
        self.turns = 0
        self.error: Exception | None = None
        self.turned = threading.Semaphore(0)

    def turn(self) -> bool:
        self.turns += 1
        self.turned.release()
        if self.error is not None:
            raise self.error
        self.left -= 1
        return self.left > 0


def test_it_works_until_there_is_no_more_and_then_waits_to_be_woken() -> None:
    """Without a sweep in sight."""
    work = Work()
    work.left = 3
    loop = WokenLoop("test", work.turn, sweep_s=NEVER_S)
    loop.start()
    assert all(work.turned.acquire(timeout=PATIENCE_S) for _ in range(3))
    loop.wake()
    assert work.turned.acquire(timeout=PATIENCE_S)
    loop.close(PATIENCE_S)

    assert work.turns == 5, "the last turn comes with the end"


def test_a_failure_is_said_once_and_the_next_turn_comes(caplog: pytest.LogCaptureFixture) -> None:
    """By the sweep; and so is the end of it."""
    caplog.set_level(logging.INFO, logger="ingest.woken_loop")
    work = Work()
    work.error = OSError("away")
    loop = WokenLoop("test", work.turn, sweep_s=0.001)
    loop.start()
    assert all(work.turned.acquire(timeout=PATIENCE_S) for _ in range(5))
    work.error = None
    assert all(work.turned.acquire(timeout=PATIENCE_S) for _ in range(3))
    loop.close(PATIENCE_S)

    assert [record.message for record in caplog.records] == ["test waits: away", "test goes on"]


def test_a_closed_loop_ends_although_there_is_always_more() -> None:
    """Work without end does not keep a process."""
    work = Work()
    work.left = 10**9
    loop = WokenLoop("test", work.turn)
    loop.start()
    assert work.turned.acquire(timeout=PATIENCE_S)
    loop.close(PATIENCE_S)
    turns = work.turns

    assert not work.turned.acquire(timeout=0.05) or work.turns == turns
