"""Log lines about failed broadcasts: one per kind and reason in a window, with the count.

Metrics count every failure; a log that repeats each would bury what it says.
"""

import logging
import threading

from cluster.clock import Clock

logger = logging.getLogger(__name__)

WINDOW_S = 60.0


class FailureLog:
    """Writes the first failure of each (kind, reason), then one line per window."""

    def __init__(self, clock: Clock, window_s: float = WINDOW_S) -> None:
        self._clock = clock
        self._window_s = window_s
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}
        self._lines: list[tuple[str, str, str, int, str]] = []

    def add(self, kind: str, reason: str, run_id: str | None, detail: str) -> None:
        """Count one failure; writes nothing, so it may be called under a lock."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            until_s, unlogged = self._windows.get((kind, reason), (now_s, 0))
            if now_s < until_s:
                self._windows[kind, reason] = (until_s, unlogged + 1)
                return
            self._windows[kind, reason] = (now_s + self._window_s, 0)
            self._lines.append((kind, reason, run_id or "-", unlogged, detail))

    def write(self) -> None:
        """Write the lines that are due. Call it without locks: a log handler may block."""
        if not self._lines:
            return
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            logger.warning("broadcast dropped: kind=%s reason=%s run_id=%s unlogged_before=%d detail=%s", *line)
