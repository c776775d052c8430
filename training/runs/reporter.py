"""What a run tells the world while it works: its bar on the page, its row in the queue.

Called from the training loop, so nothing here waits: the Broadcaster buffers, and the
queue's row is written by a thread that keeps only the newest value. Invariants: percent
never goes down, and neither the hub nor the queue can slow or fail a training.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from cluster.errors import ClusterError
from cluster.run_queue_client import RunQueueClient
from realtime.broadcaster import Broadcaster
from realtime.process_broadcaster import get_broadcaster

logger = logging.getLogger(__name__)

MIN_INTERVAL_S = 0.1
"""Least time between two values of the bar; a small data set has epochs of a few milliseconds."""
QUEUE_INTERVAL_S = 1.0
"""Least time between two writes of the run's row: each one is a commit."""


class Reporter(Protocol):
    """Takes the progress of one run.

    Guarantee: ``progress`` returns at once and never raises.
    """

    def progress(
        self, percent: float, message: str, data: Mapping[str, Any] | None = None, *, is_milestone: bool = False
    ) -> None:
        """Say how far the run is.

        Args:
            percent: 0 to 100.
            message: text beside the bar.
            data: figures such as epoch and loss.
            is_milestone: shown even right after another value.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Deliver what waits, for at most ``timeout_s``."""
        ...


class SilentReporter:
    """Keeps what it was told: for trainings without a floor, such as ``ScalingConfig(num_workers=0)``."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str, dict[str, Any]]] = []

    def progress(
        self, percent: float, message: str, data: Mapping[str, Any] | None = None, *, is_milestone: bool = False
    ) -> None:
        self.told.append((percent, message, dict(data or {}) | {"is_milestone": is_milestone}))

    def close(self, timeout_s: float) -> None:
        logger.debug("nothing waits; %s s not needed", timeout_s)


class LiveReporter:
    """Reports through the hub to page and terminal, and to the run queue."""

    def __init__(
        self,
        run_id: str,
        user_id: str,
        task_name: str,
        queue: RunQueueClient,
        broadcaster: Broadcaster | None = None,
        *,
        percent: float = 0.0,
    ) -> None:
        """Begin to report.

        Args:
            run_id: of the run.
            user_id: who hears of it besides those who watch the run; the empty string: nobody.
            task_name: names the bar.
            queue: keeps the run's row.
            broadcaster: None: this process's own.
            percent: where the bar was left by workers that were lost; it does not go back behind it.
        """
        self._run_id = run_id
        self._user_id = user_id or None
        self._task_name = task_name
        self._queue = queue
        self._broadcaster = broadcaster or get_broadcaster()
        self._percent = percent
        self._next_at_s = 0.0
        self._newest: tuple[float, str] | None = None
        self._has_news = threading.Event()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._write_row, name="run-row", daemon=True)
        self._thread.start()

    def progress(
        self, percent: float, message: str, data: Mapping[str, Any] | None = None, *, is_milestone: bool = False
    ) -> None:
        now_s = time.monotonic()
        if now_s < self._next_at_s and not is_milestone:
            return
        self._next_at_s = now_s + MIN_INTERVAL_S
        self._percent = max(self._percent, percent)
        self._broadcaster.broadcast_task_progress(
            self._user_id, self._task_name, self._percent, message, run_id=self._run_id, data=data
        )
        self._newest = (self._percent, message)
        self._has_news.set()

    def close(self, timeout_s: float) -> None:
        self._is_closing.set()
        self._has_news.set()
        self._thread.join(timeout_s)
        self._broadcaster.flush(timeout_s)

    def _write_row(self) -> None:
        while True:
            self._has_news.wait(QUEUE_INTERVAL_S)
            self._has_news.clear()
            newest, self._newest = self._newest, None
            if newest is not None:
                try:
                    self._queue.progress(self._run_id, *newest)
                except ClusterError as error:
                    # The bar on the page still moves; the row gets the next value.
                    logger.warning("run %s: the queue did not take its progress: %s", self._run_id, error)
            if self._is_closing.is_set() and self._newest is None:
                return
            self._is_closing.wait(QUEUE_INTERVAL_S)
