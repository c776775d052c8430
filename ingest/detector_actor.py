"""The floor's detector as a named Ray actor: drives ``DetectorService``, timer and notifier on threads.

Ray shell: it decides nothing. Killed at any moment, Ray starts it again; the stream gives it
what was not acknowledged, and the relay publishes what was committed and not yet told.
Invariant: one per shard, so a series is judged by one process at a time.
"""

import dataclasses
import importlib
import logging
import os
import threading
from typing import Any

from cluster import names
from cluster.actors import configure_process, get_or_create
from cluster.breaker import get_breaker
from cluster.clock import SystemClock
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from ingest.alerts.engine import AlertEngine
from ingest.alerts.external_store import ExternalAlerts
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.silence_relay import SilenceRelay
from ingest.alerts.timer import AlertTimer
from ingest.alerts.watchdog_client import Watchdog
from ingest.detection_settings import DetectorSettings
from ingest.detector_service import DetectorService
from ingest.notify.notifier import Notifier
from ingest.notify.settings import AlertmanagerSettings, WebhookSettings
from ingest.rules.settings import RulesSettings
from ingest.telemetry_redis import TelemetrySettings, TelemetryStream
from realtime.backoff import Backoff
from realtime.hub_client import HubClient

logger = logging.getLogger(__name__)

CALLS_AT_ONCE = 4
"""``status`` and ``ready`` must answer while another call waits."""
MODEL_KEEPER = "training.registry.keeper:new_keeper"
"""By name, because imports point one way (ADR 3): ends trials of models and takes promotions back."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class DetectorActor:
    """Ray shell of ``DetectorService``."""

    def __init__(self, settings: Settings) -> None:
        configure_process("detector")
        engine = open_engine(settings.database_url)
        hub = HubClient.connect()
        alert_settings = load_section(AlertSettings)
        self._relay = Relay(engine, hub)
        self._silence_relay = SilenceRelay(engine, hub)
        self._external = ExternalAlerts(engine, AlertEngine(engine, SystemClock(), alert_settings), SystemClock())
        self._watchdog = Watchdog(alert_settings, engine)
        self._keeper = _named(MODEL_KEEPER)(engine)
        # Here, because there is always a detector; several of them do what one would.
        self._timer = AlertTimer(engine, alert_settings, self._relay.wake, after_step=self._after_step)
        self._service = DetectorService(
            stream=TelemetryStream.open(settings.redis_url, load_section(TelemetrySettings)),
            engine=engine,
            settings=load_section(DetectorSettings),
            clock=SystemClock(),
            on_events=self._relay.wake,
            alerts=alert_settings,
            rules=load_section(RulesSettings),
        )
        webhook, alertmanager = load_section(WebhookSettings), load_section(AlertmanagerSettings)
        self._notifier = Notifier(engine, get_breaker(), webhook, alertmanager)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        self._relay.start()
        self._timer.start()
        self._notifier.start()
        self._thread.start()

    def ready(self) -> bool:
        """Return once the actor can be called; Valkey and SQL may still be away."""
        return True

    def status(self) -> dict[str, Any]:
        """Return ``DetectorStatus`` as a plain object, who is told outside, and the process that it is of."""
        told = {"notifications": self._notifier.status(), "pid": os.getpid()}
        return dataclasses.asdict(self._service.status()) | told

    def stop(self) -> None:
        """End after the turn in progress; what is not acknowledged stays in the stream."""
        self._stop.set()
        self._thread.join(10.0)
        self._service.close()
        self._timer.close()
        self._notifier.close()
        self._relay.close()

    def _after_step(self, now: float) -> None:
        self._silence_relay.publish_pending()
        self._watchdog.step(now)
        self._keeper.step(now)
        if self._external.expire(now):
            self._relay.wake()

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while not self._stop.is_set():
            try:
                self._service.step()
            except Exception as error:
                # The thread must outlive any outage of its stores: the readings wait in the stream.
                if self._service.problem is None:
                    logger.warning("detector waits: %s", error, exc_info=True)
                self._service.problem = str(error)
                self._stop.wait(backoff.next_pause_s())
            else:
                if self._service.problem is not None:
                    logger.info("detector goes on")
                    self._service.problem = None
                    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)


def _named(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def get_or_create_detector(settings: Settings) -> Any:
    """Return the handle of the floor's detector, starting it when nobody has."""
    return get_or_create(DetectorActor, settings, name=names.DETECTOR, max_concurrency=CALLS_AT_ONCE)
