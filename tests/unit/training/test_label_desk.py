"""The desk: calls of many people share transactions, and each gets its own answer."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cluster.errors import ClusterError, ServiceUnavailableError
from cluster.store import metadata, open_engine
from tests.fakes_alerts import FakeClock
from training.errors import StaleLeaseError
from training.labelling.answering import Answer
from training.labelling.label_desk import LabelDesk
from training.labelling.label_queue import LabelQueue
from training.labelling.labels import Question, RequestState
from training.labelling.leasing import Holder

SOON_S = 30.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def desk(engine: Engine) -> LabelDesk:
    return LabelDesk(LabelQueue(engine, FakeClock()))


async def do(desk: LabelDesk, step: Any) -> Any:
    (result,) = await desk.together([step], SOON_S)
    if isinstance(result, ClusterError):
        raise result
    return result


async def test_many_people_share_the_queue_and_nothing_is_given_twice(desk: LabelDesk) -> None:
    """Every question is answered once, by the one who had it."""
    queue = desk.labels
    questions = [Question(subject=f"window:{number}", asked_by="margin") for number in range(200)]
    assert await do(desk, queue.ask(questions)) == 200

    async def work(number: int) -> list[str]:
        holder, done = Holder(f"user-{number}", f"session-{number}"), []
        while leased := await do(desk, queue.lease(holder, 3)):
            for one in leased:
                answer = Answer(request_id=one.id, token=one.token, value="normal", user_id=holder.user_id)
                done.append((await do(desk, queue.answer(answer))).subject)
        return done

    answered = [subject for part in await asyncio.gather(*map(work, range(8))) for subject in part]

    assert sorted(answered) == sorted(question.subject for question in questions)


async def test_a_call_that_fails_hinders_no_other(desk: LabelDesk) -> None:
    """Neither of the same process nor of another one."""
    queue = desk.labels
    no_such = queue.answer(Answer(request_id="no-such", token=1, value="normal", user_id="ann"))
    (stale, fine), other = await asyncio.gather(
        desk.together([no_such, queue.ask([Question(subject="w", asked_by="m")])], SOON_S),
        do(desk, queue.ask([Question(subject="x", asked_by="m")])),
    )

    assert isinstance(stale, StaleLeaseError)
    assert (fine, other) == (1, 1)


async def test_a_call_that_cannot_be_carried_out_takes_nobody_along(desk: LabelDesk) -> None:
    """It broke the transaction that they shared: the others are carried out all the same, once."""
    ask = desk.labels.ask([Question(subject="w", asked_by="m")])
    broken, fine, again = await desk.together([lambda _: 1 / 0, ask, ask], SOON_S)

    assert isinstance(broken, ServiceUnavailableError)
    assert (fine, again) == (1, 0)
    assert desk.labels.counts()[RequestState.OPEN] == 1


async def test_a_store_that_is_away_says_so(desk: LabelDesk, engine: Engine) -> None:
    """And so does a call that breaks on something else; the desk goes on."""
    metadata.drop_all(engine)
    with pytest.raises(ServiceUnavailableError, match="label queue's store"):
        await do(desk, desk.labels.ask([Question(subject="w", asked_by="m")]))
    metadata.create_all(engine)
    with pytest.raises(ServiceUnavailableError, match="ZeroDivisionError"):
        await do(desk, lambda _: 1 / 0)

    assert await do(desk, desk.labels.ask([Question(subject="w", asked_by="m")])) == 1


async def test_a_call_that_is_taken_back_ends_nothing(desk: LabelDesk) -> None:
    """Its caller is gone, and the desk goes on for all others."""
    queue = desk.labels
    begun, goes_on = threading.Event(), threading.Event()

    def slow(_connection: object) -> None:
        begun.set()
        goes_on.wait(10)

    first = asyncio.create_task(do(desk, slow))
    assert await asyncio.to_thread(begun.wait, 10)
    taken_back = asyncio.create_task(do(desk, queue.ask([Question(subject="x", asked_by="margin")])))
    other = asyncio.create_task(do(desk, lambda _: 7))
    await asyncio.sleep(0)
    taken_back.cancel()
    await asyncio.wait([taken_back])
    goes_on.set()

    assert (await first, await other) == (None, 7)
    assert queue.counts()[RequestState.OPEN] == 0
