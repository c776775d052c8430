"""What every journal of the hub promises, whatever it stores its records in."""

from collections.abc import Callable

import pytest
import redis

from realtime.errors import FencedError, JournalLostError
from realtime.journal import Journal, JournalRecord, JournalState
from realtime.publication import Priority, Publication
from realtime.recovery import LostRange, Mark
from realtime.stream import Entry

OpenJournal = Callable[[], Journal]
"""Another hub's journal over the same store."""


def entry(
    seq: int, channel: str = "noc:all", data: bytes = b'{"a":"\xc3\xa4"}', coalesce_key: str | None = None
) -> Entry:
    publication = Publication(
        channel, seq, data, Priority.CRITICAL, 1_700_000_000_123, "e", b'{"user":"ann"}', coalesce_key
    )
    return Entry(seq, publication, f"key-{seq}", f"batch-{seq}", seq)


def log_mark(top: int) -> Mark:
    return Mark("log", 0, top, 1 << 40, (LostRange(2, 5),))


def mark(top: int) -> Mark:
    return Mark("e", 1, top, 1_000_000, (LostRange(1, 2), LostRange(3, 4)))


def record(*seqs: int, keep_after: int = 0, forgotten: tuple[str, ...] = ()) -> JournalRecord:
    return JournalRecord(
        log_mark(max(seqs, default=0)),
        entries=tuple(entry(seq) for seq in seqs),
        marks={"noc:all": mark(max(seqs))} if seqs else {},
        forgotten=forgotten,
        keep_after=keep_after,
    )


async def state_of(journal: Journal) -> JournalState:
    state = await journal.open()
    assert state is not None
    return state


async def store(journal: Journal, record: JournalRecord) -> None:
    await (await journal.append(record))


def everything_in(redis_url: str) -> bytes:
    """Return all keys and values of a Valkey."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("rdbcompression", "no")
        return b"\n".join(part for key in client.scan_iter() for part in (key, client.dump(key)))


class JournalContract:
    """Run by each implementation; its fixture ``open_journal`` makes journals over one empty store."""

    async def test_an_empty_journal_remembers_nothing(self, open_journal: OpenJournal) -> None:
        """So the hub begins a new epoch."""
        assert await open_journal().open() is None

    async def test_what_was_written_is_read_back(self, open_journal: OpenJournal) -> None:
        """Every field, by another hub."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([record(1, 2)])
        await store(journal, record(3))

        state = await state_of(open_journal())

        assert state == JournalState(
            owner="here", log_mark=log_mark(3), entries=(entry(1), entry(2), entry(3)), marks={"noc:all": mark(3)}
        )

    async def test_several_records_may_be_under_way(self, open_journal: OpenJournal) -> None:
        """They are applied in the order of the calls."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([record(1)])
        for stored in [await journal.append(record(seq)) for seq in range(2, 30)]:
            await stored

        assert (await state_of(open_journal())).entries == tuple(entry(seq) for seq in range(1, 30))

    async def test_records_may_be_without_publications(self, open_journal: OpenJournal) -> None:
        """A channel that was only read has a mark."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([JournalRecord(log_mark(0))])
        await store(journal, JournalRecord(log_mark(0), marks={"user:7": mark(0)}))

        state = await state_of(open_journal())

        assert (state.entries, state.marks) == ((), {"user:7": mark(0)})

    async def test_old_publications_are_removed(self, open_journal: OpenJournal) -> None:
        """The journal holds what the log holds; at most a record's worth more."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([record(1)])
        await store(journal, record(2))
        await store(journal, record(3, keep_after=2))

        assert [found.seq for found in (await state_of(open_journal())).entries] == [3]

    async def test_forgotten_channels_are_removed(self, open_journal: OpenJournal) -> None:
        """Before the marks of the same record are stored."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([JournalRecord(log_mark(0), marks={"user:1": mark(0), "noc:all": mark(0)})])
        await store(journal, record(1, forgotten=("user:1", "noc:all")))

        assert (await state_of(open_journal())).marks == {"noc:all": mark(1)}

    async def test_a_rewrite_replaces_everything(self, open_journal: OpenJournal) -> None:
        """Nothing of the former content is left."""
        journal = open_journal()
        await journal.open()
        await journal.rewrite([record(1, 2)])
        await journal.rewrite([JournalRecord(log_mark(9), marks={"user:1": mark(9)})])

        state = await state_of(open_journal())

        assert (state.entries, state.marks, state.log_mark) == ((), {"user:1": mark(9)}, log_mark(9))

    async def test_a_younger_hub_fences_the_older_off(self, open_journal: OpenJournal) -> None:
        """Two hubs must never write offsets of one epoch."""
        older, younger = open_journal(), open_journal()
        await older.open()
        await older.rewrite([record(1)])
        await younger.open()

        with pytest.raises(FencedError):
            await store(older, record(2))
        with pytest.raises(FencedError):
            await older.rewrite([record(2)])
        assert [found.seq for found in (await state_of(open_journal())).entries] == [1]

    async def test_an_append_needs_a_journal_that_knows_the_hub(self, open_journal: OpenJournal) -> None:
        """A record on top of nothing would look like the whole history."""
        journal = open_journal()
        await journal.open()

        with pytest.raises((JournalLostError, FencedError)):
            await store(journal, record(1))

    async def test_a_rewrite_needs_no_open(self, open_journal: OpenJournal) -> None:
        """A hub that started without its journal takes it up when it comes."""
        await open_journal().rewrite([record(1)])

        assert [found.seq for found in (await state_of(open_journal())).entries] == [1]
