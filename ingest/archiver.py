"""Moves readings from the stream into the archive, and lets the stream forget them.

A loop body without a thread or Ray: ``step`` is driven by the archive actor, or by a test.
Invariant: a reading is acknowledged only after its file is durable, and a reading that is
delivered again after a crash is recognised by its id and not written twice.
"""

import itertools
import logging
from collections.abc import Sequence

from pyarrow.lib import ArrowException

from cluster import names
from cluster.clock import Clock
from ingest import metrics
from ingest.archive import ArchiveSettings, ArchiveStore, StreamId, day_of, stream_id
from ingest.errors import StoreUnavailableError
from ingest.telemetry_redis import StoredReading, TelemetryStream

logger = logging.getLogger(__name__)

CONSUMER = "archiver"
READ_COUNT = 5000
BLOCK_MS = 500
ACK_COUNT = 5000
UPKEEP_S = 60.0
STORE = "archive"


class Archiver:
    """Reads the stream as group ``archive`` and writes Parquet files."""

    def __init__(self, stream: TelemetryStream, store: ArchiveStore, settings: ArchiveSettings, clock: Clock) -> None:
        self._stream = stream
        self._store = store
        self._settings = settings
        self._clock = clock
        self._waiting: list[StoredReading] = []
        self._archived_through: dict[str, StreamId] = {}
        self._flush_at_s: float | None = None
        self._upkeep_at_s = clock.monotonic_s()
        self.archived_total = 0

    def step(self) -> None:
        """Read what is new; write it out when it is time.

        Raises:
            StoreUnavailableError: Valkey or the files are away; calling again goes on from there.
        """
        room = 2 * self._settings.flush_rows - len(self._waiting)
        if room > 0:
            self._take(self._stream.read_group(names.ARCHIVE_GROUP, CONSUMER, min(room, READ_COUNT), BLOCK_MS))
        now_s = self._clock.monotonic_s()
        is_due = self._flush_at_s is not None and now_s >= self._flush_at_s
        if is_due or len(self._waiting) >= self._settings.flush_rows:
            self.flush()
        if now_s >= self._upkeep_at_s:
            self._upkeep_at_s = now_s + UPKEEP_S
            self._upkeep()

    def flush(self) -> None:
        """Write all that waits, acknowledge it, and trim the stream.

        Raises:
            StoreUnavailableError: what was not written still waits.
        """
        if not self._waiting:
            return
        started_s = self._clock.monotonic_s()
        try:
            for day, entries in itertools.groupby(self._waiting, key=lambda entry: day_of(stream_id(entry.id))):
                self._write(day, list(entries))
        except (OSError, ArrowException) as error:
            # Tried again after the usual time, not at once: a full disk stays full for a while.
            self._flush_at_s = self._clock.monotonic_s() + self._settings.flush_s
            raise StoreUnavailableError(STORE, str(error)) from error
        done, self._waiting, self._flush_at_s = self._waiting, [], None
        for start in range(0, len(done), ACK_COUNT):
            self._stream.ack(names.ARCHIVE_GROUP, [entry.id for entry in done[start : start + ACK_COUNT]])
        self._stream.trim()
        metrics.archive_seconds.observe(self._clock.monotonic_s() - started_s)

    def _take(self, entries: Sequence[StoredReading]) -> None:
        if entries and self._flush_at_s is None:
            self._flush_at_s = self._clock.monotonic_s() + self._settings.flush_s
        self._waiting.extend(entries)

    def _write(self, day: str, entries: Sequence[StoredReading]) -> None:
        if day not in self._archived_through:
            self._archived_through = {day: self._store.archived_through(day)}
        done = self._archived_through[day]
        # The stream is in order and files hold all up to their last id: up to there it is archived.
        fresh = [(stream_id(entry.id), entry.reading) for entry in entries if stream_id(entry.id) > done]
        if not fresh:
            return
        ids = [entry_id for entry_id, _ in fresh]
        self._store.write(day, ids, [reading for _, reading in fresh])
        self._archived_through[day] = ids[-1]
        self.archived_total += len(fresh)
        metrics.archive_rows.inc(len(fresh))

    def _upkeep(self) -> None:
        today = day_of((int(self._clock.time_s() * 1000), 0))
        yesterday = day_of((int(self._clock.time_s() * 1000) - 86_400_000, 0))
        try:
            for day in (yesterday, today):
                self._store.compact(day, self._settings)
            for day in self._store.expire(today, self._settings):
                logger.info("archive of %s deleted: beyond its age or size bound", day)
            metrics.archive_bytes.set(self._store.size_bytes())
        except (OSError, ArrowException) as error:
            raise StoreUnavailableError(STORE, str(error)) from error
