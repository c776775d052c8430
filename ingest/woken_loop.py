"""A thread that works when it is woken, and looks for forgotten work once in a while.

Knows nothing of the work. Invariants: it survives whatever a turn raises, and says so once
for each outage, not once for each turn; ``wake`` never blocks.
"""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class WokenLoop:
    """Calls ``turn`` after each ``wake`` and every ``sweep_s``."""

    def __init__(self, name: str, turn: Callable[[], bool], *, sweep_s: float = 1.0) -> None:
        """``turn`` returns whether it is to be called again at once."""
        self._name = name
        self._turn = turn
        self._sweep_s = sweep_s
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def start(self) -> None:
        """Start the thread; its first turn comes at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """There is work. For any thread or event loop."""
        self._woken.set()

    def close(self, timeout_s: float = 10.0) -> None:
        """Take a last turn and end the thread."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            is_last = self._closed.is_set()
            try:
                while self._turn() and not self._closed.is_set():
                    pass
                self._note(None)
            except Exception as error:
                # The work lies in a store: it waits there for the next turn.
                self._note(error)
            if is_last:
                return
            self._woken.wait(self._sweep_s)
            self._woken.clear()

    def _note(self, error: Exception | None) -> None:
        if error is not None and not self._is_failing:
            logger.warning("%s waits: %s", self._name, error, exc_info=error)
        elif error is None and self._is_failing:
            logger.info("%s goes on", self._name)
        self._is_failing = error is not None
