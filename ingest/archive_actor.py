"""The floor's archiver as a named Ray actor: drives ``Archiver`` on a thread.

Ray shell: it decides nothing. Invariant: one per floor, so readings are archived in order.
"""

import logging
import threading
from typing import Any

from cluster import names
from cluster.actors import configure_process, get_or_create
from cluster.clock import SystemClock
from cluster.settings import Settings, load_section
from ingest.archive import ArchiveSettings, ArchiveStore
from ingest.archiver import Archiver
from ingest.errors import StoreUnavailableError
from ingest.telemetry_redis import TelemetrySettings, TelemetryStream
from realtime.backoff import Backoff

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class ArchiveActor:
    """Ray shell of ``Archiver``."""

    def __init__(self, settings: Settings) -> None:
        configure_process("archiver")
        self._archiver = Archiver(
            TelemetryStream.open(settings.redis_url, load_section(TelemetrySettings)),
            ArchiveStore(settings.storage_url),
            load_section(ArchiveSettings),
            SystemClock(),
        )
        self._stop = threading.Event()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="archiver", daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        """Return once the actor can be called; Valkey and the files may still be away."""
        return True

    def status(self) -> dict[str, Any]:
        """Return how many readings this process archived, and what stops it (or None)."""
        return {"archived_total": self._archiver.archived_total, "problem": self._problem}

    def stop(self) -> None:
        """Write what waits and end."""
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while not self._stop.is_set():
            try:
                self._archiver.step()
            except StoreUnavailableError as error:
                self._failed(str(error))
                self._stop.wait(backoff.next_pause_s())
            except Exception as error:  # a thread that ends silently would fill the stream
                logger.exception("archiver failed, it goes on")
                self._failed(str(error))
                self._stop.wait(backoff.next_pause_s())
            else:
                if self._problem is not None:
                    logger.info("archiver goes on")
                    self._problem = None
                    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        try:
            self._archiver.flush()
        except StoreUnavailableError as error:
            logger.warning("archiver ends with readings unwritten, they stay in the stream: %s", error)

    def _failed(self, reason: str) -> None:
        if self._problem is None:
            logger.warning("archiver waits: %s", reason)
        self._problem = reason


def get_or_create_archiver(settings: Settings) -> Any:
    """Return the handle of the floor's archiver, starting it when nobody has."""
    return get_or_create(ArchiveActor, settings, name=names.ARCHIVER, max_concurrency=2)
