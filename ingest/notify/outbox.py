"""Messages on their way out: collected from the history of alerts, kept until they are delivered.

Cores ask for what is due and say what became of it; nothing here talks to a network. The
history is read in the order of its ids. A transaction may commit an id after a later one was
read, so the last ``LATE_S`` are looked at again. Invariants: an event makes one message,
whoever collects it; of one alert at most one message is under way, the oldest first; a
target has one sender at a time. Synchronous: call it off the event loop.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from cluster.clock import Clock
from cluster.ids import ALPHABET, LENGTH, TIME_CHARS, new_id
from cluster.store import read_transaction, write_transaction
from ingest.alerts.ledger import ALERT_COLUMNS, CHUNK, EVENT_COLUMNS, alert_from_row, event_from_row
from ingest.alerts.model import Alert, AlertEvent, iso
from ingest.alerts.tables import alert_events, alerts
from ingest.notify.tables import notification_targets, notifications

PENDING, DELIVERED, DEAD = "pending", "delivered", "dead"

LEASE_S = 30.0
"""How long a sender that died keeps others away, at least."""
LATE_S = 60.0
"""How much later than its id an event may be committed."""
LATE_EVERY_S = 5.0
LATE_EVENTS = 10_000
"""Most events that are looked at again."""
COLLECT = 1000
"""Events looked at in one turn."""
KEEP_DELIVERED_S = 3600.0
KEEP_DEAD_S = 7 * 86_400.0
MAX_DEAD = 10_000
TIDY_EVERY_S = 60.0

Body = Callable[[AlertEvent, Alert], bytes | None]
"""What a target is told of an event; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message that is due."""

    id: str
    """The same at every try, so that a receiver can leave out what it has."""
    alert_id: str
    attempts: int
    created_at: float
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of one try."""

    message: Message
    state: str
    at: float
    """When it is tried next, if it is pending."""
    attempts: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """What lies there."""

    pending: int
    dead: int
    oldest_at: float | None
    """When the oldest pending message was made."""


class Outbox:
    """The messages of one target."""

    def __init__(self, engine: Engine, clock: Clock, target: str, body: Body, max_pending: int, turn_s: float) -> None:
        """Begin without touching the store.

        Args:
            target: whose messages.
            body: what it is told of an event.
            max_pending: messages that may wait here.
            turn_s: longest time between two calls of ``own`` by a sender that lives.
        """
        self._engine = engine
        self._clock = clock
        self._target = target
        self._body = body
        self._max_pending = max_pending
        self._owner = new_id()
        self._lease_s = max(LEASE_S, turn_s)
        self._seen: dict[str, None] = {}
        self._next_late_at = 0.0
        self._next_tidy_at = 0.0

    def own(self) -> bool:
        """Become or stay the target's one sender; False: another process is."""
        now = self._clock.time_s()
        mine = and_(
            notification_targets.c.target == self._target,
            or_(notification_targets.c.owner == self._owner, notification_targets.c.owned_until <= now),
        )
        with write_transaction(self._engine) as connection:
            _make_target(connection, self._target)
            taken = connection.execute(
                update(notification_targets).where(mine).values(owner=self._owner, owned_until=now + self._lease_s)
            )
        return bool(taken.rowcount)

    def release(self) -> None:
        """Let another process send."""
        with write_transaction(self._engine) as connection:
            connection.execute(
                update(notification_targets)
                .where(notification_targets.c.target == self._target, notification_targets.c.owner == self._owner)
                .values(owned_until=0.0)
            )

    def collect(self) -> int:
        """Make messages of what has happened since the last look; return how many events were looked at."""
        now = self._clock.time_s()
        with read_transaction(self._engine) as connection:
            room = self._max_pending - _count(connection, self._target, PENDING)
            if room <= 0:
                # What waits there is safe in the history; here it would grow without end.
                return 0
            position = connection.scalar(
                select(notification_targets.c.position).where(notification_targets.c.target == self._target)
            )
            newer = select(alert_events.c.id).where(alert_events.c.id > (position or ""))
            ids = list(connection.scalars(newer.order_by(alert_events.c.id).limit(min(room, COLLECT))).all())
            last = ids[-1] if ids else None
            if now >= self._next_late_at and position:
                self._next_late_at = now + LATE_EVERY_S
                again = select(alert_events.c.id).where(
                    alert_events.c.id > id_at(_time_of(position) - LATE_S), alert_events.c.id <= position
                )
                found = connection.scalars(again.order_by(alert_events.c.id.desc()).limit(LATE_EVENTS)).all()
                ids = [one for one in reversed(found) if one not in self._seen] + ids
            told = _load(connection, ids)
        rows = [row for event, alert in told if (row := self._row(event, alert, now)) is not None]
        if rows or last:
            with write_transaction(self._engine) as connection:
                _insert_new(connection, rows)
                if last:
                    connection.execute(
                        update(notification_targets)
                        .where(notification_targets.c.target == self._target)
                        .values(position=last)
                    )
        self._remember(ids)
        return len(ids)

    def due(self, limit: int) -> list[Message]:
        """Return messages whose time has come, the oldest first, at most one of each alert."""
        now = self._clock.time_s()
        earlier = notifications.alias()
        waits_for = exists().where(
            earlier.c.alert_id == notifications.c.alert_id,
            earlier.c.target == self._target,
            earlier.c.state == PENDING,
            earlier.c.seq < notifications.c.seq,
        )
        columns = ("id", "alert_id", "attempts", "created_at", "body")
        query = select(*(notifications.c[name] for name in columns)).where(
            notifications.c.target == self._target,
            notifications.c.state == PENDING,
            notifications.c.at <= now,
            ~waits_for,
        )
        with read_transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(notifications.c.at, notifications.c.id).limit(limit)).all()
        return [Message(**{**row._mapping, "body": row.body.encode()}) for row in rows]

    def settle(self, endings: Sequence[Ending]) -> None:
        """Write what became of messages."""
        with write_transaction(self._engine) as connection:
            for one in endings:
                connection.execute(
                    update(notifications)
                    .where(notifications.c.id == one.message.id)
                    .values(state=one.state, at=one.at, attempts=one.attempts, error=one.error)
                )

    def tidy(self) -> None:
        """Delete what was delivered or given up long ago, now and then."""
        now = self._clock.time_s()
        if now < self._next_tidy_at:
            return
        self._next_tidy_at = now + TIDY_EVERY_S
        mine = notifications.c.target == self._target
        with write_transaction(self._engine) as connection:
            for state, kept_s in ((DELIVERED, KEEP_DELIVERED_S), (DEAD, KEEP_DEAD_S)):
                connection.execute(
                    delete(notifications).where(mine, notifications.c.state == state, notifications.c.at < now - kept_s)
                )
            newest = select(notifications.c.id).where(mine, notifications.c.state == DEAD)
            newest = newest.order_by(notifications.c.at.desc()).offset(MAX_DEAD)
            too_many = connection.scalars(newest).all()
            for part in _chunks(too_many):
                connection.execute(delete(notifications).where(notifications.c.id.in_(part)))

    def counts(self) -> OutboxCounts:
        """Return how much lies there."""
        oldest = select(func.min(notifications.c.created_at)).where(
            notifications.c.target == self._target, notifications.c.state == PENDING
        )
        with read_transaction(self._engine) as connection:
            return OutboxCounts(
                pending=_count(connection, self._target, PENDING),
                dead=_count(connection, self._target, DEAD),
                oldest_at=connection.scalar(oldest),
            )

    def _row(self, event: AlertEvent, alert: Alert, now: float) -> dict[str, Any] | None:
        body = self._body(event, alert)
        if body is None:
            return None
        return {
            "id": new_id(),
            "target": self._target,
            "event_id": event.id,
            "alert_id": alert.id,
            "tenant": alert.tenant,
            "seq": event.seq,
            "state": PENDING,
            "attempts": 0,
            "created_at": now,
            "at": now,
            "error": None,
            "body": body.decode(),
        }

    def _remember(self, ids: Sequence[str]) -> None:
        self._seen |= dict.fromkeys(ids)
        for one in list(self._seen)[: max(0, len(self._seen) - 2 * LATE_EVENTS)]:
            del self._seen[one]


def dead_letters(
    engine: Engine, tenant: str | None = None, before: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Return messages that were given up, the newest first, for people.

    Args:
        tenant: of this tenant's alerts only; None: all.
        before: id of the last one of the page before.
    """
    names = ("id", "target", "event_id", "alert_id", "tenant", "attempts", "created_at", "at", "error")
    query = select(*(notifications.c[name] for name in names)).where(notifications.c.state == DEAD)
    if tenant is not None:
        query = query.where(notifications.c.tenant == tenant)
    if before is not None:
        query = query.where(notifications.c.id < before)
    with read_transaction(engine) as connection:
        rows = connection.execute(query.order_by(notifications.c.id.desc()).limit(limit)).all()
    return [{**row._mapping, "created_at": iso(row.created_at), "at": iso(row.at)} for row in rows]


def replay(engine: Engine, clock: Clock, ids: Sequence[str] | None = None) -> int:
    """Send messages that were given up once more, under the ids that they had; return how many.

    What is not dead stays as it is, so that the same call twice does what one does.

    Args:
        ids: these; None: all.
    """
    now = clock.time_s()
    values = {"state": PENDING, "attempts": 0, "created_at": now, "at": now}
    statement = update(notifications).where(notifications.c.state == DEAD).values(values)
    with write_transaction(engine) as connection:
        if ids is None:
            return int(connection.execute(statement).rowcount)
        parts = [statement.where(notifications.c.id.in_(part)) for part in _chunks(ids)]
        return sum(int(connection.execute(part).rowcount) for part in parts)


def id_at(at: float) -> str:
    """Return the smallest id of a time, in seconds since the epoch."""
    milliseconds = max(0, int(at * 1000))
    chars = []
    for _ in range(TIME_CHARS):
        chars.append(ALPHABET[milliseconds & 31])
        milliseconds >>= 5
    return "".join(reversed(chars)) + ALPHABET[0] * (LENGTH - TIME_CHARS)


def _time_of(event_id: str) -> float:
    value = 0
    for char in event_id[:TIME_CHARS]:
        value = value << 5 | max(0, ALPHABET.find(char))
    return value / 1000


def _make_target(connection: Connection, target: str) -> None:
    """Begin a target at the end of the history: a webhook that is new does not hear of last year."""
    known = connection.scalar(select(notification_targets.c.target).where(notification_targets.c.target == target))
    if known is None:
        newest = connection.scalar(select(func.max(alert_events.c.id))) or ""
        _on_conflict_nothing(
            connection,
            notification_targets,
            [{"target": target, "position": newest, "owner": None, "owned_until": 0.0}],
        )


def _insert_new(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        _on_conflict_nothing(connection, notifications, rows)


def _on_conflict_nothing(connection: Connection, table: Any, rows: Sequence[dict[str, Any]]) -> None:
    # Both databases speak the same ON CONFLICT; SQLAlchemy has it per dialect only.
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(into(table).on_conflict_do_nothing(), list(rows))


def _load(connection: Connection, ids: Sequence[str]) -> list[tuple[AlertEvent, Alert]]:
    events: list[AlertEvent] = []
    for part in _chunks(ids):
        rows = connection.execute(select(*EVENT_COLUMNS).where(alert_events.c.id.in_(part)))
        events += [event_from_row(row) for row in rows]
    of_id: dict[str, Alert] = {}
    for part in _chunks(sorted({event.alert_id for event in events})):
        rows = connection.execute(select(*ALERT_COLUMNS).where(alerts.c.id.in_(part)))
        of_id |= {row.id: alert_from_row(row) for row in rows}
    found = [(event, of_id[event.alert_id]) for event in events if event.alert_id in of_id]
    return sorted(found, key=lambda pair: pair[0].id)


def _count(connection: Connection, target: str, state: str) -> int:
    query = select(func.count()).where(notifications.c.target == target, notifications.c.state == state)
    return int(connection.scalar(query) or 0)


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + CHUNK] for start in range(0, len(values), CHUNK))
