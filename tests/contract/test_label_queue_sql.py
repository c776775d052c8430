"""The label queue on both databases: whatever people do, and whichever replies are lost, nothing is given twice."""

import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cluster.store import read_transaction
from tests.fakes_alerts import FakeClock
from training.errors import StaleLeaseError
from training.labelling.answering import Answer
from training.labelling.label_queue import LabelQueue, LabelQueueSettings
from training.labelling.labels import LabelRequest, Question, RequestState, labels
from training.labelling.leasing import Holder

QUESTIONS = 60
LEASE_S = 60.0
HOLDERS = [
    *(Holder(f"user-{number}", f"visit-{number}", ("acme", "zeta", None)[number % 3]) for number in range(6)),
    Holder("user-0", "another-visit", "acme"),
]


@pytest.mark.parametrize("seed", range(4))
def test_a_lease_is_one_persons_and_each_question_has_one_label(sql: Engine, seed: int) -> None:
    """Calls come in any order and company; leases run out, people skip, leave, and repeat what they did not hear of."""
    rng, clock = random.Random(seed), FakeClock()
    queue = LabelQueue(sql, clock, LabelQueueSettings(lease_s=LEASE_S, max_leases=4))
    people = People(queue, rng)
    asked = [
        Question(subject=f"w:{number}", asked_by="m", tenant=("acme", "zeta")[number % 2], priority=float(number % 5))
        for number in range(QUESTIONS)
    ]
    assert queue.together([queue.ask(asked)]) == [QUESTIONS]

    for _ in range(1_000):
        people.act()
        clock.advance(rng.choice((0.0, 1.0, LEASE_S / 2, LEASE_S + 1)))
        if queue.counts()[RequestState.ANSWERED] == QUESTIONS:
            break

    with read_transaction(sql) as connection:
        kept = connection.execute(select(labels.c.subject, labels.c.request_id, labels.c.token, labels.c.user_id)).all()
    assert Counter(row.subject for row in kept) == {question.subject: 1 for question in asked}
    assert all(people.holders[row.request_id, row.token].user_id == row.user_id for row in kept)
    assert {row.subject for row in kept} >= people.confirmed


class People:
    """People at the queue, of whose replies a third is lost."""

    def __init__(self, queue: LabelQueue, rng: random.Random) -> None:
        self.holders: dict[tuple[str, int], Holder] = {}
        """Who was given a question with a token."""
        self.confirmed: set[str] = set()
        self._queue = queue
        self._rng = rng
        self._held: dict[Holder, list[LabelRequest]] = {holder: [] for holder in HOLDERS}

    def act(self) -> None:
        """Make some calls in one transaction, and look at what comes back."""
        calls = [(holder, self._step(holder)) for holder in self._rng.choices(HOLDERS, k=self._rng.randint(1, 8))]
        results = self._queue.together([step for _, step in calls])
        for (holder, step), result in zip(calls, results, strict=True):
            if isinstance(result, tuple):
                self._given(holder, result)
            elif isinstance(step, Answer) and not isinstance(result, StaleLeaseError) and self._hears():
                assert (result.request_id, result.token, result.user_id) == (step.request_id, step.token, step.user_id)
                self.confirmed.add(result.subject)

    def _step(self, holder: Holder) -> Any:
        held, wish = self._held[holder], self._rng.random()
        if held and wish < 0.5:
            one = self._rng.choice(held)  # may be answered already, or somebody else's by now
            return self._queue.answer(Answer(request_id=one.id, token=one.token, value="n", user_id=holder.user_id))
        if held and wish < 0.55:
            return self._queue.skip(held[0].id, held[0].token, holder.user_id, "cannot tell")
        if wish < 0.6:
            return self._queue.release(holder.session)
        if wish < 0.65:
            return self._queue.renew(holder)
        return self._queue.lease(holder, self._rng.randint(1, 4))

    def _given(self, holder: Holder, given: tuple[LabelRequest, ...]) -> None:
        # The queue gave it, whether the reply arrives or not.
        for one in given:
            assert self.holders.setdefault((one.id, one.token), holder) == holder
            assert holder.tenant in (None, one.tenant)
        if self._hears():
            self._held[holder] = list(given)

    def _hears(self) -> bool:
        return self._rng.random() > 1 / 3
