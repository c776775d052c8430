"""The stream of accepted readings in Valkey: append once, read by group, trim what all have read.

Network file: errors of redis-py are translated here and no one else sees them. It does not
decide what to do about an outage; the caller retries or stops acknowledging.
Invariants: a reading with a key (tenant, device, boot_id, seq) enters the stream once however
often it is appended, one with a content key once among the newest of its kind; nothing is
trimmed that a consumer group has not acknowledged; every call ends within its socket time-outs.
"""

import logging
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from cluster import names
from cluster.guarded_redis import GuardedRedis
from ingest.errors import StoreFullError, StoreUnavailableError, StoreUnsafeError
from ingest.payload import Reading, decode_reading, encode_reading

logger = logging.getLogger(__name__)

STORE = "telemetry"
DEDUP_PREFIX = "wf:seen"
CONTENT_KEYS = ("wf:content:{shard}:new", "wf:content:{shard}:old")
CHUNK_BITS = 8192
"""Sequence numbers per bitmap: 1 KiB when full, so a slow device costs little."""
FIRST = "0-0"
APPEND = (Path(__file__).parent / "lua" / "telemetry_append.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """Bounds of the telemetry stream."""

    keep_readings: int = 100_000
    """Readings that stay in the stream after every group has them: history for restarts and charts."""
    dedup_ttl_s: int = 259_200
    """How long a boot's sequence numbers are remembered after its last reading, in seconds (3 days)."""
    dedup_content: int = 65_536
    """Readings known by device time and content, for want of a sequence number, that are remembered at least
    (and at most twice as many): far more than a broker sends again, about 10 MB."""
    memory_limit_ratio: float = 0.8
    """Share of Valkey's ``maxmemory`` above which ingest stops accepting."""
    socket_timeout_s: float = 1.0
    """Longest wait for one answer of Valkey, in seconds; one repetition follows."""

    def __post_init__(self) -> None:
        if self.keep_readings < 1:
            raise ValueError(f"keep_readings must be at least 1, got {self.keep_readings}")
        if not 0 < self.memory_limit_ratio <= 1:
            raise ValueError(f"memory_limit_ratio must be in (0, 1], got {self.memory_limit_ratio}")
        if self.dedup_content < 1:
            raise ValueError(f"dedup_content must be at least 1, got {self.dedup_content}")
        if self.dedup_ttl_s < 1 or self.socket_timeout_s <= 0:
            raise ValueError("dedup_ttl_s and socket_timeout_s must be positive")


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch."""

    stored: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A reading and its place in the stream."""

    id: str
    reading: Reading


class TelemetryStream:
    """One shard of the stream; safe to use from several threads."""

    def __init__(
        self, client: redis.Redis, settings: TelemetrySettings, shard: int = 0, *, reader: redis.Redis | None = None
    ) -> None:
        """Wire one shard.

        Args:
            reader: client for reading by group, without repetitions of its own; None: ``client`` has none.
        """
        # redis-py types its replies for both protocols at once; here they are what bytes mode gives.
        self._redis: Any = client
        self._reader: Any = reader or client
        self._settings = settings
        self._shard = shard
        self._key = names.TELEMETRY_STREAM.format(shard=shard)
        self._content_keys = [name.format(shard=shard) for name in CONTENT_KEYS]
        self._append = client.register_script(APPEND)
        self._next_memory_check_s = 0.0
        self._recovering: dict[tuple[str, str], str | None] = {}
        self._last_read: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, redis_url: str, settings: TelemetrySettings | None = None, shard: int = 0) -> "TelemetryStream":
        """Return the shard behind ``redis_url``; connects at the first use."""
        settings = settings or TelemetrySettings()
        client, reader = (
            GuardedRedis.from_url(
                redis_url,
                socket_timeout=settings.socket_timeout_s,
                socket_connect_timeout=settings.socket_timeout_s / 2,
                # redis-py's own default blocked for 59 s on a stopped server.
                retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), retries=retries),
                retry_on_error=[redis.ConnectionError, redis.TimeoutError],
            )
            # Reading by group moves the group on: a repetition would skip what an answer that got lost had held.
            for retries in (1, 0)
        )
        return cls(client, settings, shard, reader=reader)

    def check(self) -> None:
        """Make sure that the store keeps what it confirms, and that both groups exist.

        Raises:
            StoreUnsafeError: an eviction policy may remove accepted readings.
            StoreUnavailableError: the store does not answer.
        """
        with _translated():
            try:
                config: dict[str, str] = self._redis.config_get("maxmemory-policy", "appendonly", "appendfsync")
            except redis.ResponseError:
                config = {}  # a managed Redis hides its configuration
        policy = config.get("maxmemory-policy", "noeviction")
        if policy != "noeviction":
            raise StoreUnsafeError(STORE, "maxmemory-policy", policy, "noeviction")
        if config.get("appendonly") == "no" or config.get("appendfsync", "always") != "always":
            logger.warning(
                "Valkey confirms before it writes to disk (appendonly=%s appendfsync=%s): "
                "readings accepted in its last seconds may be lost",
                config.get("appendonly"),
                config.get("appendfsync"),
            )
        self.ensure_groups()

    def ensure_groups(self) -> None:
        """Create the detector's and the archiver's group at the start of the stream, where missing."""
        for group in (names.DETECTOR_GROUP, names.ARCHIVE_GROUP):
            with _translated():
                try:
                    self._redis.xgroup_create(self._key, group, id=FIRST, mkstream=True)
                except redis.ResponseError as error:
                    if not str(error).startswith("BUSYGROUP"):
                        raise

    def append(self, readings: Sequence[Reading]) -> Appended:
        """Store a batch; when this returns, every reading of it is on Valkey's disk, once.

        Raises:
            StoreFullError: memory is above the bound; nothing was stored.
            StoreUnavailableError: no answer; the batch may be stored, appending it again is safe.
        """
        if not readings:
            return Appended(0, 0)
        self._guard_memory()
        chunks: dict[str, int] = {}
        places: list[int] = []
        digests: list[bytes] = []
        for reading in readings:
            if reading.seq is None:
                if reading.content_key is not None:
                    digests.append(reading.content_key)
                places.extend((0, len(digests) if reading.content_key is not None else 0))
                continue
            chunk, bit = divmod(reading.seq, CHUNK_BITS)
            key = f"{DEDUP_PREFIX}:{self._shard}:{reading.tenant}/{reading.device}/{reading.boot_id}:{chunk}"
            places.extend((chunks.setdefault(key, len(chunks) + 1), bit))
        # Two numbers per reading in one argument: redis-py spends more on an argument than on anything else here.
        packed = struct.pack(f"<{len(places)}I", *places)
        settings = self._settings
        arguments: list[Any] = [settings.dedup_ttl_s, settings.dedup_content, packed, b"".join(digests)]
        arguments += map(encode_reading, readings)
        with _translated():
            stored = int(self._append(keys=[self._key, *self._content_keys, *chunks], args=arguments))
        return Appended(stored, len(readings) - stored)

    def read_group(self, group: str, consumer: str, count: int, block_ms: int = 500) -> list[StoredReading]:
        """Return the next readings of ``group``, oldest first; empty when none came in time.

        The first calls of an instance return what this consumer had received before and not
        acknowledged, so a restarted consumer misses nothing; the first calls after an outage
        return what Valkey had handed out in an answer that never arrived.

        Args:
            group: ``names.DETECTOR_GROUP`` or ``names.ARCHIVE_GROUP``.
            consumer: fixed name of the reader; it owns what it has not acknowledged.
            count: most readings returned.
            block_ms: longest wait for new ones; kept below the socket time-out.
        """
        reader = (group, consumer)
        with self._lock:
            after = self._recovering.setdefault(reader, FIRST)
        if after is not None:
            entries = self._read(group, consumer, count, after, None)
            with self._lock:
                self._recovering[reader] = self._note_read(reader, entries)
            if entries:
                return self._decoded(group, entries)
        block_ms = max(1, min(block_ms, int(self._settings.socket_timeout_s * 500)))
        try:
            entries = self._read(group, consumer, count, ">", block_ms)
        except StoreUnavailableError:
            with self._lock:
                self._recovering[reader] = self._last_read.get(reader, FIRST)
            raise
        with self._lock:
            self._note_read(reader, entries)
        return self._decoded(group, entries)

    def ack(self, group: str, ids: Sequence[str]) -> None:
        """Tell the stream that ``group`` is done with these readings."""
        if ids:
            with _translated():
                self._redis.xack(self._key, group, *ids)

    def history(self, count: int) -> list[StoredReading]:
        """Return the newest ``count`` readings still in the stream, oldest first."""
        with _translated():
            entries = self._redis.xrevrange(self._key, count=count)
        return self._decoded(None, entries[::-1])

    def length(self) -> int:
        """Number of readings in the stream."""
        with _translated():
            return int(self._redis.xlen(self._key))

    def total(self) -> int:
        """Number of readings ever stored in this stream, trimmed ones included."""
        with _translated():
            try:
                return int(self._redis.xinfo_stream(self._key)["entries-added"])
            except redis.ResponseError as error:
                if "no such key" not in str(error):
                    raise
        return 0

    def lag(self, group: str) -> int:
        """Number of readings that ``group`` has not acknowledged yet."""
        with _translated():
            for info in self._groups():
                if _text(info["name"]) == group:
                    return int(info.get("lag") or 0) + int(info["pending"])
        return 0

    def trim(self) -> int:
        """Remove the oldest readings that every group has acknowledged, beyond the kept number."""
        with _translated():
            excess = int(self._redis.xlen(self._key)) - self._settings.keep_readings
            if excess <= 0:
                return 0
            groups = self._groups()
            if {names.DETECTOR_GROUP, names.ARCHIVE_GROUP} - {_text(info["name"]) for info in groups}:
                return 0
            lowest = min((self._lowest_unread(info) for info in groups), key=_order)
            return int(self._redis.xtrim(self._key, minid=lowest, approximate=True, limit=excess))

    def memory(self) -> tuple[int, int]:
        """Return Valkey's memory in use and its bound (``maxmemory``), in bytes; a bound of 0: it has none."""
        with _translated():
            info = self._redis.info("memory")
        return int(info["used_memory"]), int(info.get("maxmemory", 0))

    def memory_ratio(self) -> float:
        """Share of ``maxmemory`` in use; 0 when the server has no bound."""
        used, bound = self.memory()
        return used / bound if bound else 0.0

    @property
    def memory_limit_ratio(self) -> float:
        """Share of ``maxmemory`` above which nothing is accepted."""
        return self._settings.memory_limit_ratio

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._reader.close()

    def _note_read(self, reader: tuple[str, str], entries: Sequence[Any]) -> str | None:
        """Remember how far a reader has come; None when it got nothing."""
        if not entries:
            return None
        self._last_read[reader] = _text(entries[-1][0])
        return self._last_read[reader]

    def _guard_memory(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_memory_check_s:
            return
        ratio = self.memory_ratio()
        if ratio >= self._settings.memory_limit_ratio:
            # No next check is set: every further append asks again until there is room.
            raise StoreFullError(STORE, f"Valkey uses {ratio:.0%} of its memory")
        self._next_memory_check_s = now_s + 1.0

    def _read(self, group: str, consumer: str, count: int, after: str, block_ms: int | None) -> list[Any]:
        with _translated():
            try:
                reply = self._reader.xreadgroup(group, consumer, {self._key: after}, count=count, block=block_ms)
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self.ensure_groups()
                return []
        streams = reply.values() if isinstance(reply, dict) else (pair[1] for pair in reply)
        return [entry for entries in streams for entry in entries]

    def _decoded(self, group: str | None, entries: Sequence[Any]) -> list[StoredReading]:
        readings = []
        foreign = []
        for entry_id, fields in entries:
            try:
                readings.append(StoredReading(_text(entry_id), decode_reading(fields[b"r"])))
            except (KeyError, TypeError, ValueError):
                foreign.append(_text(entry_id))
        if foreign:
            logger.error("telemetry stream holds %s entries that are no readings, first %s", len(foreign), foreign[0])
            if group is not None:
                self.ack(group, foreign)
        return readings

    def _groups(self) -> list[dict[str, Any]]:
        return list(self._redis.xinfo_groups(self._key))

    def _lowest_unread(self, info: dict[str, Any]) -> str:
        if int(info["pending"]):
            return _text(self._redis.xpending(self._key, _text(info["name"]))["min"])
        return _text(info["last-delivered-id"])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise StoreFullError(STORE, str(error)) from error
    except redis.RedisError as error:
        raise StoreUnavailableError(STORE, str(error) or type(error).__name__) from error


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
