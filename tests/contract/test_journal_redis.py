"""The journal in Valkey keeps the contract, and says when Valkey is away or empty."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis
import uvloop
from contract.journal_contract import (
    JournalContract,
    OpenJournal,
    entry,
    everything_in,
    log_mark,
    mark,
    record,
    state_of,
    store,
)

from cluster.ports import free_port
from realtime.behind_marker import BehindMarker
from realtime.errors import JournalLostError, JournalUnavailableError
from realtime.hub_service import HubService
from realtime.journal import JournalRecord
from realtime.journal_cipher import ChannelKey, JournalCipher
from realtime.journal_redis import KEY_LOG, RedisJournal
from realtime.pipe_redis import RedisPipe
from realtime.publication import Draft
from realtime.settings import HubSettings

pytestmark = pytest.mark.redis


@pytest.fixture
async def open_journal(redis_url: str) -> AsyncIterator[OpenJournal]:
    opened: list[RedisJournal] = []

    def open_another() -> RedisJournal:
        opened.append(RedisJournal(redis_url, "here", timeout_s=5.0))
        return opened[-1]

    yield open_another
    for journal in opened:
        await journal.close()


class TestRedisJournal(JournalContract):
    """Over a real Valkey."""

    async def test_a_journal_that_forgot_the_hub_says_so(self, open_journal: OpenJournal, redis_url: str) -> None:
        """A Valkey that lost its data must not take a record on top of nothing."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([record(1)])
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()

        with pytest.raises(JournalLostError):
            await store(journal, record(2))
        await journal.rewrite([record(1, 2)])
        assert [found.seq for found in (await state_of(open_journal())).entries] == [1, 2]

    async def test_a_large_hub_is_read_back(self, open_journal: OpenJournal) -> None:
        """More records and marks than one call can carry."""
        journal = open_journal()
        await journal.open()
        marks = [
            JournalRecord(log_mark(0), marks={f"user:{number}": mark(0) for number in range(start, start + 1000)})
            for start in range(0, 3000, 1000)
        ]
        await journal.rewrite([*marks, *(record(*range(seq, seq + 5)) for seq in range(1, 3001, 5))])

        state = await state_of(open_journal())

        assert (len(state.marks), [entry.seq for entry in state.entries]) == (3001, list(range(1, 3001)))


KEY, NEXT_KEY = ChannelKey("one", bytes(32)), ChannelKey("two", bytes(range(32)))


class TestEncryptedRedisJournal(JournalContract):
    """The same with keys."""

    @pytest.fixture
    async def open_journal(self, redis_url: str) -> AsyncIterator[OpenJournal]:
        opened: list[RedisJournal] = []

        def open_another() -> RedisJournal:
            opened.append(RedisJournal(redis_url, "here", 5.0, JournalCipher([KEY])))
            return opened[-1]

        yield open_another
        for journal in opened:
            await journal.close()


async def test_no_payload_lies_open_in_valkey(redis_url: str) -> None:
    """Whatever key one looks into, after a rewrite and after appends."""
    for keys, is_found in (((), True), ((KEY,), False)):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        journal = RedisJournal(redis_url, "here", 5.0, JournalCipher(keys))
        await journal.open()
        await journal.rewrite([record(1)])
        await store(journal, record(2, 3))
        await journal.close()

        assert (entry(1).publication.data in everything_in(redis_url)) is is_found


async def test_keys_rotate_and_a_lost_one_begins_anew(redis_url: str, tmp_path: Path) -> None:
    """A hub with the new key first rewrites all under it; one without any of the keys does not trust what it finds."""

    async def run(*keys: ChannelKey) -> tuple[str, list[bytes]]:
        journal = RedisJournal(redis_url, "here", 5.0, JournalCipher(keys))
        service = HubService(HubSettings(), journal, BehindMarker(tmp_path), "here")
        await service.start()
        await service.publish([Draft("noc:all", b'{"with":"%s"}' % keys[0].key_id.encode())])
        held = service.history("noc:all", None, 10)
        await service.close()
        return held.position.epoch, [publication.data for publication in held.publications]

    first = await run(KEY)
    rotated = await run(NEXT_KEY, KEY)
    without_the_old = await run(NEXT_KEY)
    lost = await run(KEY)

    assert first[0] == rotated[0] == without_the_old[0] != lost[0]
    assert without_the_old[1] == [b'{"with":"one"}', b'{"with":"two"}', b'{"with":"two"}']
    assert lost[1] == [b'{"with":"one"}']


async def test_a_tampered_payload_begins_a_new_epoch(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the key's id, never what was found."""
    epochs = []
    for _ in range(2):
        service = HubService(
            HubSettings(), RedisJournal(redis_url, "here", 5.0, JournalCipher([KEY])), BehindMarker(tmp_path), "here"
        )
        await service.start()
        await service.publish([Draft("noc:all", b'{"hush":1}')])
        epochs.append(service.positions(["noc:all"])["noc:all"].epoch)
        await service.close()
        with redis.Redis.from_url(redis_url) as client:
            (place, fields), *_ = client.xrange(KEY_LOG)
            client.delete(KEY_LOG)
            client.xadd(KEY_LOG, {header: data[:-1] + bytes([data[-1] ^ 1]) for header, data in fields.items()}, place)

    assert epochs[0] != epochs[1]
    assert "under key 'one' cannot be read" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_command_is_on_the_socket_when_its_call_returns(redis_url: str, run: Callable[..., None]) -> None:
    """Whichever loop the hub runs on: what was shown in a turn is handed over when the turn ends."""

    async def call_and_look() -> None:
        pipe = RedisPipe(redis_url, 5.0)
        await (await pipe.call("PING"))
        with redis.Redis.from_url(redis_url) as other:
            stored = await pipe.call("SET", "handed-over", b"x" * 50_000)
            # No await from here on: the loop cannot write anything that it has put off.
            deadline_s = time.monotonic() + 5
            while other.get("handed-over") is None and time.monotonic() < deadline_s:
                time.sleep(0.01)  # noqa: ASYNC251
            assert other.get("handed-over") is not None
        await stored
        await pipe.reset()

    run(call_and_look())


async def test_a_dead_valkey_is_named_in_time() -> None:
    """The hub learns it within its time-out, as its own error."""
    journal = RedisJournal(f"redis://127.0.0.1:{free_port()}/0", "here", timeout_s=0.5)

    with pytest.raises(JournalUnavailableError):
        await journal.open()
    with pytest.raises(JournalUnavailableError):
        await store(journal, record(1))
    await journal.close()
