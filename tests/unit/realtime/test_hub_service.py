"""The hub in its event loop: who waits for what, and what a dead journal changes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes_realtime import FaultyJournal

from realtime import notices
from realtime.behind_marker import BehindMarker
from realtime.channels import GATEWAY_ALL
from realtime.hub_service import RECORDS_UNDER_WAY, HubService
from realtime.interest import Asker, Wish
from realtime.journal_memory import MemoryStore
from realtime.presence import Changes, GatewayFigures, Member, Report
from realtime.publication import Draft
from realtime.replies import JournalHealth
from realtime.settings import HubSettings

SETTINGS = HubSettings(journal_retry_s=0.01, journal_timeout_s=5.0)


def draft(data: str, key: str | None = None) -> Draft:
    return Draft("noc:all", data.encode(), key=key)


@asynccontextmanager
async def running(journal: FaultyJournal | None, folder: Path, owner: str = "here") -> AsyncIterator[HubService]:
    service = HubService(SETTINGS, journal, BehindMarker(folder), owner)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.001)


async def test_a_parked_poll_wakes_on_publish(tmp_path: Path) -> None:
    """News comes at once, not at the end of the poll."""
    async with running(None, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        poll = asyncio.create_task(service.poll(cursor, 30))
        await asyncio.sleep(0)
        await service.publish([draft("a")])
        reply = await asyncio.wait_for(poll, 1)

    assert [publication.data for publication in reply.publications] == [b"a"]


async def test_a_gateways_poll_waits_for_its_own_channels(tmp_path: Path) -> None:
    """Once it has said which those are; what is for others neither comes nor wakes it."""
    async with running(None, tmp_path) as service:
        first = await service.poll(None, 1, Wish("g", 1))
        service.positions(["user:1"], Asker("g", 2))
        asked = await service.poll(first.cursor, 30, Wish("g", 3))  # ends at once: it is to say all
        assert asked.wants_all == first.wants_all
        wish = Wish("g", 4, follows=("user:1",), lease=asked.wants_all)
        poll = asyncio.create_task(service.poll(asked.cursor, 30, wish))
        await asyncio.sleep(0)
        await service.publish([draft("for others")])
        await asyncio.sleep(0.01)
        assert not poll.done()
        await service.publish([Draft("user:1", b"a"), draft("for others"), Draft("user:1", b"b")])
        reply = await asyncio.wait_for(poll, 1)
        service.history("noc:all", None, 10, Asker("g", 5))
        await service.publish([draft("now its own")])
        then = await service.poll(reply.cursor, 30, Wish("g", 6))

    assert [publication.data for publication in reply.publications] == [b"a", b"b"]
    assert [publication.data for publication in then.publications] == [b"now its own"]
    assert (reply.wants_all, reply.gap, then.gap) == ("", False, False)


async def test_a_poll_without_news_ends(tmp_path: Path) -> None:
    """Empty, with the cursor to go on with."""
    async with running(None, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        reply = await service.poll(cursor, 0.01)

    assert (reply.publications, reply.cursor, reply.gap) == ((), cursor, False)


async def test_readers_hear_before_the_journal_answers_and_publishers_after(tmp_path: Path) -> None:
    """Delivery does not wait for the disk, confirmation does."""
    journal = FaultyJournal()
    async with running(journal, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        journal.answers.clear()
        publishing = asyncio.create_task(service.publish([draft("a")]))
        reply = await service.poll(cursor, 5)
        handed_over = [entry.publication.data for record in journal.appended for entry in record.entries]
        was_confirmed = publishing.done()
        journal.answers.set()
        await publishing

    assert ([p.data for p in reply.publications], handed_over, was_confirmed) == ([b"a"], [b"a"], False)


@pytest.mark.parametrize("count", [1, 3])
async def test_readers_are_answered_before_the_journal_is_written_to(tmp_path: Path, count: int) -> None:
    """And it is written to in the same turn of the loop, so that a kill can come between the two only within that."""
    journal = FaultyJournal()
    seen: list[tuple[list[bytes], int]] = []
    async with running(journal, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        await service.publish([draft("first")])  # opens the way
        cursor = (await service.poll(cursor, 5)).cursor
        await eventually(lambda: service.stats().journal_lag == 0)
        before = len(journal.appended)
        service.poll_then(
            cursor, 30, lambda reply: seen.append(([p.data for p in reply.publications], len(journal.appended)))
        )
        service.publish_then([draft(str(number)) for number in range(count)], "", lambda positions: None)
        appended = len(journal.appended)

    assert seen == [([b"%d" % number for number in range(count)], before)]
    assert appended == before + 1


async def test_readers_do_not_wait_long_for_a_slow_journal(tmp_path: Path) -> None:
    """A disk that hangs delays confirmations only."""
    journal = FaultyJournal()
    async with running(journal, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        journal.answers.clear()
        publishing = []
        received = 0
        for _ in range(3 * RECORDS_UNDER_WAY):
            publishing.append(asyncio.create_task(service.publish([draft("a")])))
            reply = await service.poll(cursor, 5)
            cursor, received = reply.cursor, received + len(reply.publications)
        was_confirmed = any(task.done() for task in publishing)
        journal.answers.set()
        await asyncio.gather(*publishing)

    assert (received, was_confirmed) == (3 * RECORDS_UNDER_WAY, False)


async def test_broadcasting_goes_on_while_the_journal_is_away(tmp_path: Path) -> None:
    """Health says so, and when it is back it gets everything."""
    journal = FaultyJournal()
    marker = BehindMarker(tmp_path)
    async with running(journal, tmp_path) as service:
        cursor = (await service.poll(None, 1)).cursor
        journal.is_away = True
        await service.publish([draft("a")])
        reply = await service.poll(cursor, 5)
        away = (service.stats().journal, service.stats().journal_ok, marker.is_set())
        journal.is_away = False
        await eventually(lambda: service.stats().journal is JournalHealth.OK and not marker.is_set())
        await service.publish([draft("b")])
        lag = service.stats().journal_lag

    assert [publication.data for publication in reply.publications] == [b"a"]
    assert (away, lag) == ((JournalHealth.AWAY, False, True), 0)
    assert [journal._store.entries[seq].publication.data for seq in sorted(journal._store.entries)] == [b"a", b"b"]


async def test_a_successor_keeps_the_epoch_and_the_history(tmp_path: Path) -> None:
    """What was confirmed is recovered by readers who come back with their position."""
    store = MemoryStore()
    async with running(FaultyJournal(store), tmp_path) as service:
        (first,) = await service.publish([draft("a")])
        await service.publish([draft("b", key="k")])
    async with running(FaultyJournal(store), tmp_path) as service:
        reply = service.history("noc:all", first, 10)
        (again,) = await service.publish([draft("b", key="k")])
        (third,) = await service.publish([draft("c")])

    assert ([p.data for p in reply.publications], reply.recovered) == ([b"b"], True)
    assert (again.offset, third.epoch, third.offset > again.offset) == (2, first.epoch, True)


@pytest.mark.parametrize("reason", ["went-on-without-journal", "other-machine", "no-journal-at-start"])
async def test_a_successor_that_cannot_prove_the_past_begins_a_new_epoch(reason: str, tmp_path: Path) -> None:
    """No reader is told that it missed nothing when nobody can know."""
    store = MemoryStore()
    async with running(FaultyJournal(store), tmp_path) as service:
        (first,) = await service.publish([draft("a")])
    journal = FaultyJournal(store, "there" if reason == "other-machine" else "here")
    if reason == "went-on-without-journal":
        BehindMarker(tmp_path).set()
    journal.is_away = reason == "no-journal-at-start"
    async with running(journal, tmp_path, journal._owner) as service:
        reply = service.history("noc:all", first, 10)

    assert (reply.recovered, reply.position.epoch == first.epoch) == (False, False)


async def test_an_older_hub_ends_when_a_younger_one_takes_the_journal(tmp_path: Path) -> None:
    """Two hubs must never hand out offsets of one epoch."""
    store = MemoryStore()
    async with running(FaultyJournal(store), tmp_path) as older, running(FaultyJournal(store), tmp_path):
        publishing = asyncio.create_task(older.publish([draft("a")]))
        await asyncio.wait_for(older.is_fenced.wait(), 5)
        publishing.cancel()


async def test_a_successor_does_not_bring_a_removed_history_back(tmp_path: Path) -> None:
    """The journal may still hold the publications; the mark says that they are gone."""
    store = MemoryStore()
    async with running(FaultyJournal(store), tmp_path) as service:
        (first, second) = await service.publish([draft("a"), draft("b")])
        service.remove_history("noc:all")
        await eventually(lambda: store.marks["noc:all"].floor == second.offset)
    async with running(FaultyJournal(store), tmp_path) as service:
        reply = service.history("noc:all", None, 10)
        is_recovered = service.history("noc:all", first, 10).recovered

    assert (reply.publications, reply.position.epoch, is_recovered) == ((), first.epoch, False)


async def test_gateways_hear_who_comes_and_goes(tmp_path: Path) -> None:
    """Also when it is the hub that finds a gateway silent."""
    settings = HubSettings(presence_ttl_s=0.2)
    service = HubService(settings, None, BehindMarker(tmp_path), "here")
    await service.start()
    figures = GatewayFigures("g1", 1, 1, 1, 0)
    member = Member("run:a", "c1", "ann", announced=True)

    assert service.report(Report(figures, 1, (member,))) is False
    assert service.report(Report(figures, 2, is_first=True, is_news=False)) is True
    assert service.report(Report(figures, 3, (member,))) is True
    stats = (service.stats().presence_members, service.present_channels("", 9), service.gateways())
    await eventually(lambda: service.stats().presence_members == 0)
    told = [notices.read(item.data) for item in service.history(GATEWAY_ALL, None, 10).publications]
    await service.close()

    assert stats == (1, {"run:a": 1}, (figures,))
    assert told == [Changes(joined=(member,)), Changes(left=(member,))]
