"""What people say of a series' alerts moves its threshold at once, before anything is trained.

An alert that was called false, or expected, says that scores up to its own are no news in
this series; one that was confirmed says that scores from its own on are. So the level of a
series is the highest score that was called false, but never above the lowest that was
confirmed. How far it can raise the threshold is the detector's own bound
(``DetectorSettings.verdict_rarity``). Invariants: a confirmed problem of the same size still
alarms; other series are not touched; verdicts leave after ``verdict_days``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from cluster.clock import Clock
from cluster.store import read_transaction
from ingest.alerts.model import SourceKind, Verdict
from ingest.alerts.tables import alerts
from ingest.windows import SeriesKey

POLL_S = 1.0
"""How soon a verdict counts, in seconds."""
REREAD_S = 3600.0
"""Pace at which verdicts that are too old leave, in seconds."""
DAY_S = 86_400.0
ABOVE = 0.01
"""What a level lies above the score that it is to silence; scores in alerts have three decimals."""
MOST_VERDICTS = 10_000
"""Newest verdicts that count."""

_FALSE = frozenset({Verdict.FALSE_POSITIVE, Verdict.EXPECTED})


@dataclass(frozen=True, slots=True)
class JudgedAlert:
    """A detector's alert that somebody gave a verdict on."""

    key: SeriesKey
    score: float
    verdict: Verdict


def levels_of(judged: Iterable[JudgedAlert]) -> dict[SeriesKey, float]:
    """Return, of each series with false alarms, the score that its threshold should reach."""
    highest_false: dict[SeriesKey, float] = {}
    lowest_true: dict[SeriesKey, float] = {}
    for one in judged:
        if one.verdict in _FALSE:
            highest_false[one.key] = max(one.score + ABOVE, highest_false.get(one.key, 0.0))
        elif one.verdict is Verdict.TRUE_POSITIVE:
            lowest_true[one.key] = min(one.score, lowest_true.get(one.key, one.score))
    return {key: min(level, lowest_true.get(key, level)) for key, level in highest_false.items()}


def read_judged(connection: Connection, since: float) -> list[JudgedAlert]:
    """Return the detectors' alerts that were judged after ``since``, seconds since the Unix epoch."""
    query = (
        select(alerts.c.tenant, alerts.c.device_id, alerts.c.metric, alerts.c.score, alerts.c.verdict)
        .where(
            alerts.c.verdict.is_not(None),
            alerts.c.verdict_at >= since,
            alerts.c.source_kind == SourceKind.MODEL.value,
            alerts.c.metric.is_not(None),
            alerts.c.score.is_not(None),
        )
        .order_by(alerts.c.verdict_at.desc())
        .limit(MOST_VERDICTS)
    )
    return [
        JudgedAlert(SeriesKey(row.tenant, row.device_id, row.metric), row.score, Verdict(row.verdict))
        for row in connection.execute(query)
    ]


class VerdictWatch:
    """Looks for new verdicts, for one detector."""

    def __init__(self, engine: Engine, clock: Clock, days: float) -> None:
        self._engine = engine
        self._clock = clock
        self._kept_s = days * DAY_S
        self._next_poll_s = 0.0
        self._next_read_s = 0.0
        self._newest: float | None = None

    def poll(self) -> dict[SeriesKey, float] | None:
        """Return all levels when it is time and they may have changed; else None.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the SQL store is away.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_poll_s:
            return None
        self._next_poll_s = now_s + POLL_S
        with read_transaction(self._engine) as connection:
            newest = connection.execute(
                select(func.max(alerts.c.verdict_at)).where(alerts.c.verdict.is_not(None))
            ).scalar_one()
            if newest == self._newest and now_s < self._next_read_s:
                return None
            judged = read_judged(connection, self._clock.time_s() - self._kept_s)
        self._newest, self._next_read_s = newest, now_s + REREAD_S
        return levels_of(judged)
