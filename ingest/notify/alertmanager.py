"""Tells an Alertmanager what is firing: what changed at once, everything again every minute.

An Alertmanager believes an alert until its ``endsAt`` and wants to hear of it again before
that; what it is told is a state, so nothing needs to be kept for it. Silenced alerts are not
told, and it lets them go by itself. Invariant: an alert that is stale is told as firing --
only one that has cleared, or that people have closed, is told as over.
"""

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Sequence

import httpx
import orjson
from sqlalchemy import ColumnElement, Engine, and_, func, or_, select

from cluster.breaker import Breaker
from cluster.clock import Clock
from cluster.errors import CircuitOpenError
from cluster.store import read_transaction
from ingest.alerts.ledger import ALERT_COLUMNS, CHUNK, alert_from_row
from ingest.alerts.model import Alert, Condition, Handling, JsonObject, iso
from ingest.alerts.tables import alert_events, alerts
from ingest.errors import ReceiverRefusedError, ReceiverUnavailableError
from ingest.notify.post_client import open_client, post
from ingest.notify.settings import AlertmanagerSettings
from ingest.notify.told import is_muted
from ingest.notify.webhook import notification_seconds, notifications_sent

logger = logging.getLogger(__name__)

TARGET = "alertmanager"
"""Also the service's name at the breaker."""
BELIEVED = 4
"""Paces after which an alert that is not repeated is taken for over; what a Prometheus uses."""
FAILED_PAUSE_S = 5.0
CHANGED = 2000
"""Events looked at in one turn."""

_NO_LABEL = re.compile(r"[^A-Za-z0-9_]")


class Alertmanager:
    """One Alertmanager that is kept up to date."""

    def __init__(self, settings: AlertmanagerSettings, engine: Engine, clock: Clock, breaker: Breaker) -> None:
        """Begin without touching store or network.

        Raises:
            OSError: the file of the token cannot be read.
        """
        self._settings = settings
        self._url = f"{settings.url.rstrip('/')}/api/v2/alerts"
        token = settings.token()
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._engine = engine
        self._clock = clock
        self._breaker = breaker
        self._client: httpx.AsyncClient | None = None
        self._position: str | None = None
        self._next_full_at = self._paused_until = 0.0
        self.problem: str | None = None
        """Why it was not told; None while it is."""
        self.firing = 0
        """Alerts that it was told are firing, last time all were told."""

    async def step(self) -> int:
        """Tell what is due; return how many alerts it was told of.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store is away.
        """
        now = self._clock.time_s()
        if now < self._paused_until:
            return 0
        if self._position is None:
            self._position = await asyncio.to_thread(self._newest)
        if now >= self._next_full_at:
            # Before the look at the store: what changes meanwhile has a newer event.
            position = await asyncio.to_thread(self._newest)
            wanted = await asyncio.to_thread(self._all, now)
            if await self._tell(wanted, now):
                self._next_full_at, self._position = now + self._settings.resend_s, position
                self.firing = sum(is_live(alert) for alert in wanted)
                return len(wanted)
            return 0
        position, changed = await asyncio.to_thread(self._changed, now)
        if changed and not await self._tell(changed, now):
            return 0
        self._position = position
        return len(changed)

    async def close(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _tell(self, wanted: Sequence[Alert], now: float) -> bool:
        if self._client is None:
            self._client = open_client()  # here, because it belongs to the running loop
        for start in range(0, len(wanted), self._settings.batch):
            part = wanted[start : start + self._settings.batch]
            if not await self._post(self._client, [to_alertmanager(alert, now, self._settings) for alert in part]):
                return False
        return True

    async def _post(self, client: httpx.AsyncClient, told: Sequence[JsonObject]) -> bool:
        """Send one request; False: later. A refusal is no reason to keep the others waiting."""
        started_s = time.perf_counter()
        try:
            async with self._breaker.call(TARGET, timeout_s=self._settings.timeout_s) as deadline:
                await post(client, self._url, orjson.dumps(told), self._headers, deadline.remaining_s())
        except ReceiverRefusedError as error:
            # It takes the good ones of a request and refuses it for the others; told again, they are refused again.
            return self._note("refused", str(error), len(told))
        except CircuitOpenError as error:
            self._wait(max(1.0, error.retry_in_s))
            return False
        except (ReceiverUnavailableError, TimeoutError) as error:
            self._note("failed", str(error), len(told))
            self._wait(FAILED_PAUSE_S)
            return False
        finally:
            notification_seconds.labels(TARGET).observe(time.perf_counter() - started_s)
        notifications_sent.labels(TARGET, "delivered").inc(len(told))
        if self.problem is not None:
            logger.info("the Alertmanager is told again")
        self.problem = None
        return True

    def _wait(self, pause_s: float) -> None:
        """Tell everything anew after a pause: what changed meanwhile is part of it."""
        self._next_full_at, self._paused_until = 0.0, self._clock.time_s() + pause_s

    def _note(self, outcome: str, problem: str, count: int) -> bool:
        notifications_sent.labels(TARGET, outcome).inc(count)
        if self.problem is None:
            logger.warning("the Alertmanager is not told: %s", problem)
        self.problem = problem
        return True

    def _newest(self) -> str:
        with read_transaction(self._engine) as connection:
            return connection.scalar(select(func.max(alert_events.c.id))) or ""

    def _all(self, now: float) -> list[Alert]:
        """Return what is firing, and what has ended of late and did not come back."""
        newer = alerts.alias()
        since = now - self._settings.resolved_s
        came_back = (
            select(newer.c.id)
            .where(newer.c.fingerprint == alerts.c.fingerprint, newer.c.occurrence > alerts.c.occurrence)
            .exists()
        )
        ended = and_(or_(alerts.c.cleared_at > since, alerts.c.closed_at > since), ~came_back)
        return self._load(or_(_live(), ended))

    def _changed(self, now: float) -> tuple[str, list[Alert]]:
        """Return the newest event of this look, and the alerts that changed since the last one."""
        position = self._position or ""
        newer = select(alert_events.c.id, alert_events.c.alert_id).where(alert_events.c.id > position)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(newer.order_by(alert_events.c.id).limit(CHANGED)).all()
        found: list[Alert] = []
        ids = sorted({row.alert_id for row in rows})
        for start in range(0, len(ids), CHUNK):
            found += self._load(alerts.c.id.in_(ids[start : start + CHUNK]))
        since = now - self._settings.resolved_s
        # Somebody's note on an alert that ended last week is no news there.
        told = [alert for alert in found if is_live(alert) or ended_at(alert, now) > since]
        return (rows[-1].id if rows else position), told

    def _load(self, wanted: ColumnElement[bool]) -> list[Alert]:
        query = select(*ALERT_COLUMNS).where(wanted).order_by(alerts.c.id)
        with read_transaction(self._engine) as connection:
            found = [alert_from_row(row) for row in connection.execute(query)]
        return [alert for alert in found if not is_muted(alert)]


def is_live(alert: Alert) -> bool:
    """Tell whether an alert is told as firing."""
    return alert.condition is not Condition.CLEARED and alert.handling is not Handling.CLOSED


def ended_at(alert: Alert, now: float) -> float:
    """Return when an alert that is not live ended, by its source or by people, whichever came first."""
    return min((at for at in (alert.cleared_at, alert.closed_at) if at is not None), default=now)


def to_alertmanager(alert: Alert, now: float, settings: AlertmanagerSettings) -> JsonObject:
    """Return an alert as Alertmanager's API takes it."""
    starts_at = min(alert.starts_at, now)  # a device's clock may be ahead
    ends_at = now + BELIEVED * settings.resend_s if is_live(alert) else min(ended_at(alert, now), now)
    own = {
        "alertname": alert.rule,
        "severity": alert.severity.value,
        "tenant": alert.tenant,
        "device": alert.device_id,
        "site": alert.site,
        "metric": alert.metric,
        "source": alert.source_kind.value,
    }
    return {
        "labels": dict(_labels(alert)) | {name: value for name, value in own.items() if value},
        "annotations": {
            "summary": alert.title,
            "description": alert.text,
            "alert_id": alert.id,
            **({} if alert.value is None else {"value": f"{alert.value:.6g}"}),
            **({"state": "stale: its source fell silent"} if alert.condition is Condition.STALE else {}),
        },
        "startsAt": iso(starts_at),
        # Its end must lie behind its start there, also where both were the same reading.
        "endsAt": iso(max(ends_at, starts_at + 0.001)),
        **({"generatorURL": f"{settings.floor_url.rstrip('/')}/?alert={alert.id}"} if settings.floor_url else {}),
    }


def _labels(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield an alert's own labels under names that every Alertmanager takes."""
    for name, value in sorted(alert.labels.items()):
        if value:
            cleaned = _NO_LABEL.sub("_", name)
            yield (f"_{cleaned}" if cleaned[:1].isdigit() else cleaned), value


def _live() -> ColumnElement[bool]:
    return and_(alerts.c.condition != Condition.CLEARED.value, alerts.c.handling != Handling.CLOSED.value)
