"""Silences in SQL: made, changed and ended by people, applied to the alerts that are there.

A silence holds from its commit on for alerts that begin; those that are there already are
changed here, at once for a person's order and by the timer for a window that begins or
ends. Invariant: ``due_at`` stays in the past until every open alert reflects the silence,
so whoever dies half-way is followed by a timer that goes on. Synchronous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from cluster.clock import Clock
from cluster.ids import new_id
from cluster.store import read_transaction, write_transaction
from ingest.alerts import lifecycle
from ingest.alerts.active_silences import silence_from_row
from ingest.alerts.engine import in_ledger
from ingest.alerts.ledger import Ledger
from ingest.alerts.model import Alert, Handling, SuppressionKind
from ingest.alerts.silence import PLACES, Matcher, Silence
from ingest.alerts.tables import alerts, silences
from ingest.errors import SilenceNotFoundError, VersionConflictError

MAX_PAGE = 500
CHUNK = 10_000
"""Alerts changed in one transaction."""

State = Literal["active", "pending", "expired"]

_COLUMNS = {
    "tenant": alerts.c.tenant,
    "client": alerts.c.client_id,
    "site": alerts.c.site,
    "device": alerts.c.device_id,
}


@dataclass(frozen=True, slots=True)
class SilencePage:
    """Silences, newest first."""

    items: tuple[Silence, ...]
    next_cursor: str | None


class SilenceStore:
    """What people order about silences."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def create(self, silence: Silence, request_id: str | None = None) -> tuple[Silence, int]:
        """Store a silence and apply it, if it is on.

        Args:
            silence: with an id of its own; times of its making are set here.
            request_id: of the caller; repeated, it answers with the silence that was made.

        Returns:
            The silence, and the number of alerts that changed.
        """
        now = self._clock.time_s()
        made = replace(silence, created_at=now, updated_at=now, version=1)
        row = _row(made, now) | {"request_id": request_id, "told_version": 0}
        try:
            with write_transaction(self._engine) as connection:
                connection.execute(insert(silences).values(row))
        except IntegrityError:
            same = (silences.c.created_by == silence.created_by) & (silences.c.request_id == request_id)
            with read_transaction(self._engine) as connection:
                found = connection.execute(select(silences).where(same)).one_or_none()
            if request_id is None or found is None:
                raise
            return silence_from_row(found), 0
        return made, self.settle(made.id, now)

    def change(
        self, silence_id: str, user_id: str, *, tenant: str | None = None, if_version: int | None = None, **changes: Any
    ) -> tuple[Silence, int]:
        """Change some fields of a silence; ``expired_by`` ends it now.

        Returns:
            The silence as it is now, and the number of alerts that changed.

        Raises:
            SilenceNotFoundError: no such silence, or another tenant's.
            VersionConflictError: it is not at ``if_version``.
            ValueError: the fields make no silence, or it is over already.
        """
        now = self._clock.time_s()
        with write_transaction(self._engine) as connection:
            before = _get(connection, silence_id, tenant)
            if if_version is not None and if_version != before.version:
                raise VersionConflictError("silence", {silence_id: if_version}, {silence_id: before.version})
            if before.window(now) is None:
                if "expired_by" in changes:
                    return before, 0
                raise ValueError("the silence is over: make a new one")
            after = replace(before, **changes, updated_by=user_id, updated_at=now, version=before.version + 1)
            changed = connection.execute(
                update(silences)
                .where(silences.c.id == silence_id, silences.c.version == before.version)
                .values(_row(after, now))
            )
            if changed.rowcount != 1:  # PostgreSQL: somebody committed in between
                raise VersionConflictError("silence", {silence_id: before.version}, {silence_id: before.version + 1})
        return after, self.settle(silence_id, now)

    def get(self, silence_id: str, tenant: str | None = None) -> Silence:
        """Return one silence.

        Raises:
            SilenceNotFoundError: no such silence, or another tenant's.
        """
        with read_transaction(self._engine) as connection:
            return _get(connection, silence_id, tenant)

    def list(
        self,
        tenant: str | None = None,
        state: State | None = None,
        kind: SuppressionKind | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> SilencePage:
        """Return silences, newest first; of all tenants when ``tenant`` is None."""
        now = self._clock.time_s()
        conditions: list[ColumnElement[bool]] = []
        if tenant is not None:
            conditions.append(silences.c.tenant == tenant)
        if kind is not None:
            conditions.append(silences.c.kind == kind.value)
        if cursor is not None:
            conditions.append(silences.c.id < cursor)
        is_over = or_(silences.c.active_until.is_(None), and_(silences.c.repeats == "never", silences.c.ends_at <= now))
        if state is not None:
            conditions.append(is_over if state == "expired" else ~is_over)
        if state in {"active", "pending"}:
            is_on = silences.c.active_from <= now
            conditions.append(is_on if state == "active" else ~is_on)
        query = select(silences).where(*conditions).order_by(silences.c.id.desc()).limit(limit + 1)
        with read_transaction(self._engine) as connection:
            found = [silence_from_row(row) for row in connection.execute(query)]
        items = tuple(found[:limit])
        return SilencePage(items, items[-1].id if len(found) > limit else None)

    def due(self, now: float, limit: int = 100) -> Sequence[str]:
        """Return silences that alerts may not reflect yet; for the timer."""
        query = select(silences.c.id).where(silences.c.due_at <= now).order_by(silences.c.due_at).limit(limit)
        with read_transaction(self._engine) as connection:
            return connection.scalars(query).all()

    def settle(self, silence_id: str, now: float, *, is_timers: bool = False) -> int:
        """Make the alerts that are there reflect a silence; whoever does it meanwhile, it is done once.

        Args:
            is_timers: nobody changed it, its window begins or ends.

        Returns:
            Alerts that changed.
        """
        total = 0
        while True:
            changed = self._settle_some(silence_id, now, is_timers=is_timers)
            total += changed
            if changed < CHUNK:
                return total

    def _settle_some(self, silence_id: str, now: float, *, is_timers: bool) -> int:
        def step(ledger: Ledger, connection: Connection) -> None:
            row = connection.execute(select(silences).where(silences.c.id == silence_id)).one_or_none()
            if row is None:
                return
            silence = silence_from_row(row)
            window = silence.window(now)
            changes = _changes(ledger, silence, window, now)
            batch = f"silence-{new_id()}"  # one message tells of all of them
            for change in changes[:CHUNK]:
                ledger.add(change, recorded_at=now, request_id=batch)
            if len(changes) < CHUNK:
                _note_settled(connection, silence, window, now, is_timers=is_timers)

        return len(in_ledger(self._engine, None, step))


def _get(connection: Connection, silence_id: str, tenant: str | None) -> Silence:
    row = connection.execute(select(silences).where(silences.c.id == silence_id)).one_or_none()
    if row is None or tenant not in {None, row.tenant}:
        raise SilenceNotFoundError(silence_id)
    return silence_from_row(row)


def _row(silence: Silence, now: float) -> dict[str, Any]:
    window = silence.window(now)
    return {
        "id": silence.id,
        "kind": silence.kind.value,
        "tenant": silence.tenant,
        "matchers": [one.to_json() for one in silence.matchers],
        "starts_at": silence.starts_at,
        "ends_at": silence.ends_at,
        "repeats": silence.repeats.value,
        "time_zone": silence.time_zone,
        "repeats_until": silence.repeats_until,
        "comment": silence.comment,
        "created_by": silence.created_by,
        "created_at": silence.created_at,
        "updated_by": silence.updated_by,
        "updated_at": silence.updated_at,
        "expired_by": silence.expired_by,
        "active_from": None if window is None else window[0],
        "active_until": None if window is None else window[1],
        "due_at": now,
        "version": silence.version,
    }


def _note_settled(
    connection: Connection, silence: Silence, window: tuple[float, float] | None, now: float, *, is_timers: bool
) -> None:
    is_on = window is not None and window[0] <= now
    due_at = None if window is None else window[1] if is_on else window[0]
    values: dict[str, Any] = {
        "due_at": due_at,
        "active_from": None if window is None else window[0],
        "active_until": None if window is None else window[1],
    }
    if is_timers:
        values["version"] = silence.version + 1  # a window began or ended: dashboards are told
    connection.execute(
        update(silences).where(silences.c.id == silence.id, silences.c.version == silence.version).values(values)
    )


def _changes(
    ledger: Ledger, silence: Silence, window: tuple[float, float] | None, now: float
) -> list[lifecycle.Change]:
    """Return what separates the open alerts from what the silence says."""
    changes: list[lifecycle.Change | None] = []
    wanted: dict[str, Alert] = {}
    is_on = window is not None and window[0] <= now
    if window is not None and is_on:
        why = silence.suppression(window[1])
        open_alerts = ledger.where(alerts.c.handling != Handling.CLOSED.value, *_prefilter(silence))
        wanted = {alert.id: alert for alert in open_alerts if silence.matches(alert)}
        changes += [lifecycle.suppressed(alert, now, silence.updated_by, why) for alert in wanted.values()]
    if silence.expired_by is not None:
        actor, reason = silence.expired_by, f"{silence.kind} ended early"
    elif is_on:
        actor, reason = silence.updated_by, f"{silence.kind} was changed"
    else:
        actor, reason = lifecycle.SYSTEM, f"{silence.kind} ended"
    held = ledger.where(alerts.c.is_suppressed.is_(True))
    changes += [
        lifecycle.unsuppressed(alert, now, actor, silence.id, reason) for alert in held if alert.id not in wanted
    ]
    return [change for change in changes if change is not None]


def _prefilter(silence: Silence) -> list[ColumnElement[bool]]:
    """Return conditions that SQL can answer; what they let through is matched by itself."""
    conditions = [] if silence.tenant is None else [alerts.c.tenant == silence.tenant]
    conditions += [
        _COLUMNS[one.field].in_(one.values) for one in silence.matchers if one.field in PLACES and _is_plain(one)
    ]
    return conditions


def _is_plain(matcher: Matcher) -> bool:
    return not matcher.is_negated and not any("*" in value or "?" in value or not value for value in matcher.values)
