"""One program of the floor that is kept running.

Knows nothing of what the program is. ``step`` is called again and again by the supervisor's
loop and never waits. Invariant: at most one process of it exists at a time.
"""

import logging
from collections.abc import Callable
from typing import Protocol

from cluster.clock import Clock
from serve_apps.floor_state import ServiceRecord, ServiceState
from serve_apps.restart import RestartPolicy

logger = logging.getLogger(__name__)


class Process(Protocol):
    """A started process group; see ``cluster.process.Child``."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs; never waits."""
        ...

    def terminate(self) -> None:
        """Ask its whole group to end; returns at once."""
        ...

    def stop(self, grace_s: float = 10.0) -> None:
        """End its whole group, by force after ``grace_s``."""
        ...


class Supervised:
    """Starts a program, notices its end and starts it again."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        *,
        is_ready: Callable[[], bool],
        clock: Clock,
        policy: RestartPolicy | None = None,
        detail: Callable[[], str] = lambda: "",
        once: bool = False,
    ) -> None:
        """Describe the program; nothing starts yet.

        Args:
            name: what people call it.
            start: starts one process of it.
            is_ready: asked while it is starting.
            clock: time.
            policy: delays between starts.
            detail: words for people, asked for each record.
            once: it has a task and ends with status 0 when that is done.
        """
        self.name = name
        self.state: ServiceState = "stopped"
        self.restarts = 0
        self.last_status: int | None = None
        self._start = start
        self._is_ready = is_ready
        self._clock = clock
        self._policy = policy or RestartPolicy()
        self._detail = detail
        self._once = once
        self._process: Process | None = None
        self._started_s = 0.0
        self._not_before_s = 0.0

    @property
    def process(self) -> Process | None:
        """The running process, if any."""
        return self._process

    def launch(self) -> None:
        """Start it now."""
        self._process = self._start()
        self._started_s = self._clock.monotonic_s()
        self.state = "starting"

    def step(self) -> bool:
        """Look once at the program; True when its state changed."""
        before = (self.state, self.restarts)
        if self._process is not None:
            self.last_status = self._process.poll()
            if self.last_status is not None:
                self._ended(self.last_status)
            elif self.state == "starting" and self._is_ready():
                self.state = "running"
        elif self.state == "waiting" and self._clock.monotonic_s() >= self._not_before_s:
            self.restarts += 1
            self.launch()
        return (self.state, self.restarts) != before

    def begin_anew(self) -> None:
        """Ask a running process to end, to be started again; returns at once."""
        if self._process is not None:
            self._process.terminate()

    def terminate(self) -> None:
        """Ask it to end, for good; returns at once."""
        if self._process is not None:
            self._process.terminate()
        self.state = "stopped"

    def stop(self, grace_s: float = 10.0) -> None:
        """End it, for good."""
        if self._process is not None:
            self._process.stop(grace_s)
            self._process = None
        self.state = "stopped"

    def record(self) -> ServiceRecord:
        """Return what people are told about it."""
        pid = self._process.pid if self._process is not None else 0
        return ServiceRecord(state=self.state, detail=self._detail(), pid=pid, restarts=self.restarts)

    def _ended(self, status: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Its leader is gone; what it started may not be.
            process.stop(0.0)
        if self._once and status == 0:
            self.state = "done"
            return
        delay_s = self._policy.delay_s(self._clock.monotonic_s() - self._started_s)
        self._not_before_s = self._clock.monotonic_s() + delay_s
        self.state = "waiting"
        logger.warning("%s ended with status %s, starting it again in %.1f s", self.name, status, delay_s)
