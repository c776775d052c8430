"""The label queue: one person at a time, nothing lost, nothing answered twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cluster.errors import ClusterError
from cluster.ids import new_id
from cluster.store import metadata, open_engine, read_transaction
from tests.fakes_alerts import FakeClock
from training.errors import StaleLeaseError
from training.labelling.answering import Answer
from training.labelling.label_queue import LabelQueue, LabelQueueSettings
from training.labelling.label_snapshot import read_audits
from training.labelling.labels import AUDIT, Label, Provenance, Question, RequestState, labels
from training.labelling.leasing import Holder

ANN = Holder("ann", "socket-1")
BOB = Holder("bob", "socket-2")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def queue(engine: Engine, clock: FakeClock) -> LabelQueue:
    return LabelQueue(engine, clock, LabelQueueSettings(lease_s=60, max_leases=5, max_open=100))


def do(queue: LabelQueue, step: Any) -> Any:
    (result,) = queue.together([step])
    if isinstance(result, ClusterError):
        raise result
    return result


def questions(count: int, **more: Any) -> list[Question]:
    return [
        Question(subject=f"window:{number}", asked_by="margin", priority=float(number), **more)
        for number in range(count)
    ]


def test_the_most_important_first_and_to_one_person_only(queue: LabelQueue) -> None:
    """Two people never see the same question."""
    assert do(queue, queue.ask(questions(6))) == 6

    first = do(queue, queue.lease(ANN, 2))
    second = do(queue, queue.lease(BOB, 10))

    assert [request.subject for request in first] == ["window:5", "window:4"]
    assert [request.subject for request in second] == ["window:3", "window:2", "window:1", "window:0"]
    assert do(queue, queue.lease(Holder("eve", "socket-3"), 1)) == ()


def test_a_repeated_lease_returns_the_same(queue: LabelQueue) -> None:
    """An answer that was lost on its way costs nobody a question."""
    do(queue, queue.ask(questions(4)))

    assert do(queue, queue.lease(ANN, 2)) == do(queue, queue.lease(ANN, 2))
    assert queue.counts()[RequestState.LEASED] == 2


def test_the_same_question_is_asked_once(queue: LabelQueue) -> None:
    """By one strategy for one model version; another version may ask again."""
    assert do(queue, queue.ask(questions(3))) == 3
    assert do(queue, queue.ask(questions(4))) == 1
    assert do(queue, queue.ask(questions(3, model_id="m@2"))) == 3


def test_a_queue_has_a_bound(queue: LabelQueue) -> None:
    """The least important new ones stay outside."""
    assert do(queue, queue.ask(questions(130))) == 100
    assert do(queue, queue.ask([Question(subject="late", asked_by="audit", priority=9e9)])) == 0
    assert do(queue, queue.lease(ANN, 1))[0].subject == "window:129"


def test_an_answer_becomes_a_label_once(queue: LabelQueue) -> None:
    """Repeated with the same token it is the same label; a proposal that was shown is in its provenance."""
    do(queue, queue.ask(questions(2, proposal="anomaly", confidence=0.9, model_id="m@1")))
    one, two = do(queue, queue.lease(ANN, 2))

    assisted = do(
        queue,
        queue.answer(Answer(request_id=one.id, token=one.token, value="normal", user_id="ann", saw_proposal=True)),
    )
    again = do(
        queue,
        queue.answer(Answer(request_id=one.id, token=one.token, value="normal", user_id="ann", saw_proposal=True)),
    )
    manual = do(queue, queue.answer(Answer(request_id=two.id, token=two.token, value="anomaly", user_id="ann")))

    assert assisted == again
    assert (assisted.provenance, assisted.model_id, assisted.confidence) == (Provenance.ASSISTED, "m@1", 0.9)
    assert (manual.provenance, manual.model_id, manual.confidence) == (Provenance.MANUAL, None, None)
    assert queue.counts()[RequestState.ANSWERED] == 2


def test_a_lease_that_ran_out_is_the_next_persons(queue: LabelQueue, clock: FakeClock) -> None:
    """Late is fine while nobody else has it; with the old token it is too late."""
    do(queue, queue.ask(questions(2)))
    late, lost = do(queue, queue.lease(ANN, 2))
    clock.advance(61)
    assert (
        do(queue, queue.answer(Answer(request_id=late.id, token=late.token, value="normal", user_id="ann"))).user_id
        == "ann"
    )

    (taken,) = do(queue, queue.lease(BOB, 5))
    assert (taken.id, taken.token) == (lost.id, lost.token + 1)
    with pytest.raises(StaleLeaseError, match="somebody else has it"):
        do(queue, queue.answer(Answer(request_id=lost.id, token=lost.token, value="normal", user_id="ann")))
    with pytest.raises(StaleLeaseError, match="somebody else has it"):
        do(queue, queue.answer(Answer(request_id=taken.id, token=taken.token, value="normal", user_id="ann")))


def test_a_renewed_lease_stays(queue: LabelQueue, clock: FakeClock) -> None:
    do(queue, queue.ask(questions(1)))
    do(queue, queue.lease(ANN, 1))
    clock.advance(50)
    assert do(queue, queue.renew(ANN)) == 1
    clock.advance(50)

    assert do(queue, queue.lease(BOB, 1)) == ()


def test_a_closed_socket_gives_back_at_once(queue: LabelQueue) -> None:
    """Only what was leased through it."""
    do(queue, queue.ask(questions(3)))
    do(queue, queue.lease(ANN, 2))
    do(queue, queue.lease(replace(ANN, session="socket-9"), 1))

    assert do(queue, queue.release("socket-1")) == 2
    assert len(do(queue, queue.lease(BOB, 5))) == 2


def test_a_skipped_question_comes_to_others(queue: LabelQueue) -> None:
    do(queue, queue.ask(questions(1)))
    (request,) = do(queue, queue.lease(ANN, 1))
    do(queue, queue.skip(request.id, request.token, "ann", "cannot tell"))

    assert do(queue, queue.lease(ANN, 1)) == ()
    assert len(do(queue, queue.lease(BOB, 1))) == 1
    with pytest.raises(StaleLeaseError):
        do(queue, queue.skip(request.id, request.token, "ann"))


def test_tenants_label_their_own(queue: LabelQueue) -> None:
    do(queue, queue.ask([*questions(2, tenant="acme"), Question(subject="other", asked_by="margin", tenant="zeta")]))

    leased = do(queue, queue.lease(Holder("ann", "s", tenant="zeta"), 5))

    assert [request.subject for request in leased] == ["other"]


def test_questions_of_an_old_version_are_withdrawn(queue: LabelQueue) -> None:
    """But not those that somebody looks at."""
    do(queue, queue.ask(questions(3, model_id="m@1")))
    (looked_at,) = do(queue, queue.lease(ANN, 1))
    do(queue, queue.ask(questions(2, model_id="m@2")))

    assert do(queue, queue.withdraw("margin", except_model="m@2")) == 2
    assert (
        do(queue, queue.answer(Answer(request_id=looked_at.id, token=1, value="normal", user_id="ann"))).value
        == "normal"
    )


def test_a_refused_call_does_not_hinder_the_others(queue: LabelQueue) -> None:
    """Many people's calls are one transaction."""
    do(queue, queue.ask(questions(2)))
    (request,) = do(queue, queue.lease(ANN, 1))
    good = Answer(request_id=request.id, token=request.token, value="normal", user_id="ann")

    refused, label, leased = queue.together(
        [queue.answer(replace(good, request_id="no-such")), queue.answer(good), queue.lease(BOB, 1)]
    )

    assert isinstance(refused, StaleLeaseError)
    assert label.value == "normal"
    assert len(leased) == 1


@pytest.mark.parametrize(("name", "value"), [("lease_s", 0), ("max_leases", 0), ("max_leases", 501), ("max_open", 0)])
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        LabelQueueSettings(**{name: value})


def test_many_lease_at_once_and_nobody_gets_what_another_has_or_they_skipped(queue: LabelQueue) -> None:
    """One transaction for all: the first served has the first choice, a tenant's people see its questions alone."""
    do(queue, queue.ask(questions(4, tenant="acme")))
    do(queue, queue.ask([Question(subject="zeta", asked_by="margin", tenant="zeta", priority=9.0)]))
    (first,) = do(queue, queue.lease(Holder("ann", "s", tenant="acme"), 1))
    do(queue, queue.skip(first.id, first.token, "ann"))

    again, hers, his, twice = queue.together(
        [
            queue.lease(Holder("ann", "s", tenant="acme"), 1),
            queue.lease(Holder("ann", "s", tenant="acme"), 2),
            queue.lease(Holder("bob", "t"), 9),
            queue.lease(Holder("bob", "t"), 2),
        ]
    )

    assert [one.subject for one in again] == ["window:2"]
    assert [one.subject for one in hers] == ["window:2", "window:1"]
    assert [one.subject for one in his] == ["zeta", "window:3", "window:0"]
    assert twice == his[:2]
    assert {one.token for one in (*hers, *his)} == {1, 2}
    assert [one.token for one in his if one.subject == "window:3"] == [2]


def test_many_answer_at_once_and_a_repeated_answer_is_one_label(queue: LabelQueue) -> None:
    """Within one transaction as well as over two."""
    do(queue, queue.ask(questions(2)))
    one, two = do(queue, queue.lease(ANN, 2))
    said = Answer(request_id=one.id, token=one.token, value="normal", user_id="ann")
    other = replace(said, request_id=two.id, token=two.token)

    first, repeated, differs, second = queue.together([said, said, replace(said, value="anomaly"), other])
    (later,) = queue.together([said])

    assert first == repeated == differs == later
    assert (first.subject, second.subject) == (one.subject, two.subject)
    assert queue.counts()[RequestState.ANSWERED] == 2


def test_whoever_skipped_all_that_is_important_gets_the_rest(queue: LabelQueue) -> None:
    """However many those are; the others still get them."""
    do(queue, queue.ask(questions(12)))
    for _ in range(9):
        (one,) = do(queue, queue.lease(ANN, 1))
        do(queue, queue.skip(one.id, one.token, "ann"))

    mine, his = queue.together([queue.lease(ANN, 5), queue.lease(BOB, 1)])

    assert [one.subject for one in mine] == ["window:2", "window:1", "window:0"]
    assert [one.subject for one in his] == ["window:11"]


def test_a_models_own_labels_are_kept_once_a_version(queue: LabelQueue, engine: Engine) -> None:
    """Each says which version gave it; another version may say something else beside it."""

    def own(model_id: str, subject: str) -> Label:
        return Label(
            id=new_id(), at=1.0, subject=subject, value="normal", user_id="", provenance=Provenance.AUTO,
            model_id=model_id, confidence=0.97,
        )  # fmt: skip

    assert do(queue, queue.keep_own([own("classifier@1", "a"), own("classifier@1", "b")])) == 2
    assert do(queue, queue.keep_own([own("classifier@1", "a"), own("classifier@2", "a")])) == 1
    with read_transaction(engine) as connection:
        kept = connection.execute(select(labels.c.subject, labels.c.model_id).where(labels.c.provenance == "auto"))
        assert sorted(map(tuple, kept)) == [("a", "classifier@1"), ("a", "classifier@2"), ("b", "classifier@1")]


def test_audits_are_the_answers_to_random_questions_that_showed_no_proposal(queue: LabelQueue, engine: Engine) -> None:
    do(queue, queue.ask([Question(subject=name, asked_by=by) for name, by in (("a", AUDIT), ("b", "default"))]))
    given = {}
    for request in do(queue, queue.lease(Holder("ann", "session-1"), 2)):
        said = Answer(request_id=request.id, token=request.token, value="normal", user_id="ann")
        given[request.subject] = do(queue, queue.answer(said)).id

    with read_transaction(engine) as connection:
        assert read_audits(connection) == {given["a"]}
