"""The telemetry stream on a real Valkey: once each, by group, within its bounds."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from fakes_ingest import make_reading
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest_parts import StoppableService, eventually, own_valkey

from cluster import names
from cluster.clock import SystemClock
from ingest.archive import ArchiveSettings, ArchiveStore, read_telemetry
from ingest.archiver import Archiver
from ingest.errors import StoreFullError, StoreUnavailableError, StoreUnsafeError
from ingest.telemetry_redis import CHUNK_BITS, Appended, TelemetrySettings, TelemetryStream
from tests.tcp_proxy import TcpProxy

pytestmark = pytest.mark.redis


@pytest.fixture
def stream(redis_url: str) -> Iterator[TelemetryStream]:
    stream = TelemetryStream.open(redis_url, TelemetrySettings(keep_readings=100))
    yield stream
    stream.close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[StoppableService]:
    valkey = own_valkey(tmp_path)
    valkey.start()
    yield valkey
    valkey.stop()


def seqs(stream: TelemetryStream) -> list[int | None]:
    return [entry.reading.seq for entry in stream.history(100_000)]


def test_a_reading_is_stored_once_however_often_it_comes(stream: TelemetryStream) -> None:
    """In one batch, in the next one, and from another instance."""
    assert stream.append([make_reading(1), make_reading(2), make_reading(1)]) == Appended(2, 1)
    assert stream.append([make_reading(2), make_reading(3)]) == Appended(1, 1)

    assert seqs(stream) == [1, 2, 3]
    assert stream.total() == 3


def test_the_key_is_the_whole_key(stream: TelemetryStream) -> None:
    """Another device, or the same one after a reboot, may use the same number."""
    stream.append([make_reading(1), make_reading(1, device="pump-8"), make_reading(1, boot_id="b2")])

    assert len(seqs(stream)) == 3


def test_numbers_on_both_sides_of_a_chunk_are_told_apart(stream: TelemetryStream) -> None:
    """Bits of neighbouring bitmaps do not meet, up to the largest number."""
    numbers = [0, CHUNK_BITS - 1, CHUNK_BITS, 2 * CHUNK_BITS, 2**53 - 1]
    readings = [make_reading(number) for number in numbers]

    assert stream.append(readings) == Appended(5, 0)
    assert stream.append(readings) == Appended(0, 5)


def test_a_hundred_equal_readings_without_a_number_are_a_hundred(stream: TelemetryStream) -> None:
    """Content alone never makes two readings one."""
    for _ in range(4):
        stream.append([make_reading(None)] * 25)

    assert len(seqs(stream)) == 100


def content(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_without_numbers_a_reading_is_known_by_time_and_content(redis_url: str) -> None:
    """A redelivery is one row, from another instance too; what is older than the memory is new again."""
    stream = TelemetryStream.open(redis_url, TelemetrySettings(dedup_content=100))
    readings = [make_reading(None, content_key=content(number)) for number in range(60)]

    assert stream.append([*readings, make_reading(1), make_reading(None), readings[0]]) == Appended(62, 1)
    assert TelemetryStream.open(redis_url).append(readings) == Appended(0, 60)
    for start in range(60, 160, 20):
        stream.append([make_reading(None, content_key=content(number)) for number in range(start, start + 20)])
    assert stream.append(readings) == Appended(0, 60), "the newest 100 are remembered at least"
    for start in range(200, 420, 20):
        stream.append([make_reading(None, content_key=content(number)) for number in range(start, start + 20)])
    assert stream.append(readings[:1]) == Appended(1, 0), "and 200 at most"
    stream.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 30)), max_size=20), max_size=8))
def test_any_order_of_repeats_stores_each_key_once(redis_url: str, batches: list[list[tuple[str, int]]]) -> None:
    """Duplicates and reordering change nothing."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stream = TelemetryStream.open(redis_url)
    for batch in batches:
        stream.append([make_reading(seq, device=device) for device, seq in batch])

    stored = [(entry.reading.device, entry.reading.seq) for entry in stream.history(1000)]
    assert sorted(stored) == sorted({key for batch in batches for key in batch})
    stream.close()


def test_each_group_reads_everything_and_a_restart_misses_nothing(stream: TelemetryStream, redis_url: str) -> None:
    """What a consumer received and did not acknowledge comes first when it is back."""
    stream.ensure_groups()
    stream.append([make_reading(seq) for seq in range(10)])
    first = stream.read_group(names.DETECTOR_GROUP, "detector-0", 4)
    assert [entry.reading.seq for entry in first] == [0, 1, 2, 3]
    stream.ack(names.DETECTOR_GROUP, [first[0].id])

    again = TelemetryStream.open(redis_url)
    seen = [entry.reading.seq for _ in range(2) for entry in again.read_group(names.DETECTOR_GROUP, "detector-0", 4)]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert [e.reading.seq for e in again.read_group(names.ARCHIVE_GROUP, "archiver", 100)] == list(range(10))
    assert (again.lag(names.DETECTOR_GROUP), again.lag(names.ARCHIVE_GROUP)) == (9, 10)
    again.close()


def test_an_empty_stream_is_waited_for_and_wiped_ones_heal(stream: TelemetryStream, redis_url: str) -> None:
    """A group that is gone with its stream is made again, from the start."""
    started_s = time.monotonic()
    assert stream.read_group(names.ARCHIVE_GROUP, "archiver", 10, block_ms=100) == []
    assert stream.read_group(names.ARCHIVE_GROUP, "archiver", 10, block_ms=100) == []
    assert time.monotonic() - started_s < 2.0

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    stream.append([make_reading(7)])
    got = [entry for _ in range(3) for entry in stream.read_group(names.ARCHIVE_GROUP, "archiver", 10, block_ms=10)]
    assert [entry.reading.seq for entry in got] == [7]


def test_trimming_stops_at_what_a_group_has_not_acknowledged(redis_url: str) -> None:
    """The slowest group decides, then the number of readings that are kept."""
    stream = TelemetryStream.open(redis_url, TelemetrySettings(keep_readings=500))
    stream.ensure_groups()
    stream.append([make_reading(seq) for seq in range(3000)])
    archived = stream.read_group(names.ARCHIVE_GROUP, "archiver", 3000)
    stream.ack(names.ARCHIVE_GROUP, [entry.id for entry in archived])
    assert stream.trim() == 0, "the detector has read nothing yet"

    detected = stream.read_group(names.DETECTOR_GROUP, "detector-0", 3000)
    stream.ack(names.DETECTOR_GROUP, [entry.id for entry in detected[:1000]])
    stream.trim()
    assert seqs(stream)[-2000:] == list(range(1000, 3000))

    stream.ack(names.DETECTOR_GROUP, [entry.id for entry in detected[1000:]])
    stream.trim()
    assert 500 <= stream.length() < 1000
    assert stream.total() == 3000
    stream.close()


def test_a_stream_without_both_groups_is_not_trimmed(redis_url: str) -> None:
    """A consumer that has not started yet would miss what is gone."""
    stream = TelemetryStream.open(redis_url, TelemetrySettings(keep_readings=1))
    stream.append([make_reading(seq) for seq in range(500)])

    assert stream.trim() == 0
    stream.close()


def test_foreign_entries_do_not_stop_a_group(stream: TelemetryStream, redis_url: str) -> None:
    """Somebody else's entry is passed over and acknowledged."""
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("wf:telemetry:0", {"hello": "world"})
        client.xadd("wf:telemetry:0", {"r": "{}"})
    stream.ensure_groups()
    stream.append([make_reading(1)])

    entries = stream.read_group(names.ARCHIVE_GROUP, "archiver", 10) or stream.read_group(
        names.ARCHIVE_GROUP, "archiver", 10
    )
    assert [entry.reading.seq for entry in entries] == [1]
    assert stream.lag(names.ARCHIVE_GROUP) == 1


def test_a_full_valkey_refuses_and_recovers(valkey: StoppableService) -> None:
    """Below its own bound it still stores; above ours nothing is stored, and reading goes on."""
    stream = TelemetryStream.open(valkey.url, TelemetrySettings(memory_limit_ratio=0.5))
    stream.append([make_reading(1)])
    with redis.Redis.from_url(valkey.url) as client:
        for number in range(10):
            client.set(f"ballast{number}", b"x" * 4 * 1024 * 1024)
        time.sleep(1.1)
        with pytest.raises(StoreFullError, match="memory"):
            stream.append([make_reading(2)])
        assert seqs(stream) == [1]
        client.delete(*(f"ballast{number}" for number in range(10)))
    assert stream.append([make_reading(2)]) == Appended(1, 0)
    stream.close()


def test_valkeys_own_refusal_is_a_full_store(valkey: StoppableService) -> None:
    """Should the guard be too late, the server's answer says the same, and nothing is half stored."""
    stream = TelemetryStream.open(valkey.url)
    stream.append([make_reading(1)])
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            stream.append([make_reading(2)])
        client.config_set("maxmemory", 0)
    assert stream.append([make_reading(2)]) == Appended(1, 0)
    stream.close()


def test_an_evicting_valkey_is_not_used(valkey: StoppableService) -> None:
    """It may throw away what it confirmed; the text says which option to change."""
    stream = TelemetryStream.open(valkey.url)
    with redis.Redis.from_url(valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreUnsafeError, match="maxmemory-policy is allkeys-lru, set it to noeviction"):
        stream.check()
    stream.close()


def test_no_call_outlives_a_stopped_valkey_by_much(valkey: StoppableService) -> None:
    """Two time-outs at most, then an error that says the store is away; afterwards all is well."""
    stream = TelemetryStream.open(valkey.url)
    stream.append([make_reading(1)])
    valkey.pause()
    for call in (lambda: stream.append([make_reading(2)]), lambda: stream.history(1), lambda: stream.trim()):
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            call()
        assert time.monotonic() - started_s < 3.0
    valkey.resume()

    assert eventually(lambda: _appends(stream), 5.0)
    assert seqs(stream) == [1, 2], "the batch whose answer was lost is there once"
    stream.close()


def test_an_answer_that_got_lost_is_read_again(redis_url: str) -> None:
    """Valkey handed readings out and the reader's connection was gone: the next call returns them, and each once."""
    at = urlsplit(redis_url)
    assert at.port is not None
    with TcpProxy("127.0.0.1", at.port) as proxy, redis.Redis.from_url(redis_url) as client:
        settings = TelemetrySettings(socket_timeout_s=0.3)
        stream = TelemetryStream.open(redis_url.replace(f":{at.port}", f":{proxy.port}"), settings)
        stream.check()
        stream.append([make_reading(1)])
        held = stream.read_group(names.ARCHIVE_GROUP, "one", 10)  # in hand and not acknowledged, as an archiver has it
        stream.append([make_reading(2), make_reading(3)])
        proxy.freeze()
        with pytest.raises(StoreUnavailableError):
            stream.read_group(names.ARCHIVE_GROUP, "one", 10)
        proxy.mend()  # only now does the request arrive, and nobody waits for its answer
        key = names.TELEMETRY_STREAM.format(shard=0)
        assert eventually(lambda: client.xpending(key, names.ARCHIVE_GROUP)["pending"] == 3)
        stream.append([make_reading(4)])
        seen: list[int | None] = []

        def read() -> bool:
            with contextlib.suppress(StoreUnavailableError):  # connections that the freeze has spoilt
                seen.extend(entry.reading.seq for entry in stream.read_group(names.ARCHIVE_GROUP, "one", 10))
            return len(seen) >= 3

        assert eventually(read)
        stream.close()

    assert [entry.reading.seq for entry in held] == [1]
    assert seen == [2, 3, 4]


def test_what_was_confirmed_survives_a_killed_valkey(valkey: StoppableService) -> None:
    """And the memory of what was seen survives with it."""
    stream = TelemetryStream.open(valkey.url)
    stream.append([make_reading(seq) for seq in range(1000)])
    valkey.kill()
    with pytest.raises(StoreUnavailableError):
        stream.append([make_reading(0)])
    valkey.start()

    assert stream.append([make_reading(seq) for seq in range(1001)]) == Appended(1, 1000)
    assert seqs(stream) == list(range(1001))
    stream.close()


def _appends(stream: TelemetryStream) -> bool:
    try:
        stream.append([make_reading(2)])
    except StoreUnavailableError:
        return False
    return True


class Killed(BaseException):
    """Stands for a SIGKILL between two steps of the archiver."""


class DyingStream(TelemetryStream):
    """Dies instead of acknowledging."""

    def ack(self, group: str, ids: object) -> None:
        raise Killed


@pytest.mark.parametrize("flush_rows", [1, 7, 100])
def test_an_archiver_killed_before_its_acknowledgement_writes_nothing_twice(
    redis_url: str, tmp_path: Path, flush_rows: int
) -> None:
    """The readings come again; their file is there already, so only the acknowledgement is made up for."""
    url = f"file://{tmp_path}/storage"
    settings = ArchiveSettings(flush_rows=flush_rows, flush_s=1000.0)
    dying = DyingStream.open(redis_url, TelemetrySettings(keep_readings=1))
    dying.ensure_groups()
    dying.append([make_reading(seq) for seq in range(100)])
    with pytest.raises(Killed):
        Archiver(dying, ArchiveStore(url), settings, SystemClock()).step()
    written = read_telemetry(url).num_rows
    assert written > 0

    stream = TelemetryStream.open(redis_url)
    stream.append([make_reading(seq) for seq in range(100, 150)])
    archiver = Archiver(stream, ArchiveStore(url), ArchiveSettings(flush_rows=37, flush_s=1000.0), SystemClock())
    assert eventually(lambda: _stepped(archiver, stream), 10.0)

    assert read_telemetry(url).column("seq").to_pylist() == list(range(150))
    assert archiver.archived_total == 150 - written
    stream.close()
    dying.close()


def test_an_archive_that_cannot_be_written_acknowledges_nothing(redis_url: str, tmp_path: Path) -> None:
    """A full or missing disk keeps the readings in the stream, and the next turn goes on from there."""
    (tmp_path / "storage").write_text("a file where the folder should be", encoding="utf-8")
    url = f"file://{tmp_path}/storage"
    stream = TelemetryStream.open(redis_url)
    stream.ensure_groups()
    stream.append([make_reading(seq) for seq in range(10)])
    archiver = Archiver(stream, ArchiveStore(url), ArchiveSettings(flush_rows=10), SystemClock())
    with pytest.raises(StoreUnavailableError, match="archive"):
        archiver.step()
    assert stream.lag(names.ARCHIVE_GROUP) == 10

    (tmp_path / "storage").unlink()
    archiver.flush()
    assert stream.lag(names.ARCHIVE_GROUP) == 0
    assert read_telemetry(url).num_rows == 10
    stream.close()


def _stepped(archiver: Archiver, stream: TelemetryStream) -> bool:
    archiver.step()
    archiver.flush()
    return stream.lag(names.ARCHIVE_GROUP) == 0
