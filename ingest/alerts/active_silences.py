"""The silences that are on, as one write transaction sees them.

Read in the transaction that begins an occurrence, and only then: a silence that was
committed before holds for every alert that begins after it, and a repeated alert costs no
query.
"""

from typing import Any

from sqlalchemy import Connection, Row, select

from ingest.alerts.model import Alert, SuppressionKind
from ingest.alerts.silence import Repeat, Silence, matchers_from
from ingest.alerts.tables import silences


class ActiveSilences:
    """What is on at one moment."""

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        self._found: list[tuple[Silence, float]] | None = None

    def applied_to(self, alert: Alert) -> Alert:
        """Return ``alert`` with the reasons for which nobody is told of it."""
        if self._found is None:
            rows = self._connection.execute(
                select(silences).where(silences.c.active_from <= self._now, silences.c.active_until > self._now)
            )
            self._found = [(silence_from_row(row), row.active_until) for row in rows]
        reasons = tuple(silence.suppression(until) for silence, until in self._found if silence.matches(alert))
        return alert.but(suppressed_by=(*alert.suppressed_by, *reasons)) if reasons else alert


def silence_from_row(row: Row[Any]) -> Silence:
    """Return the silence of a row of ``silences``."""
    return Silence(
        id=row.id,
        kind=SuppressionKind(row.kind),
        tenant=row.tenant,
        matchers=matchers_from(row.matchers),
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        comment=row.comment,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
        repeats=Repeat(row.repeats),
        time_zone=row.time_zone,
        repeats_until=row.repeats_until,
        expired_by=row.expired_by,
        version=row.version,
    )
