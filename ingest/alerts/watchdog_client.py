"""The alert that always fires: while it arrives, alerts can be stored and told.

As Prometheus' Watchdog it goes out, so that somebody else notices when this floor falls
silent: an Alertmanager that gets no more of it, or any service that waits for a POST.
It is sent only after a step of the timer found the store there and the hub answered.
"""

import logging
from collections.abc import Callable

import httpx
from prometheus_client import Counter

from cluster.errors import ClusterError
from cluster.metrics import REGISTRY
from ingest.alerts.model import JsonObject, iso
from ingest.alerts.settings import AlertSettings

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
MISSED = 3
"""Paces after which a receiver takes the alert for resolved."""

watchdog_sent = Counter(
    "watchfloor_watchdog_sent", "Signs of life, by what became of them.", ["outcome"], registry=REGISTRY
)


class Watchdog:
    """Sends the sign of life when it is due."""

    def __init__(
        self, settings: AlertSettings, is_alive: Callable[[], object], post: Callable[..., httpx.Response] = httpx.post
    ) -> None:
        """Wire it.

        Args:
            is_alive: raises a ``ClusterError`` when people could not be told now.
            post: ``httpx.post`` or something like it.
        """
        self._settings = settings
        self._is_alive = is_alive
        self._post = post
        self._next_at = 0.0
        self._is_failing = False

    def step(self, now: float) -> bool:
        """Send if it is due and wanted; never raises. True when somebody has it."""
        if not self._settings.watchdog_url or now < self._next_at:
            return False
        self._next_at = now + self._settings.watchdog_s
        try:
            self._is_alive()
            answer = self._post(
                self._settings.watchdog_url, json=watchdog_alerts(now, self._settings), timeout=TIMEOUT_S
            )
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL, ClusterError) as error:
            watchdog_sent.labels("failed").inc()
            if not self._is_failing:
                logger.warning("the watchdog's sign of life is not heard: %s", type(error).__name__)
            self._is_failing = True
            return False
        watchdog_sent.labels("ok").inc()
        self._is_failing = False
        return True


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
