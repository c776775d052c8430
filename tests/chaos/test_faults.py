"""The fault matrix, row by row: accepted is stored exactly once, and nothing stands still for long.

The rows are ``bench.faults``'; here each runs once, on one floor of real processes. Rows that
show what another one shows, and repetitions, are left to ``make test-chaos``.
"""

import random
from collections.abc import Iterator

import pytest

from bench.fault_floor import FaultFloor, fault_floor
from bench.faults import ROWS, run, run_mosquitto

pytestmark = [pytest.mark.mqtt, pytest.mark.redis, pytest.mark.postgres, pytest.mark.timeout(300)]

LONGEST_BLOCK_S = 60.0
"""SQL may take 3 s to answer and 5 s to connect here, Valkey 2 s; times what a busy machine may add."""
AGAIN = {"network to SQL cut", "network to Valkey cut", "detector SIGSTOP"}
"""Rows that show little that another does not."""
ROUNDS = 3


@pytest.fixture(scope="module")
def floor() -> Iterator[FaultFloor]:
    with fault_floor() as started:
        yield started


def check(floor: FaultFloor, row: str) -> None:
    if row == "Valkey's disk full" and floor.disk is None:
        pytest.skip("this user may not mount a small disk")
    figures = run(floor, row)
    print(figures)
    assert (figures["lost"], figures["doubled"]) == (0, 0), figures
    assert figures["stored"] == figures["accepted"] > 0, figures
    assert (figures["longest_block_s"] or 0.0) < LONGEST_BLOCK_S, figures


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.chaos] if row in AGAIN else []) for row in ROWS])
def test_accepted_is_stored_once(floor: FaultFloor, row: str) -> None:
    """Whatever breaks, and in whichever order."""
    check(floor, row)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_faults_one_after_the_other_add_up_to_nothing(floor: FaultFloor, seed: int) -> None:
    """All rows in an order of chance on the same floor: what one leaves behind is the next one's start."""
    rows = list(ROWS)
    random.Random(seed).shuffle(rows)
    for row in rows:
        check(floor, row)


@pytest.mark.mosquitto
def test_a_killed_mosquitto_loses_what_it_had_not_saved_and_doubles_nothing() -> None:
    """How much that is depends on when it saved last: measured and printed, not promised."""
    figures = run_mosquitto()
    print(figures)

    assert figures["doubled"] == 0
    assert figures["stored"] + figures["lost"] == figures["accepted"] > 0
