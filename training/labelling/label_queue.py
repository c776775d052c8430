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
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, Select, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.clock import Clock
from cluster.errors import ClusterError
from cluster.ids import new_id
from cluster.store import read_transaction, write_transaction
from training.errors import StaleLeaseError
from training.labelling.labels import (
    Label,
    LabelRequest,
    Provenance,
    Question,
    RequestState,
    label_requests,
    label_skips,
    labels,
)

R = TypeVar("R")
Step = Callable[[Connection], R]

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


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds leases, and through what."""

    user_id: str
    session: str
    """Id of the socket, or any name that ends with the person's visit."""
    tenant: str | None = None
    """Only this tenant's questions; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says to a question that they hold."""

    request_id: str
    token: int
    value: str
    user_id: str
    saw_proposal: bool = False
    """Whether the model's proposal was shown; decides the label's provenance."""


class LabelQueue:
    """Label requests and labels in the floor's SQL store."""

    def __init__(self, engine: Engine, clock: Clock, settings: LabelQueueSettings | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or LabelQueueSettings()

    def together(self, steps: Sequence[Step[Any]]) -> list[Any]:
        """Carry out several calls in one transaction.

        A step that raises one of our errors has written nothing and does not hinder the others.

        Returns:
            For each step its result, or the error that it raised.
        """
        results: list[Any] = []
        with write_transaction(self._engine) as connection:
            for step in steps:
                try:
                    results.append(step(connection))
                except ClusterError as error:
                    results.append(error)
        return results

    def ask(self, questions: Sequence[Question]) -> Step[int]:
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

    def lease(self, holder: Holder, count: int) -> Step[tuple[LabelRequest, ...]]:
        """Give ``holder`` the most important questions that nobody else has and that they have not skipped.

        What they hold already comes first, so a repeated call returns the same questions.
        """

        def step(connection: Connection) -> tuple[LabelRequest, ...]:
            now = self._clock.time_s()
            _take_back(connection, now)
            wanted = min(count, self._settings.max_leases)
            held = connection.execute(
                select(label_requests)
                .where(
                    label_requests.c.state == RequestState.LEASED,
                    label_requests.c.lease_session == holder.session,
                    label_requests.c.lease_user == holder.user_id,
                )
                .order_by(label_requests.c.priority.desc(), label_requests.c.id)
                .limit(wanted)
            ).all()
            fresh = connection.execute(_waiting(holder).limit(wanted - len(held))).all() if wanted > len(held) else []
            chosen = [*(row.id for row in held), *(row.id for row in fresh)]
            if chosen:
                until = now + self._settings.lease_s
                is_fresh = label_requests.c.id.in_([row.id for row in fresh])
                connection.execute(
                    update(label_requests)
                    .where(is_fresh)
                    .values(
                        state=RequestState.LEASED,
                        token=label_requests.c.token + 1,
                        lease_user=holder.user_id,
                        lease_session=holder.session,
                    )
                )
                connection.execute(
                    update(label_requests).where(label_requests.c.id.in_(chosen)).values(lease_until=until)
                )
            return _requests(connection, chosen)

        return step

    def renew(self, holder: Holder) -> Step[int]:
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

    def release(self, session: str) -> Step[int]:
        """Give back at once all that was leased through a socket that is gone; return how many."""

        def step(connection: Connection) -> int:
            return connection.execute(
                update(label_requests)
                .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_session == session)
                .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
            ).rowcount

        return step

    def answer(self, answer: Answer) -> Step[Label]:
        """Keep a person's label and close the question.

        Raises:
            StaleLeaseError: (as the step's result) somebody else holds or answered it, or it was withdrawn.
        """

        def step(connection: Connection) -> Label:
            request = _held(connection, answer.request_id, answer.token, answer.user_id)
            key = f"request:{request.id}:{answer.token}"
            if request.state is RequestState.ANSWERED:
                known = connection.execute(select(labels).where(labels.c.key == key)).first()
                if known is None:
                    raise StaleLeaseError(request.id, answer.token, "it has an answer")
                return _label(known)
            assisted = answer.saw_proposal and request.proposal is not None
            label = Label(
                id=new_id(),
                at=self._clock.time_s(),
                tenant=request.tenant,
                subject=request.subject,
                value=answer.value,
                user_id=answer.user_id,
                provenance=Provenance.ASSISTED if assisted else Provenance.MANUAL,
                request_id=request.id,
                token=answer.token,
                model_id=request.model_id if assisted else None,
                confidence=request.confidence if assisted else None,
            )
            keep(connection, label, key)
            connection.execute(
                update(label_requests)
                .where(label_requests.c.id == request.id)
                .values(state=RequestState.ANSWERED, lease_session=None, lease_until=None)
            )
            return label

        return step

    def skip(self, request_id: str, token: int, user_id: str, reason: str = "") -> Step[None]:
        """Give a question back for good, as far as this person is concerned.

        Raises:
            StaleLeaseError: (as the step's result) they do not hold it.
        """

        def step(connection: Connection) -> None:
            request = _held(connection, request_id, token, user_id)
            if request.state is RequestState.ANSWERED:
                raise StaleLeaseError(request_id, token, "it has an answer")
            _insert_skip(connection, request_id, user_id, self._clock.time_s(), reason)
            connection.execute(
                update(label_requests)
                .where(label_requests.c.id == request_id)
                .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
            )

        return step

    def keep_own(self, given: Sequence[Label]) -> Step[int]:
        """Keep labels that a model gave and return how many are new; one a subject and model version."""

        def step(connection: Connection) -> int:
            return sum(keep(connection, label, _own_key(label)) for label in given)

        return step

    def withdraw(self, asked_by: str, except_model: str | None = None) -> Step[int]:
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


def keep(connection: Connection, label: Label, key: str) -> bool:
    """Add a label unless one with the same ``key`` is there; return whether it is new."""
    insert_ = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    values = {column.name: getattr(label, column.name) for column in labels.c if column.name != "key"}
    statement = insert_(labels).values(**values, key=key).on_conflict_do_nothing(index_elements=["key"])
    return connection.execute(statement).rowcount > 0


def _own_key(label: Label) -> str:
    return f"auto:{hashlib.sha256(f'{label.model_id} {label.subject}'.encode()).hexdigest()}"


def _take_back(connection: Connection, now: float) -> None:
    """Open again what was leased and not renewed in time; its token stays, so a late answer still counts."""
    connection.execute(
        update(label_requests)
        .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_until < now)
        .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
    )


def _waiting(holder: Holder) -> Select[Any]:
    skipped = exists().where(label_skips.c.request_id == label_requests.c.id, label_skips.c.user_id == holder.user_id)
    query = select(label_requests.c.id).where(label_requests.c.state == RequestState.OPEN, ~skipped)
    if holder.tenant is not None:
        query = query.where(label_requests.c.tenant == holder.tenant)
    return query.order_by(label_requests.c.priority.desc(), label_requests.c.id)


def _held(connection: Connection, request_id: str, token: int, user_id: str) -> LabelRequest:
    row = connection.execute(select(label_requests).where(label_requests.c.id == request_id)).first()
    if row is None:
        raise StaleLeaseError(request_id, token, "there is no such question")
    request = _request(row)
    if request.token != token or request.lease_user != user_id:
        raise StaleLeaseError(request_id, token, "somebody else has it")
    if request.state is RequestState.WITHDRAWN:
        raise StaleLeaseError(request_id, token, "it was withdrawn")
    return request


def _requests(connection: Connection, ids: Sequence[str]) -> tuple[LabelRequest, ...]:
    if not ids:
        return ()
    rows = connection.execute(select(label_requests).where(label_requests.c.id.in_(ids))).all()
    found = {row.id: _request(row) for row in rows}
    return tuple(found[request_id] for request_id in ids)


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


def _request(row: Row[Any]) -> LabelRequest:
    values = dict(row._mapping)
    details = values.pop("question")
    values |= {"state": RequestState(values["state"]), "model_id": values["model_id"] or None}
    return LabelRequest(**values, details=details)


def _label(row: Row[Any]) -> Label:
    values = dict(row._mapping)
    del values["key"]
    return Label(**values | {"provenance": Provenance(values["provenance"])})
