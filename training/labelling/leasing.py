"""Leases of many people at once: who gets which question, in as many statements for fifty people as for one.

Runs inside a transaction of the label queue's one writer. Invariants: no question is given to
two people; every new lease has a token of its own; and a person who asks again gets what they
hold first.

Shapes: N calls of one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Integer, bindparam, select, update

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

# Made once: building a statement takes SQLAlchemy as long as SQLite takes to run it.
_ORDER = (label_requests.c.priority.desc(), label_requests.c.id)
_HELD = (
    select(label_requests)
    .where(
        label_requests.c.state == RequestState.LEASED,
        label_requests.c.lease_session.in_(bindparam("sessions", expanding=True)),
    )
    .order_by(*_ORDER)
)
_WAITING = (
    select(label_requests)
    .where(label_requests.c.state == RequestState.OPEN)
    .order_by(*_ORDER)
    .offset(bindparam("from_", type_=Integer))
    .limit(bindparam("count", type_=Integer))
)
_WAITING_OF_TENANT = _WAITING.where(label_requests.c.tenant == bindparam("tenant"))
_SKIPS = select(label_skips.c.request_id, label_skips.c.user_id).where(
    label_skips.c.request_id.in_(bindparam("requests", expanding=True)),
    label_skips.c.user_id.in_(bindparam("users", expanding=True)),
)
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
_RENEW = (
    update(label_requests)
    .where(label_requests.c.id.in_(bindparam("requests", expanding=True)))
    .values(lease_until=bindparam("until"))
)
_TAKE_BACK = (
    update(label_requests)
    .where(label_requests.c.state == RequestState.LEASED, label_requests.c.lease_until < bindparam("now"))
    .values(state=RequestState.OPEN, lease_session=None, lease_until=None)
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
    # What was leased and not renewed in time is open again; its token stays, so a late answer still counts.
    connection.execute(_TAKE_BACK, {"now": now})
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
        connection.execute(_RENEW, {"requests": sorted(renewed), "until": until})
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
        page: dict[str, Any] = {"from_": len(waiting), "count": self._page}
        if tenant is None:
            rows = self._connection.execute(_WAITING, page).all()
        else:
            rows = self._connection.execute(_WAITING_OF_TENANT, page | {"tenant": tenant}).all()
        waiting += map(read_request, rows)
        if rows:
            # Of these alone: what somebody has skipped in all may be any number.
            of_these = {"requests": [row.id for row in rows], "users": self._users}
            self._skipped.update((row.request_id, row.user_id) for row in self._connection.execute(_SKIPS, of_these))
        self._page = min(2 * self._page, MOST_READ)
        return bool(rows)


def _held_by(connection: Connection, sessions: set[str]) -> Held:
    held: Held = {}
    for row in connection.execute(_HELD, {"sessions": sorted(sessions)}):
        held.setdefault((row.lease_session, row.lease_user), []).append(read_request(row))
    return held
