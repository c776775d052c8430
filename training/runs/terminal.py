"""How a run looks in a terminal: a bar where there is one, a line per change elsewhere.

Also reads the run's row for it, because the driver's own thread is inside Ray Train.
Invariant: a run's end is always shown, with its reason.
"""

import getpass
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.errors import ClusterError
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunState, run_to_json

logger = logging.getLogger(__name__)

POLL_S = 0.5
BAR_CELLS = 20


class Display(Protocol):
    """Shows one run."""

    def note(self, text: str) -> None:
        """Show what is going on before there is progress."""
        ...

    def show(self, run: Run) -> None:
        """Show the run as it is now."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class BarDisplay:
    """A live bar, for a person at a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(bar_width=40),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False)

    def show(self, run: Run) -> None:
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(run.message or run.state, total=100.0)
        self._progress.update(self._task, completed=run.progress, description=describe(run))
        if run.state.is_terminal:
            self.close()
            self.note(describe(run))

    def close(self) -> None:
        self._progress.stop()


class LineDisplay:
    """One line per change: for ``ray job submit``, which shows what the job prints."""

    def __init__(self) -> None:
        self._last = ""

    def note(self, text: str) -> None:
        print(text, flush=True)

    def show(self, run: Run) -> None:
        filled = round(BAR_CELLS * run.progress / 100.0)
        line = f"[{'#' * filled}{'.' * (BAR_CELLS - filled)}] {run.progress:5.1f} %  {describe(run)}"
        if line != self._last:
            self._last = line
            self.note(line)

    def close(self) -> None:
        return


class JsonDisplay:
    """One JSON object per change, as the API gives it."""

    def __init__(self) -> None:
        self._last_version = 0

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, run: Run) -> None:
        if run.version != self._last_version:
            self._last_version = run.version
            print(json.dumps(run_to_json(run)), flush=True)

    def close(self) -> None:
        return


def open_display(*, as_json: bool) -> Display:
    """Return the display that fits standard output."""
    if as_json:
        return JsonDisplay()
    return BarDisplay() if sys.stderr.isatty() and sys.stdout.isatty() else LineDisplay()


def describe(run: Run) -> str:
    """Return the run's state in a few words."""
    if run.state is RunState.SUCCEEDED:
        return f"succeeded: {run.result.get('model_id', run.message)}"
    if run.state.is_terminal:
        return f"{run.state.value}: {run.reason or 'no reason given'}"
    if run.state is RunState.QUEUED:
        return f"queued, {run.waits_for}" if run.waits_for else "queued"
    return run.message or run.state.value


def watch(
    queue: RunQueueClient,
    run_id: str,
    show: Callable[[Run], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Run | None:
    """Show the run until it has ended, and return it; None when ``should_stop`` said so first."""
    told_at_version = 0
    while not should_stop():
        try:
            run = queue.get(run_id)
        except ClusterError as error:
            # The queue is restarting; the training does not need it to go on.
            logger.warning("run %s: %s", run_id, error)
        else:
            if run.version != told_at_version:
                told_at_version = run.version
                show(run)
            if run.state.is_terminal:
                return run
        time.sleep(POLL_S)
    return None


class Watching:
    """``watch`` on a thread of its own, for a driver whose main thread is inside ``fit``."""

    def __init__(self, queue: RunQueueClient, run_id: str, display: Display) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=watch, args=(queue, run_id, display.show, self._stop.is_set), name="run-watch", daemon=True
        )

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * POLL_S)


def shell_user() -> str:
    """Return who sits at the terminal; empty in a container without a passwd entry: then it is the floor's."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
