"""Leases of many people at once: who gets which question, in as many statements for fifty people as for one.

Runs inside a transaction of the label queue's one writer. Invariants: no question is given to
two people; every new lease has a token of its own; and a person who asks again gets what they
hold first.

Shapes: N calls of one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from training.labelling.label_rows import read_request
from training.labelling.labels import LabelRequest, RequestState, label_requests, label_skips


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds leases, and through what."""

    user_id: str
    session: str
    """Id of the socket, or any name that ends with the person's visit."""
    tenant: str | None = None
    """Only this tenant's questions; None: all."""


@dataclass(frozen=True, slots=True)
class LeaseCall:
    """One person's wish for questions."""

    holder: Holder
    count: int
    """Questions wanted, those included that they hold already."""


MOST_READ = 2_000
"""Waiting questions read at a time."""
Held = dict[tuple[str, str], list[LabelRequest]]
"""What people hold, by session and user, the most important first."""
_ORDER = (label_requests.c.priority.desc(), label_requests.c.id)
_GIVE = (
    update(label_requests)
    .where(label_requests.c.id == bindparam("request"))
    .values(
        state=RequestState.LEASED,
        token=label_requests.c.token + 1,
        lease_user=bindparam("user"),
        lease_session=bindparam("session"),
        lease_until=bindparam("until"),
    )
)


def lease_all(
    connection: Connection, calls_N: Sequence[LeaseCall], now: float, lease_s: float
) -> list[tuple[LabelRequest, ...]]:
    """Give each caller the most important questions that nobody else has and that they have not skipped.

    Args:
        connection: the queue's transaction.
        calls_N: in the order in which people are served.
        now: seconds since the Unix epoch.
        lease_s: how long a lease lasts.

    Returns:
        For each call what the person holds now, the most important first, those that they held before in front.
    """
    _take_back(connection, now)
    held = _held_by(connection, {call.holder.session for call in calls_N})
    choice = _Choice(connection, calls_N)
    until = now + lease_s
    given: list[dict[str, Any]] = []
    renewed: set[str] = set()
    results = []
    for call in calls_N:
        holder = call.holder
        own = held.setdefault((holder.session, holder.user_id), [])
        kept = [replace(one, lease_until=until) for one in own[: call.count]]
        renewed.update(one.id for one in kept)
        for waiting in choice.take(holder, call.count - len(kept)):
            given.append({"request": waiting.id, "user": holder.user_id, "session": holder.session, "until": until})
            kept.append(
                replace(
                    waiting,
                    state=RequestState.LEASED,
                    token=waiting.token + 1,
                    lease_user=holder.user_id,
                    lease_session=holder.session,
                    lease_until=until,
                )
            )
        own[: call.count] = kept
        results.append(tuple(kept))
    if given:
        connection.execute(_GIVE, given)
    renewed -= {row["request"] for row in given}
    if renewed:
        connection.execute(
            update(label_requests).where(label_requests.c.id.in_(sorted(renewed))).values(lease_until=until)
        )
    return results


class _Choice:
    """The questions that wait, the most important first, read as far as anybody needs, and who has skipped which."""

    def __init__(self, connection: Connection, calls_N: Sequence[LeaseCall]) -> None:
        self._connection = connection
        self._users = sorted({call.holder.user_id for call in calls_N})
        self._page = max(1, sum(call.count for call in calls_N))
        self._waiting: dict[str | None, list[LabelRequest]] = {}
        self._skipped: set[tuple[str, str]] = set()
        self._taken: set[str] = set()

    def take(self, holder: Holder, count: int) -> list[LabelRequest]:
        """Return up to ``count`` questions for a person; nobody is given them a second time."""
        chosen: list[LabelRequest] = []
        at = 0
        while len(chosen) < count:
            waiting = self._waiting.setdefault(holder.tenant, [])
            if at == len(waiting) and not self._read_on(holder.tenant, waiting):
                break
            request, at = waiting[at], at + 1
            if request.id not in self._taken and (request.id, holder.user_id) not in self._skipped:
                self._taken.add(request.id)
                chosen.append(request)
        return chosen

    def _read_on(self, tenant: str | None, waiting: list[LabelRequest]) -> bool:
        query = select(label_requests).where(label_requests.c.state == RequestState.OPEN)
        if tenant is not None:
            query = query.where(label_requests.c.tenant == tenant)
        rows = self._connection.execute(query.order_by(*_ORDER).offset(len(waiting)).limit(self._page)).all()
        waiting += map(read_request, rows)
        # Of these alone: what somebody has skipped in all may be any number.
        skips = select(label_skips.c.request_id, label_skips.c.user_id).where(
            label_skips.c.request_id.in_([row.id for row in rows]), label_skips.c.user_id.in_(self._users)
        )
        if rows:
            self._skipped.update((request_id, user_id) for request_id, user_id in self._connection.execute(skips))
        self._page = min(2 * self._page, MOST_READ)
        return bool(rows)


def _take_back(connection: Connection, now: float) -> None:
    """Open again what was leased and not renewed in time; its token stays, so a late answer still counts."""
    connection.execute(
        update(label_requests)
        .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_until < now)
        .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
    )


def _held_by(connection: Connection, sessions: set[str]) -> Held:
    query = (
        select(label_requests)
        .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_session.in_(sorted(sessions)))
        .order_by(*_ORDER)
    )
    held: Held = {}
    for row in connection.execute(query):
        held.setdefault((row.lease_session, row.lease_user), []).append(read_request(row))
    return held
