"""Who hears of runs: one listener, loaded by name and called on a thread of its own.

The folder of the listener is above this one, hence the name. Invariant: a slow or
failing listener delays and breaks nothing here; when it falls behind, the oldest news
goes, and each piece of news is the whole run, so the newest is enough.
"""

import importlib
import logging
import queue
import threading
from typing import Any, Protocol

from cluster.errors import SettingsError
from cluster.runs import Run, run_to_json

logger = logging.getLogger(__name__)

MAX_WAITING = 1000


class RunListener(Protocol):
    """Hears of every change of every run, in order, on one thread."""

    def on_change(self, run: dict[str, Any]) -> None:
        """Take note of a run as ``run_to_json`` shows it."""
        ...


class RunNews:
    """Hands changed runs to a listener."""

    def __init__(self, listener: RunListener) -> None:
        self._listener = listener
        self._waiting: queue.Queue[Run] = queue.Queue(MAX_WAITING)
        self.dropped_total = 0
        threading.Thread(target=self._run, name="run-news", daemon=True).start()

    def tell(self, run: Run) -> None:
        """Pass a changed run on, soon; never waits."""
        while True:
            try:
                self._waiting.put_nowait(run)
            except queue.Full:
                self._drop_oldest()
            else:
                return

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return
        self.dropped_total += 1
        if self.dropped_total == 1:
            logger.warning("the listener of runs is behind, news is dropped")

    def _run(self) -> None:
        while True:
            run = self._waiting.get()
            try:
                self._listener.on_change(run_to_json(run))
            except Exception:
                # The listener is another folder's; the queue works on without it.
                logger.exception("the listener of runs failed on run %s", run.id)


def load_listener(name: str) -> RunListener | None:
    """Return the listener called ``module:Class``; None for ``none``.

    Raises:
        SettingsError: there is no such class.
    """
    if name in {"", "none"}:
        return None
    module, _, attribute = name.partition(":")
    try:
        listener: RunListener = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise SettingsError("WATCHFLOOR_RUN_QUEUE_LISTENER", name, str(error)) from error
    return listener
