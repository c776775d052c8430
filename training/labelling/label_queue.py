"""The queue of label requests: each is with one person at a time, and none is lost.

One transaction per batch of calls, so that many people wait for one fsync together. Knows
no page and no model. Invariants: a lease carries a fencing token that grows with every
lease, and an answer counts only with the newest one -- a person whose lease ran out may
still answer until somebody else has it, and never afterwards; every call may be repeated.

References:
    Kleppmann, How to do distributed locking (2016), for fencing tokens.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.clock import Clock
from cluster.errors import ClusterError
from cluster.ids import new_id
from cluster.store import read_transaction, write_transaction
from training.errors import StaleLeaseError
from training.labelling.answering import Answer, answer_all, check_held, keep_all, read_requests
from training.labelling.labels import Label, Question, RequestState, label_requests, label_skips
from training.labelling.leasing import Holder, LeaseCall, lease_all

Step = Answer | LeaseCall | Callable[[Connection], Any]
"""A call: of a kind that many make at once, or anything that is done on the queue's transaction."""

CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelQueueSettings:
    """How long a question stays with a person, and how many may wait."""

    lease_s: float = 120.0
    """A lease that is not renewed for so long is given to the next person, in seconds."""
    max_leases: int = 20
    """Questions that one person may hold at a time."""
    max_open: int = 50_000
    """Questions that may wait; beyond it the least important new ones are not taken in."""

    def __post_init__(self) -> None:
        if self.lease_s <= 0:
            raise ValueError(f"lease_s must be positive, got {self.lease_s}")
        if not 1 <= self.max_leases <= CHUNK:
            raise ValueError(f"max_leases must be 1-{CHUNK}, got {self.max_leases}")
        if self.max_open < 1:
            raise ValueError(f"max_open must be at least 1, got {self.max_open}")


class LabelQueue:
    """Label requests and labels in the floor's SQL store."""

    def __init__(self, engine: Engine, clock: Clock, settings: LabelQueueSettings | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or LabelQueueSettings()

    def together(self, steps: Sequence[Step]) -> list[Any]:
        """Carry out several calls in one transaction: answers first, leases last, each kind all at once.

        A step that raises one of our errors has written nothing and does not hinder the others.

        Returns:
            For each step its result, or the error that it raised.
        """
        results: dict[int, Any] = {}
        answers = {at: step for at, step in enumerate(steps) if isinstance(step, Answer)}
        leases = {at: step for at, step in enumerate(steps) if isinstance(step, LeaseCall)}
        now = self._clock.time_s()
        with write_transaction(self._engine) as connection:
            if answers:
                results |= zip(answers, answer_all(connection, list(answers.values()), now), strict=True)
            for at, step in enumerate(steps):
                if isinstance(step, Answer | LeaseCall):
                    continue
                try:
                    results[at] = step(connection)
                except ClusterError as error:
                    results[at] = error
            if leases:
                found = lease_all(connection, list(leases.values()), now, self._settings.lease_s)
                results |= zip(leases, found, strict=True)
        return [results[at] for at in range(len(steps))]

    def ask(self, questions: Sequence[Question]) -> Callable[[Connection], int]:
        """Put questions into the queue and return how many are new.

        The same subject, asked by the same strategy for the same model version, is one question.
        """

        def step(connection: Connection) -> int:
            now = self._clock.time_s()
            open_count = connection.execute(
                select(func.count()).where(label_requests.c.state.in_((RequestState.OPEN, RequestState.LEASED)))
            ).scalar_one()
            room = max(0, self._settings.max_open - open_count)
            wanted = sorted(questions, key=lambda question: -question.priority)[:room]
            rows = [_row(question, now) for question in wanted]
            before = connection.execute(select(func.count()).select_from(label_requests)).scalar_one()
            _insert_new(connection, rows)
            return int(connection.execute(select(func.count()).select_from(label_requests)).scalar_one() - before)

        return step

    def lease(self, holder: Holder, count: int) -> LeaseCall:
        """Give ``holder`` the most important questions that nobody else has and that they have not skipped.

        What they hold already comes first, so a repeated call returns the same questions; the result
        is a tuple of ``LabelRequest``.
        """
        return LeaseCall(holder, min(count, self._settings.max_leases))

    def renew(self, holder: Holder) -> Callable[[Connection], int]:
        """Keep what ``holder`` has for another lease's time; return how many questions that is."""

        def step(connection: Connection) -> int:
            return connection.execute(
                update(label_requests)
                .where(
                    label_requests.c.state == RequestState.LEASED,
                    label_requests.c.lease_session == holder.session,
                    label_requests.c.lease_user == holder.user_id,
                )
                .values(lease_until=self._clock.time_s() + self._settings.lease_s)
            ).rowcount

        return step

    def release(self, session: str) -> Callable[[Connection], int]:
        """Give back at once all that was leased through a socket that is gone; return how many."""

        def step(connection: Connection) -> int:
            return connection.execute(
                update(label_requests)
                .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_session == session)
                .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
            ).rowcount

        return step

    def answer(self, answer: Answer) -> Answer:
        """Keep a person's label and close the question; the result is a ``Label`` or a ``StaleLeaseError``."""
        return answer

    def skip(self, request_id: str, token: int, user_id: str, reason: str = "") -> Callable[[Connection], None]:
        """Give a question back for good, as far as this person is concerned.

        Raises:
            StaleLeaseError: (as the step's result) they do not hold it.
        """

        def step(connection: Connection) -> None:
            found = read_requests(connection, {request_id}).get(request_id)
            request = check_held(found, request_id, token, user_id)
            if request.state is RequestState.ANSWERED:
                raise StaleLeaseError(request_id, token, "it has an answer")
            _insert_skip(connection, request_id, user_id, self._clock.time_s(), reason)
            connection.execute(
                update(label_requests)
                .where(label_requests.c.id == request_id)
                .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
            )

        return step

    def keep_own(self, given: Sequence[Label]) -> Callable[[Connection], int]:
        """Keep labels that a model gave and return how many are new; one a subject and model version."""

        def step(connection: Connection) -> int:
            return keep_all(connection, {_own_key(label): label for label in given}) if given else 0

        return step

    def withdraw(self, asked_by: str, except_model: str | None = None) -> Callable[[Connection], int]:
        """Take back a strategy's questions that nobody looks at, but those of one model version."""

        def step(connection: Connection) -> int:
            where = (label_requests.c.asked_by == asked_by) & (label_requests.c.state == RequestState.OPEN)
            if except_model is not None:
                where &= or_(label_requests.c.model_id != except_model, label_requests.c.model_id.is_(None))
            return connection.execute(update(label_requests).where(where).values(state=RequestState.WITHDRAWN)).rowcount

        return step

    def counts(self) -> dict[RequestState, int]:
        """Return how many questions are in each state."""
        query = select(label_requests.c.state, func.count()).group_by(label_requests.c.state)
        with read_transaction(self._engine) as connection:
            found = {RequestState(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in RequestState}


def _own_key(label: Label) -> str:
    return f"auto:{hashlib.sha256(f'{label.model_id} {label.subject}'.encode()).hexdigest()}"


def _row(question: Question, now: float) -> dict[str, Any]:
    return {
        "id": new_id(),
        "tenant": question.tenant,
        "subject": question.subject,
        "question": question.details,
        "asked_by": question.asked_by,
        "priority": question.priority,
        "proposal": question.proposal,
        "confidence": question.confidence,
        # Not NULL: to SQL two NULLs differ, and the same question would enter twice.
        "model_id": question.model_id or "",
        "created_at": now,
        "state": RequestState.OPEN,
        "token": 0,
    }


def _insert_new(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    insert_ = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    columns = ["subject", "asked_by", "model_id"]
    connection.execute(insert_(label_requests).on_conflict_do_nothing(index_elements=columns), rows)


def _insert_skip(connection: Connection, request_id: str, user_id: str, at: float, reason: str) -> None:
    known = select(label_skips.c.at).where(label_skips.c.request_id == request_id, label_skips.c.user_id == user_id)
    if connection.execute(known).first() is None:
        connection.execute(
            insert(label_skips).values(request_id=request_id, user_id=user_id, at=at, reason=reason[:256])
        )
