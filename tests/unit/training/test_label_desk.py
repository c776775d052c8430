"""The desk: calls of many threads share transactions, and each gets its own answer."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cluster.errors import ServiceUnavailableError
from cluster.store import metadata, open_engine
from tests.fakes_alerts import FakeClock
from training.errors import StaleLeaseError
from training.labelling import label_desk
from training.labelling.answering import Answer
from training.labelling.label_desk import LabelDesk
from training.labelling.label_queue import LabelQueue
from training.labelling.labels import Question, RequestState
from training.labelling.leasing import Holder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def desk(engine: Engine) -> Iterator[LabelDesk]:
    desk = LabelDesk(LabelQueue(engine, FakeClock()))
    yield desk
    desk.close()


def test_many_people_share_the_queue_and_nothing_is_given_twice(desk: LabelDesk) -> None:
    """Every question is answered once, by the one who had it."""
    queue = desk.labels
    questions = [Question(subject=f"window:{number}", asked_by="margin") for number in range(200)]
    assert desk.submit(queue.ask(questions)).result(10) == 200

    def work(number: int) -> list[str]:
        holder, done = Holder(f"user-{number}", f"session-{number}"), []
        while leased := desk.submit(queue.lease(holder, 3)).result(10):
            for one in leased:
                answer = Answer(request_id=one.id, token=one.token, value="normal", user_id=holder.user_id)
                done.append(desk.submit(queue.answer(answer)).result(10).subject)
        return done

    with ThreadPoolExecutor(8) as pool:
        answered = [subject for part in pool.map(work, range(8)) for subject in part]

    assert sorted(answered) == sorted(question.subject for question in questions)


def test_a_call_that_fails_hinders_no_other(desk: LabelDesk) -> None:
    queue = desk.labels
    stale = desk.submit(queue.answer(Answer(request_id="no-such", token=1, value="normal", user_id="ann")))
    fine = desk.submit(queue.ask([Question(subject="w", asked_by="m")]))

    with pytest.raises(StaleLeaseError):
        stale.result(10)
    assert fine.result(10) == 1


def test_a_full_line_refuses_and_a_store_that_is_away_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_desk, "MOST_WAITING", 1)
    desk = LabelDesk(LabelQueue(engine, FakeClock()))
    metadata.drop_all(engine)
    with pytest.raises(ServiceUnavailableError, match="label queue's store"):
        desk.submit(desk.labels.ask([Question(subject="w", asked_by="m")])).result(10)
    desk.close()
    desk.submit(desk.labels.renew(Holder("ann", "s")))
    with pytest.raises(ServiceUnavailableError, match="calls wait already"):
        desk.submit(desk.labels.renew(Holder("ann", "s")))


def test_a_call_that_is_taken_back_ends_nothing(desk: LabelDesk) -> None:
    """Its caller is gone, and the desk goes on for all others."""
    queue = desk.labels
    begun, goes_on = threading.Event(), threading.Event()

    def slow(_connection: object) -> None:
        begun.set()
        goes_on.wait(10)

    first = desk.submit(slow)
    begun.wait(10)
    taken_back, other = desk.submit(queue.ask([Question(subject="x", asked_by="margin")])), desk.submit(lambda _: 7)
    assert taken_back.cancel()
    assert not first.cancel()
    goes_on.set()

    assert (first.result(10), other.result(10)) == (None, 7)
    assert queue.counts()[RequestState.OPEN] == 0
