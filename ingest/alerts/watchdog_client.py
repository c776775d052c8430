"""The alert that always fires: while it arrives, alerts can be stored and told.

As Prometheus' Watchdog it goes out, so that somebody else notices when this floor falls
silent: an Alertmanager that gets no more of it, or any service that waits for a POST.
It is sent only while the store answers and no event waits for long to be told.
"""

import logging

import httpx
from prometheus_client import Counter
from sqlalchemy import Engine, func, select

from cluster.metrics import REGISTRY
from cluster.store import read_transaction
from ingest.alerts.model import JsonObject, iso
from ingest.alerts.settings import AlertSettings
from ingest.alerts.tables import alert_events

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
UNTOLD_S = 30.0
"""Age of an event that was not told from which on the floor is not alive."""
MISSED = 3
"""Paces after which a receiver takes the alert for resolved."""

watchdog_sent = Counter(
    "watchfloor_watchdog_sent", "Signs of life, by what became of them.", ["outcome"], registry=REGISTRY
)


class NotToldError(Exception):
    """Events wait in the table: people are not told of alerts."""


class Watchdog:
    """Sends the sign of life when it is due."""

    def __init__(self, settings: AlertSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._next_at = 0.0
        self._is_failing = False

    def step(self, now: float) -> bool:
        """Send if it is due and wanted; never raises. True when somebody has it."""
        if not self._settings.watchdog_url or now < self._next_at:
            return False
        self._next_at = now + self._settings.watchdog_s
        try:
            self._check(now)
            answer = httpx.post(
                self._settings.watchdog_url, json=watchdog_alerts(now, self._settings), timeout=TIMEOUT_S
            )
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL, NotToldError) as error:
            watchdog_sent.labels("failed").inc()
            if not self._is_failing:
                logger.warning("the watchdog's sign of life is not heard: %s", type(error).__name__)
            self._is_failing = True
            return False
        watchdog_sent.labels("ok").inc()
        self._is_failing = False
        return True

    def _check(self, now: float) -> None:
        oldest = _oldest_untold(self._engine)
        if oldest is not None and oldest < now - UNTOLD_S:
            raise NotToldError(f"an event waits for {now - oldest:.0f} s")


def _oldest_untold(engine: Engine) -> float | None:
    with read_transaction(engine) as connection:
        untold = select(func.min(alert_events.c.at)).where(alert_events.c.broadcast_at.is_(None))
        oldest: float | None = connection.scalar(untold)
        return oldest


def watchdog_alerts(now: float, settings: AlertSettings) -> list[JsonObject]:
    """Return the body: Alertmanager's form, ending by itself when no further one follows."""
    return [
        {
            "labels": {"alertname": "Watchdog", "severity": "none", "source": "watchfloor"},
            "annotations": {"summary": "Always firing while the floor can store and tell alerts."},
            "startsAt": iso(now),
            "endsAt": iso(now + MISSED * settings.watchdog_s),
        }
    ]
