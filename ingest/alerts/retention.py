"""What alerts take up, and how those that are over leave.

Invariants: an alert leaves whole, with its history; one that is open, or has an event that
the dashboards have not been told, never leaves.
"""

from sqlalchemy import Connection, Engine, and_, delete, exists, select

from cluster.ids import first_id_at
from cluster.row_sizes import estimated_bytes
from cluster.store import in_write, metadata, read_transaction
from ingest.alerts.model import Handling
from ingest.alerts.tables import alert_events, alerts
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
        """Delete alerts that were closed before ``before``, at most ``limit``; return how many."""
        pending = exists().where(alert_events.c.alert_id == alerts.c.id, alert_events.c.broadcast_at.is_(None))
        # The bound on the id keeps the search to rows that are old enough at all.
        is_over = and_(
            alerts.c.handling == Handling.CLOSED.value,
            alerts.c.id < first_id_at(before),
            alerts.c.closed_at < before,
            ~pending,
        )

        def write(connection: Connection) -> int:
            ids = list(connection.scalars(select(alerts.c.id).where(is_over).order_by(alerts.c.id).limit(limit)))
            for table in reversed(metadata.sorted_tables):
                for key in table.foreign_keys:
                    if key.references(alerts):
                        connection.execute(delete(table).where(key.parent.in_(ids)))
            connection.execute(delete(alerts).where(alerts.c.id.in_(ids)))
            return len(ids)

        with read_transaction(self._engine) as connection:
            # Mostly there is nothing to do, and then no writer is held up.
            if connection.execute(select(alerts.c.id).where(is_over).limit(1)).first() is None:
                return 0
        return in_write(self._engine, write)
