"""What alerts take up, and how those that are over leave.

Invariants: an alert leaves whole, with its history; one that is open, or has an event that
the dashboards have not been told, never leaves. Of an open one that goes on for months only
the repeats leave: what people and the life cycle did stays as long as the alert. A silence leaves
when it has been over for as long.
"""

from sqlalchemy import Connection, Engine, and_, delete, or_, select

from cluster.ids import first_id_at
from cluster.row_sizes import estimated_bytes
from cluster.store import in_write, metadata, read_transaction
from ingest.alerts.model import Action, Handling
from ingest.alerts.tables import alert_events, alerts, silences
from ingest.store_bounds import StoreUsage


class AlertRetention:
    """The table of alerts as a store with a bound."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def usage(self) -> StoreUsage:
        """Return the size of alerts and histories, and when the oldest closed one was closed."""
        # Ids sort by time: the alert that began first is near enough to the one that was closed first.
        oldest = (
            select(alerts.c.closed_at)
            .where(alerts.c.handling == Handling.CLOSED.value)
            .order_by(alerts.c.handling, alerts.c.id)
            .limit(1)
        )
        with read_transaction(self._engine) as connection:
            size = estimated_bytes(connection, alerts) + estimated_bytes(connection, alert_events)
            return StoreUsage(size, connection.execute(oldest).scalar_one_or_none())

    def expire(self, before: float, limit: int) -> int:
        """Delete what is from before ``before``: closed alerts, repeats, silences that are over; return how many rows.

        At most ``limit`` of each at once.
        """
        # As a set made once: asked for each alert, PostgreSQL walks the same index again and again.
        pending = select(alert_events.c.alert_id).where(alert_events.c.broadcast_at.is_(None))
        # The bound on the id keeps the search to rows that are old enough at all.
        is_over = and_(
            alerts.c.handling == Handling.CLOSED.value,
            alerts.c.id < first_id_at(before),
            alerts.c.closed_at < before,
            alerts.c.id.not_in(pending),
        )

        repeats = (
            select(alert_events.c.id)
            .where(
                alert_events.c.id < first_id_at(before),
                alert_events.c.action == Action.REPEATED.value,
                alert_events.c.broadcast_at.is_not(None),
            )
            .limit(limit)
        )

        # One that is over for good has no window any more, and nothing is due: no alert speaks of it.
        silent = (
            select(silences.c.id)
            .where(
                silences.c.active_until.is_(None),
                silences.c.due_at.is_(None),
                silences.c.told_version >= silences.c.version,
                silences.c.updated_at < before,
                or_(silences.c.ends_at < before, silences.c.expired_by.is_not(None)),
                or_(
                    silences.c.repeats_until.is_(None),
                    silences.c.repeats_until < before,
                    silences.c.expired_by.is_not(None),
                ),
            )
            .limit(limit)
        )

        def write(connection: Connection) -> int:
            ids = list(connection.scalars(select(alerts.c.id).where(is_over).order_by(alerts.c.id).limit(limit)))
            for table in reversed(metadata.sorted_tables):
                for key in table.foreign_keys:
                    if key.references(alerts):
                        connection.execute(delete(table).where(key.parent.in_(ids)))
            connection.execute(delete(alerts).where(alerts.c.id.in_(ids)))
            old = connection.execute(delete(alert_events).where(alert_events.c.id.in_(repeats.scalar_subquery())))
            over = connection.execute(delete(silences).where(silences.c.id.in_(silent.scalar_subquery())))
            return len(ids) + old.rowcount + over.rowcount

        with read_transaction(self._engine) as connection:
            # Mostly there is nothing to do, and then no writer is held up.
            found = (
                connection.execute(one.limit(1)).first()
                for one in (select(alerts.c.id).where(is_over), repeats, silent)
            )
            if not any(found):
                return 0
        return in_write(self._engine, write)
