"""The floor's metrics: each process pushes its own, anybody may read the sum.

Knows no metric by name; summing is ``metrics_sum.py``. Invariant: pushing never raises
and never blocks the process, with or without Ray.
"""

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cluster import names
from cluster.actor_link import ActorLink
from cluster.errors import ClusterError
from cluster.metrics import REGISTRY, process_resident_memory
from cluster.metrics_sum import Family, ProcessId, take_snapshot

logger = logging.getLogger(__name__)

PUSH_INTERVAL_S = 2.0
PUSH_TIMEOUT_S = 2.0
RENDER_TIMEOUT_S = 5.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MetricsClient:
    """Typed front of the metrics actor."""

    def __init__(self, handle: object = None) -> None:
        self._link = ActorLink(names.METRICS, handle)

    @classmethod
    def connect(cls) -> "MetricsClient":
        """Return a client of the floor's metrics actor.

        Raises:
            ServiceUnavailableError: it is not there.
        """
        client = cls()
        client._link.connect()
        return client

    def render_sync(self, timeout_s: float = RENDER_TIMEOUT_S) -> bytes:
        """Return the sum over all processes in Prometheus' text format."""
        return bytes(self._link.call("render", timeout_s=timeout_s))

    async def render(self, timeout_s: float = RENDER_TIMEOUT_S) -> bytes:
        """Return the sum over all processes in Prometheus' text format."""
        return bytes(await self._link.acall("render", timeout_s=timeout_s))

    def push(self, process: ProcessId, families: Sequence[Family], timeout_s: float = PUSH_TIMEOUT_S) -> None:
        """Replace what the actor knows of ``process``; safe to repeat."""
        self._link.call("push", process, tuple(families), timeout_s=timeout_s)


class MetricsPusher:
    """Sends this process's samples to the metrics actor every two seconds, from a thread of its own."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._process = ProcessId(kind=kind, host=socket.gethostname(), pid=os.getpid(), started_at=time.time())
        self._stop = threading.Event()
        self._client = MetricsClient()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="metrics-pusher", daemon=True)

    def start(self) -> None:
        """Begin to push; the last values go out when the interpreter ends."""
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Push once more and stop."""
        if not self._stop.is_set():
            self._stop.set()
            self._push()

    def _run(self) -> None:
        while not self._stop.wait(PUSH_INTERVAL_S):
            self._push()

    def _push(self) -> None:
        process_resident_memory.labels(self._kind).set(_resident_bytes())
        try:
            self._client.push(self._process, take_snapshot(REGISTRY))
        except ClusterError as error:
            if not self._failing:
                logger.warning("metrics are not collected: %s", error)
            self._failing = True
        except Exception:
            # Metrics never harm the process they count; the next push tells whether it lasts.
            logger.exception("metrics could not be pushed")
        else:
            self._failing = False


_pusher: MetricsPusher | None = None
_pusher_lock = threading.Lock()


def start_metrics_pusher(process: str) -> None:
    """Push this process's metrics from now on; ``process`` is its kind. A second call changes nothing."""
    global _pusher
    with _pusher_lock:
        if _pusher is None:
            _pusher = MetricsPusher(process)
            _pusher.start()


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0  # not Linux: the figure is missing, nothing else is
