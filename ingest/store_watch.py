"""Keeps every store of the floor within its bound: measures, deletes what leaves, stops who writes, tells.

The shell of ``store_bounds.py``, on a thread of its own; ``step`` is also driven by tests.
Invariants: a deleting transaction has a bounded number of rows; a store that cannot be
measured keeps its last level, so an outage neither stops nor frees anything.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge

from cluster.clock import Clock, SystemClock
from cluster.metrics import REGISTRY
from ingest.errors import StoreFullError
from ingest.store_bounds import (
    Level,
    StoreBound,
    StoreName,
    StoreReport,
    StoresSettings,
    StoreUsage,
    disk_bound,
    expired_before,
    in_words,
    must_shed,
    report,
)

logger = logging.getLogger(__name__)

PAUSE_S = 0.02
"""Between two deleting transactions, so that others get their turn."""
ROUNDS = 200
"""Deleting transactions of one step and store; the rest waits for the next step."""
FULL_CHECK_S = 1.0
"""Pace while a store is full: how soon ingest goes on once there is room."""
DISK_CHECK_S = 0.5
"""Age up to which an answer about the disk counts."""

store_bytes = Gauge("watchfloor_store_bytes", "Size of a store's content.", ["store"], registry=REGISTRY)
store_limit_bytes = Gauge("watchfloor_store_limit_bytes", "Its bound.", ["store"], registry=REGISTRY)
store_age_seconds = Gauge(
    "watchfloor_store_age_seconds", "Age of its oldest content that leaves by age.", ["store"], registry=REGISTRY
)
store_limit_seconds = Gauge("watchfloor_store_limit_seconds", "Age at which it leaves.", ["store"], registry=REGISTRY)
store_near = Gauge("watchfloor_store_near", "1 from shortly before its bound on.", ["store"], registry=REGISTRY)
store_full = Gauge("watchfloor_store_full", "1 while nothing for it is acknowledged.", ["store"], registry=REGISTRY)
store_deleted = Counter(
    "watchfloor_store_deleted",
    "Rows (of the archive: days) that left, by age or by size.",
    ["store"],
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedStore:
    """One store as the watch sees it."""

    name: StoreName
    bound: Callable[[], StoreBound]
    usage: Callable[[], StoreUsage]
    expire: Callable[[float, int], int] | None = None
    """Deletes at most so many rows from before a time, oldest first; returns how many. None: somebody else does."""
    shed: Callable[[int], int] | None = None
    """Deletes the oldest rows, at most so many; returns how many. None: nothing of it is expendable."""


class StoreWatch:
    """Watches the stores of one floor; one process does."""

    def __init__(
        self,
        stores: Sequence[BoundedStore],
        settings: StoresSettings | None = None,
        *,
        disk: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Watch ``stores``, and the disk that the folder ``disk`` is on (None: no disk)."""
        self._stores = stores
        self._settings = settings or StoresSettings()
        self._disk = disk
        self._clock = clock or SystemClock()
        self._reports: dict[StoreName, StoreReport] = {}
        self._disk_checked_s = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch, on a thread."""
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def check(self, *names: StoreName) -> None:
        """Pass when all of these stores and the disk have room; cheap, for every batch.

        Raises:
            StoreFullError: one has none; ask again later.
        """
        self._check_disk()
        for name in (*names, StoreName.DISK):
            found = self._reports.get(name)
            if found is not None and found.level is Level.FULL:
                raise StoreFullError(name, found.text)

    def reports(self) -> dict[StoreName, StoreReport]:
        """Return where each store stands; one that was never measured is missing."""
        return dict(self._reports)

    def step(self) -> None:
        """Measure every store once, and delete what leaves."""
        for store in self._stores:
            if self._stop.is_set():
                return
            try:
                self._keep(store)
            except Exception as error:  # one store's outage must not keep the others from being watched
                logger.debug("store %s could not be measured: %s", store.name, error)
        self._check_disk()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            self.step()
            is_full = any(one.level is Level.FULL for one in self.reports().values())
            pause_s = min(FULL_CHECK_S, self._settings.check_s) if is_full else self._settings.check_s

    def _keep(self, store: BoundedStore) -> None:
        bound = store.bound()
        before = expired_before(bound, self._clock.time_s())
        if store.expire is not None and before is not None:
            self._expire(store, store.expire, before)
        usage = store.usage()
        shed = store.shed
        if shed is not None and must_shed(usage, bound, has_begun=False):
            logger.warning("store %s is at its bound of %s: its oldest content leaves", store.name,
                           in_words(bound.limit_bytes))  # fmt: skip
            for _ in range(ROUNDS):
                if self._stop.is_set() or not self._count(store, shed(self._settings.delete_rows)):
                    break
                usage = store.usage()
                if not must_shed(usage, bound, has_begun=True):
                    break
                time.sleep(PAUSE_S)
        self._note(store.name, usage, bound)

    def _expire(self, store: BoundedStore, expire: Callable[[float, int], int], before: float) -> None:
        for _ in range(ROUNDS):
            rows = self._count(store, expire(before, self._settings.delete_rows))
            if rows < self._settings.delete_rows or self._stop.wait(PAUSE_S):
                return

    def _count(self, store: BoundedStore, rows: int) -> int:
        store_deleted.labels(store.name).inc(rows)
        return rows

    def _check_disk(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._disk is None or now_s - self._disk_checked_s < DISK_CHECK_S:
            return
        self._disk_checked_s = now_s
        try:
            disk = shutil.disk_usage(self._disk)
        except OSError:
            return  # the folder is away; whoever writes to it says so better
        # What only root may use counts as used: the services run as somebody else.
        bound = disk_bound(disk.total, self._settings.disk_free_bytes)
        self._note(StoreName.DISK, StoreUsage(disk.total - disk.free), bound)

    def _note(self, name: StoreName, usage: StoreUsage, bound: StoreBound) -> None:
        found = report(name, usage, bound, self._clock.time_s())
        before = self._reports.get(name)
        self._reports[name] = found
        store_bytes.labels(name).set(found.size_bytes)
        store_limit_bytes.labels(name).set(found.limit_bytes)
        if found.max_age_s is not None:
            store_limit_seconds.labels(name).set(found.max_age_s)
            store_age_seconds.labels(name).set(found.oldest_s or 0.0)
        store_near.labels(name).set(found.level is not Level.OK)
        store_full.labels(name).set(found.level is Level.FULL)
        was = Level.OK if before is None else before.level
        if found.level is not was:
            logger.warning("%s", found.text or f"store {name} has room again")
