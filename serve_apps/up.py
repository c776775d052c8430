"""``watchfloor up`` and ``down``: the supervisor in this terminal, or behind it.

What is started, and how it is kept running, is ``supervisor.py``. Run as
``python -m serve_apps.up`` it is the supervisor of a detached floor. Invariant: whichever
way it ends (Ctrl-C, SIGTERM, a closed terminal, an error), the floor has ended with it.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from rich.console import Console
from rich.live import Live

from cluster.embedded import EmbeddedSettings
from cluster.errors import ClusterError
from cluster.process import send
from cluster.settings import Settings, load_section
from serve_apps import status
from serve_apps.floor_env import RUNTIME_ENV_VARIABLE
from serve_apps.floor_state import FloorFolder, FloorRecord
from serve_apps.supervisor import DEMO, Supervisor, clear_leftovers

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 300.0
END_TIMEOUT_S = 90.0
"""Above what a supervisor takes at most, most of it on a Ray that is not ours."""
POLL_S = 0.1
STATUS_EVERY_S = 2.0

EXIT_MISTAKE = 2

TRAIN_LINE = "python -m training train --model anomaly_detector --dataset telemetry"


def foreground(settings: Settings, *, demo: bool) -> int:
    """Run the floor in this terminal until it is told to end; return the exit status."""
    console = Console()
    return _supervise(
        settings, demo=demo, view=_TableView(settings, console) if console.is_terminal else _LineView(settings)
    )


def detached(settings: Settings, *, demo: bool) -> int:
    """Start the floor behind this terminal and return when it is ready, with the exit status."""
    folder = FloorFolder.of(settings)
    folder.logs.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "serve_apps.up", *([] if demo else ["--no-demo"])]
    log_path, said_path = folder.logs / "supervisor.log", folder.logs / "supervisor.err"
    # A file, not a pipe: nobody reads a pipe once this command has returned.
    with log_path.open("ab") as log, said_path.open("wb") as said:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "WATCHFLOOR_DATA_DIR": str(folder.path)},
        )
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        record = folder.read()
        if record is not None and record.supervisor.pid == process.pid and record.phase == "ready":
            _say_ready(settings, record)
            return 0
        time.sleep(POLL_S)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        print(f"watchfloor: the floor was not ready after {READY_TIMEOUT_S:.0f} s, see {log_path}", file=sys.stderr)
        return 1
    sys.stderr.write(said_path.read_text(encoding="utf-8", errors="replace"))
    return process.returncode or 1


def down(folder: FloorFolder) -> bool:
    """End the floor of this folder; False when none was running.

    Raises:
        TimeoutError: its supervisor does not end.
    """
    record = folder.read()
    if record is None:
        return False
    was_running = send(record.supervisor, signal.SIGTERM)
    deadline_s = time.monotonic() + END_TIMEOUT_S
    while record.supervisor.is_running():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"supervisor {record.supervisor.pid} did not end in {END_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
    # A killed supervisor may have left something; one that ended by itself has not.
    return clear_leftovers(folder.read()) > 0 or was_running


class _LineView:
    """Tells a log or a pipe about each change."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._phase = ""

    def __enter__(self) -> "_LineView":
        return self

    def __exit__(self, *_exc: object) -> None:
        return

    def update(self, record: FloorRecord) -> None:
        """Print what is new."""
        if record.phase == self._phase:
            return
        self._phase = record.phase
        if record.phase == "ready":
            _say_ready(self._settings, record)
        else:
            print(f"the floor is {record.phase}", flush=True)


class _TableView:
    """A table that follows the floor."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._phase = ""
        self._status: dict[str, object] = {}
        self._poll = threading.Thread(target=self._follow, name="status", daemon=True)
        self._ended = threading.Event()

    def __enter__(self) -> "_TableView":
        self._live.__enter__()
        self._poll.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._live.__exit__(None, None, None)

    def update(self, record: FloorRecord) -> None:
        """Draw the newest status."""
        if record.phase != self._phase:
            self._phase = record.phase
            if record.phase == "ready":
                _say_ready(self._settings, record, self._console)
            else:
                self._console.print(f"the floor is {record.phase}")
        if self._status:
            self._live.update(status.render(self._status), refresh=True)

    def _follow(self) -> None:
        # In a thread of its own: a gateway that does not answer must not hold the supervisor up.
        while not self._ended.wait(STATUS_EVERY_S):
            self._status = status.collect(self._settings)


def _supervise(settings: Settings, *, demo: bool, view: _LineView | _TableView) -> int:
    stop = threading.Event()

    def ask_to_end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ask_to_end)
    supervisor = Supervisor(settings, load_section(EmbeddedSettings), demo=demo)
    try:
        supervisor.start()
    except BaseException:
        supervisor.stop()
        raise
    with view:
        supervisor.run(stop.is_set, view.update)
    return 0


def _say_ready(settings: Settings, record: FloorRecord, console: Console | None = None) -> None:
    lines = [
        f"the floor is ready after {record.ready_at - record.started_at:.1f} s: {record.url}/",
        f"sign in (once, within 10 minutes): {status.signin_url(settings, record.url)}",
        *([f"the demo replays {demo.detail}"] if (demo := record.services.get(DEMO)) else []),
        "train a model on its telemetry:",
        '  eval "$(watchfloor env)"',
        f"  {_job_line(record)}",
    ]
    for line in lines:
        # soft_wrap: a link broken over two lines cannot be clicked or copied.
        console.print(line, soft_wrap=True, highlight=False) if console else print(line, flush=True)


def _job_line(record: FloorRecord) -> str:
    # The nodes of a Ray that is not ours know nothing of this floor.
    given = f'--runtime-env-json "${RUNTIME_ENV_VARIABLE}" ' if RUNTIME_ENV_VARIABLE in record.env else ""
    return f"ray job submit --working-dir . {given}-- {TRAIN_LINE}"


def main(argv: Sequence[str] | None = None) -> int:
    """Supervise a detached floor; standard error carries only the sentence why it could not."""
    parser = argparse.ArgumentParser(prog="python -m serve_apps.up", description=__doc__)
    parser.add_argument("--no-demo", action="store_true", help="do not replay recorded telemetry")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings.load()
    try:
        return _supervise(settings, demo=not arguments.no_demo, view=_LineView(settings))
    except (ClusterError, OSError) as error:
        logger.exception("the floor ended")
        print(f"watchfloor: {error}", file=sys.stderr)
        return EXIT_MISTAKE


if __name__ == "__main__":
    sys.exit(main())
