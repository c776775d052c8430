"""Commands in the SQL store: made once, changed one event at a time, read page by page.

Decides nothing about their life (``command.py``). Invariants: a command and the event that
changed it are committed together; of several processes one at a time has a queued command to
send; what devices answer is stored all together or, when one answer fits no command of its
device, not at all. Synchronous: call it off the event loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.clock import Clock
from cluster.ids import new_id
from cluster.store import in_write, read_transaction
from ingest import command_metrics
from ingest.command import Change, Command, CommandEvent, CommandOrder, CommandState, answered, ordered, overdue
from ingest.command_tables import command_events, commands
from ingest.errors import CommandConflictError, CommandNotFoundError, DeviceBusyError, StoreRefusedError
from ingest.payload import AckStatus, CommandAck

CLAIM_S = 30.0
"""A process that took a command to send and died gives it up after so long; far above the broker's time-out."""
BATCH = 200
MAX_PAGE = 500
STORE = "commands"

Step = Callable[[Command], Change | None]

_FIELDS = tuple(field.name for field in fields(Command))
_COLUMNS = tuple(commands.c[name] for name in _FIELDS)
_EVENT_COLUMNS = tuple(command_events.c[field.name] for field in fields(CommandEvent))


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """Bounds of the commands to devices."""

    max_open_per_device: int = 100
    """Commands of one device that may wait for their result; a further one is refused."""

    def __post_init__(self) -> None:
        if self.max_open_per_device < 1:
            raise ValueError(f"max_open_per_device must be at least 1, got {self.max_open_per_device}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandQuery:
    """Which commands a caller wants; None leaves a side open."""

    tenant: str | None = None
    device: str | None = None
    state: CommandState | None = None
    user_id: str | None = None
    before_id: str | None = None
    """``next_cursor`` of the page before."""
    limit: int = 100


class CommandStore:
    """The commands of one floor."""

    def __init__(self, engine: Engine, clock: Clock, settings: CommandSettings | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings or CommandSettings()

    def create(self, order: CommandOrder) -> Command:
        """Store a command, queued; the same request again returns the command that it made.

        Raises:
            CommandConflictError: the request id made another command.
            DeviceBusyError: too many commands of this device are open.
        """

        def write(connection: Connection) -> tuple[Command, list[Change]]:
            known = _of_request(connection, order)
            if known is not None:
                return known, []
            self._check_room(connection, order)
            change = ordered(order, self._clock.time_s())
            _insert(connection, change)
            return change.after, [change]

        try:
            command, changes = in_write(self._engine, write)
        except IntegrityError:
            # PostgreSQL: another process stored the same request in this moment.
            command, changes = in_write(self._engine, write)
        command_metrics.count(changes)
        return command

    def get(self, command_id: str, tenant: str | None = None) -> tuple[Command, tuple[CommandEvent, ...]]:
        """Return a command with its history, oldest event first.

        Raises:
            CommandNotFoundError: no such command, or (with ``tenant``) it is another tenant's.
        """
        history = select(*_EVENT_COLUMNS).where(command_events.c.command_id == command_id)
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*_COLUMNS).where(commands.c.id == command_id)).one_or_none()
            if row is None or tenant not in {None, row.tenant}:
                raise CommandNotFoundError(command_id)
            events = connection.execute(history.order_by(command_events.c.seq))
            return _command(row), tuple(map(_event, events))

    def list(self, query: CommandQuery) -> tuple[Command, ...]:
        """Return commands, newest first."""
        wanted = {
            commands.c.tenant: query.tenant,
            commands.c.device: query.device,
            commands.c.state: query.state,
            commands.c.user_id: query.user_id,
        }
        conditions = [column == str(value) for column, value in wanted.items() if value is not None]
        if query.before_id is not None:
            conditions.append(commands.c.id < query.before_id)
        statement = select(*_COLUMNS).where(*conditions).order_by(commands.c.id.desc()).limit(query.limit)
        with read_transaction(self._engine) as connection:
            return tuple(map(_command, connection.execute(statement)))

    def claim(self, limit: int) -> tuple[Command, ...]:
        """Take the oldest commands that are to be sent now; for ``CLAIM_S`` nobody else gets them."""
        now = self._clock.time_s()
        query = (
            select(*_COLUMNS)
            .where(
                commands.c.next_attempt_at.is_not(None), commands.c.next_attempt_at <= now, commands.c.expires_at > now
            )
            .order_by(commands.c.id)
            .limit(limit)
        )
        with read_transaction(self._engine) as connection:  # nearly always there is none: no lock, no write
            if connection.execute(query.limit(1)).one_or_none() is None:
                return ()

        def write(connection: Connection) -> tuple[Command, ...]:
            found = [_command(row) for row in connection.execute(query.with_for_update(skip_locked=True))]
            values = {"next_attempt_at": now + CLAIM_S, "attempts": commands.c.attempts + 1}
            ids = [command.id for command in found]
            connection.execute(update(commands).where(commands.c.id.in_(ids)).values(values))
            return tuple(replace(command, attempts=command.attempts + 1) for command in found)

        return in_write(self._engine, write)

    def change(self, ids: Sequence[str], step: Step, retry_in_s: float | None = None) -> int:
        """Carry out one step on commands; return on how many it did something.

        Args:
            ids: which; ids that do not exist are no error.
            step: what is to become of each; None: nothing.
            retry_in_s: when those that are still queued may be sent again; None: leave that.
        """
        if not ids:
            return 0

        def write(connection: Connection) -> list[Change]:
            found = [step(command) for command in _locked(connection, ids).values()]
            changes = [change for change in found if change is not None]
            for change in changes:
                _write(connection, change)
            if retry_in_s is not None:
                is_queued = and_(commands.c.id.in_(ids), commands.c.next_attempt_at.is_not(None))
                at = self._clock.time_s() + retry_in_s
                connection.execute(update(commands).where(is_queued).values(next_attempt_at=at))
            return changes

        changes = in_write(self._engine, write)
        command_metrics.count(changes)
        return len(changes)

    def record(self, acks: Sequence[CommandAck]) -> int:
        """Store what devices answered; return how many answers were news.

        Raises:
            StoreRefusedError: one of them names no command of its device; nothing was stored.
        """

        def write(connection: Connection) -> list[Change]:
            current = _locked(connection, {ack.command_id for ack in acks})
            changes = []
            for ack in acks:
                command = current.get(ack.command_id)
                # The topic says who speaks, and the broker lets a device use no other's: an answer
                # for another device's command is forged, or lost its way.
                if command is None or (command.tenant, command.device) != (ack.tenant, ack.device):
                    raise StoreRefusedError(STORE, "this device was sent no such command")
                change = answered(command, ack)
                if change is not None:
                    _write(connection, change)
                    current[command.id] = change.after
                    changes.append(change)
            return changes

        changes = in_write(self._engine, write)
        command_metrics.count(changes)
        return len(changes)

    def end_overdue(self) -> int:
        """End commands whose deadline has passed; return how many."""
        now = self._clock.time_s()
        query = select(commands.c.id).where(commands.c.ended_at.is_(None), commands.c.expires_at <= now)
        with read_transaction(self._engine) as connection:
            ids = list(connection.scalars(query.order_by(commands.c.expires_at).limit(BATCH)))
        if not ids:
            return 0

        def write(connection: Connection) -> list[Change]:
            found = [overdue(command, now) for command in _locked(connection, ids).values()]
            changes = [change for change in found if change is not None]
            for change in changes:
                _write(connection, change)
            return changes

        changes = in_write(self._engine, write)
        command_metrics.count(changes)
        return len(changes)

    def pending(self) -> tuple[tuple[CommandEvent, Command], ...]:
        """Return events that nobody was told of, oldest first, with their commands as they are now."""
        query = select(*_EVENT_COLUMNS).where(command_events.c.broadcast_at.is_(None))
        with read_transaction(self._engine) as connection:
            found = connection.execute(query.order_by(command_events.c.id).limit(BATCH))
            events = [_event(row) for row in found]
            ids = {event.command_id for event in events}
            rows = connection.execute(select(*_COLUMNS).where(commands.c.id.in_(ids))) if ids else ()
            of_id = {row.id: _command(row) for row in rows}
        return tuple((event, of_id[event.command_id]) for event in events)

    def mark_told(self, event_ids: Sequence[str]) -> None:
        """Note that events were published."""
        told = (
            update(command_events)
            .where(command_events.c.id.in_(event_ids), command_events.c.broadcast_at.is_(None))
            .values(broadcast_at=self._clock.time_s())
        )
        in_write(self._engine, lambda connection: connection.execute(told))

    def _check_room(self, connection: Connection, order: CommandOrder) -> None:
        query = select(func.count()).where(
            commands.c.tenant == order.tenant, commands.c.device == order.device, commands.c.ended_at.is_(None)
        )
        limit = self._settings.max_open_per_device
        if connection.execute(query).scalar_one() >= limit:
            raise DeviceBusyError(f"{order.tenant}/{order.device}", limit)


def _of_request(connection: Connection, order: CommandOrder) -> Command | None:
    if order.request_id is None:
        return None
    query = select(*_COLUMNS).where(commands.c.user_id == order.user_id, commands.c.request_id == order.request_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if (row.tenant, row.device, row.payload) != (order.tenant, order.device, order.payload):
        raise CommandConflictError(order.request_id)
    return _command(row)


def _locked(connection: Connection, ids: "Sequence[str] | set[str]") -> dict[str, Command]:
    # In one order, so that two processes cannot wait for each other; SQLite has one writer anyway.
    query = select(*_COLUMNS).where(commands.c.id.in_(ids)).order_by(commands.c.id).with_for_update()
    return {row.id: _command(row) for row in connection.execute(query)}


def _insert(connection: Connection, change: Change) -> None:
    connection.execute(insert(commands).values(_row(change.after) | {"next_attempt_at": change.at}))
    connection.execute(insert(command_events).values(_event_row(change)))


def _write(connection: Connection, change: Change) -> None:
    values = _row(change.after)
    # Attempts are the sender's to count; the copy in hand may be older.
    del values["attempts"]
    if change.after.state is not CommandState.QUEUED:
        values["next_attempt_at"] = None
    connection.execute(update(commands).where(commands.c.id == change.after.id).values(values))
    connection.execute(insert(command_events).values(_event_row(change)))


def _row(command: Command) -> dict[str, Any]:
    row = {name: getattr(command, name) for name in _FIELDS}
    return row | {"state": command.state.value, "answer": command.answer.value if command.answer else None}


def _event_row(change: Change) -> dict[str, Any]:
    command = change.after
    return {
        "id": new_id(),
        "command_id": command.id,
        "seq": command.version,
        "at": change.at,
        "actor": change.actor,
        "state": command.state.value,
        "is_late": change.is_late,
        "detail": command.detail,
    }


def _command(row: "Row[Any]") -> Command:
    values = dict(row._mapping)
    answer = values["answer"]
    return Command(**values | {"state": CommandState(values["state"]), "answer": AckStatus(answer) if answer else None})


def _event(row: "Row[Any]") -> CommandEvent:
    values = dict(row._mapping)
    return CommandEvent(**values | {"state": CommandState(values["state"])})
