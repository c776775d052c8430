"""Answers of many people at once: each becomes a label and closes its question, or is refused for its own reason.

Runs inside a transaction of the label queue's one writer. Invariants: an answer counts only
with the newest token of its question; the same answer twice is one label; one that is
refused has written nothing and hinders no other.

Shapes: N calls of one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.ids import new_id
from training.errors import StaleLeaseError
from training.labelling.label_rows import read_label, read_request, write_label
from training.labelling.labels import Label, LabelRequest, Provenance, RequestState, label_requests, labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person says to a question that they hold."""

    request_id: str
    token: int
    value: str
    user_id: str
    saw_proposal: bool = False
    """Whether the model's proposal was shown; decides the label's provenance."""


# Made once: building a statement takes SQLAlchemy as long as SQLite takes to run it.
_REQUESTS = select(label_requests).where(label_requests.c.id.in_(bindparam("requests", expanding=True)))
_LABELS = select(labels).where(labels.c.key.in_(bindparam("keys", expanding=True)))
_KEEP = {
    "sqlite": sqlite.insert(labels).on_conflict_do_nothing(index_elements=["key"]),
    "postgresql": postgresql.insert(labels).on_conflict_do_nothing(index_elements=["key"]),
}
_CLOSE = (
    update(label_requests)
    .where(label_requests.c.id.in_(bindparam("requests", expanding=True)))
    .values(state=RequestState.ANSWERED, lease_session=None, lease_until=None)
)


def answer_all(connection: Connection, answers_N: Sequence[Answer], now: float) -> list[Label | StaleLeaseError]:
    """Keep people's labels and close their questions.

    Args:
        connection: the queue's transaction.
        answers_N: in the order in which they came.
        now: seconds since the Unix epoch.

    Returns:
        For each answer its label, or why it does not count: somebody else holds or answered the question, or it
        was withdrawn.
    """
    requests = read_requests(connection, {answer.request_id for answer in answers_N})
    known = _known(connection, answers_N, requests)
    new: dict[str, Label] = {}
    results: list[Label | StaleLeaseError] = []
    for answer in answers_N:
        try:
            request = check_held(requests.get(answer.request_id), answer.request_id, answer.token, answer.user_id)
        except StaleLeaseError as error:
            results.append(error)
            continue
        key = _key(answer)
        if request.state is not RequestState.ANSWERED:
            known[key] = new[key] = _labelled(request, answer, now)
            requests[request.id] = replace(request, state=RequestState.ANSWERED)
        results.append(known.get(key) or StaleLeaseError(request.id, answer.token, "it has an answer"))
    if new:
        keep_all(connection, new)
        connection.execute(_CLOSE, {"requests": [label.request_id for label in new.values()]})
    return results


def keep_all(connection: Connection, new: dict[str, Label]) -> int:
    """Add labels, by key, but those whose keys are there; return how many are new."""
    rows = [write_label(label, key) for key, label in new.items()]
    return connection.execute(_KEEP[connection.dialect.name], rows).rowcount


def read_requests(connection: Connection, ids: set[str]) -> dict[str, LabelRequest]:
    """Return the questions that there are, by id."""
    rows = connection.execute(_REQUESTS, {"requests": sorted(ids)})
    return {row.id: read_request(row) for row in rows}


def check_held(request: LabelRequest | None, request_id: str, token: int, user_id: str) -> LabelRequest:
    """Return a question that a person may still answer or skip.

    Raises:
        StaleLeaseError: they may not.
    """
    if request is None:
        raise StaleLeaseError(request_id, token, "there is no such question")
    if request.token != token or request.lease_user != user_id:
        raise StaleLeaseError(request_id, token, "somebody else has it")
    if request.state is RequestState.WITHDRAWN:
        raise StaleLeaseError(request_id, token, "it was withdrawn")
    return request


def _known(connection: Connection, answers_N: Sequence[Answer], requests: dict[str, LabelRequest]) -> dict[str, Label]:
    """Return labels that these very answers became before, by key."""
    answered = {one.id for one in requests.values() if one.state is RequestState.ANSWERED}
    keys = {_key(answer) for answer in answers_N if answer.request_id in answered}
    if not keys:
        return {}
    rows = connection.execute(_LABELS, {"keys": sorted(keys)})
    return {row.key: read_label(row) for row in rows}


def _key(answer: Answer) -> str:
    return f"request:{answer.request_id}:{answer.token}"


def _labelled(request: LabelRequest, answer: Answer, now: float) -> Label:
    assisted = answer.saw_proposal and request.proposal is not None
    return Label(
        id=new_id(),
        at=now,
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
