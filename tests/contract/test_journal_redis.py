"""The journal in Valkey keeps the contract, and says when Valkey is away or empty."""

from collections.abc import AsyncIterator

import pytest
import redis
from contract.journal_contract import JournalContract, OpenJournal, log_mark, mark, record, state_of, store

from cluster.ports import free_port
from realtime.errors import JournalLostError, JournalUnavailableError
from realtime.journal import JournalRecord
from realtime.journal_redis import RedisJournal

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


async def test_a_dead_valkey_is_named_in_time() -> None:
    """The hub learns it within its time-out, as its own error."""
    journal = RedisJournal(f"redis://127.0.0.1:{free_port()}/0", "here", timeout_s=0.5)

    with pytest.raises(JournalUnavailableError):
        await journal.open()
    with pytest.raises(JournalUnavailableError):
        await store(journal, record(1))
    await journal.close()
