"""What a client may expect of the hub, whichever way its calls take.

Channels and keys carry the way's name: both ways may be tested on one hub.
"""

import asyncio
import pickle

import pytest

from realtime.errors import InvalidChannelError
from realtime.hub_client import HubClient
from realtime.publication import Draft, Priority, StreamPosition


class HubContract:
    """Run by each way; its fixture ``hub`` is a client of a hub that runs, ``way`` its name."""

    async def test_what_is_published_is_polled(self, hub: HubClient, way: str) -> None:
        """Every field, in the order of publishing."""
        cursor = (await hub.poll(None)).cursor
        drafts = [
            Draft("noc:all", b"1", Priority.CRITICAL, f"key-{way}", None),
            Draft(f"user:{way}1", b"2", coalesce_key="c"),
        ]
        positions = await hub.publish(drafts)
        reply = await hub.poll(cursor, 5)

        assert [(p.channel, p.data, p.priority) for p in reply.publications] == [
            ("noc:all", b"1", Priority.CRITICAL),
            (f"user:{way}1", b"2", Priority.NORMAL),
        ]
        assert [publication.position for publication in reply.publications] == positions
        assert reply.gap is False

    async def test_a_poll_waits_while_others_publish(self, hub: HubClient, way: str) -> None:
        """One client, several requests under way."""
        cursor = (await hub.poll(None)).cursor
        poll = asyncio.create_task(hub.poll(cursor, 20))
        await asyncio.sleep(0.05)
        assert not poll.done()
        await asyncio.gather(*(hub.publish([Draft(f"user:{way}2", b"%d" % number)]) for number in range(20)))
        seen = list((await asyncio.wait_for(poll, 10)).publications)
        while len(seen) < 20:
            seen += (await hub.poll(cursor, 0)).publications[len(seen) :]

        assert sorted(int(publication.data) for publication in seen) == list(range(20))

    async def test_a_poll_without_news_ends(self, hub: HubClient, way: str) -> None:
        """Empty, with the cursor to go on with."""
        cursor = (await hub.poll(None)).cursor
        reply = await hub.poll(cursor, 0.05)

        assert (reply.cursor, reply.publications, reply.gap) == (cursor, (), False)

    async def test_a_batch_is_published_once_under_its_name(self, hub: HubClient, way: str) -> None:
        """However often it is sent, from whichever thread."""
        drafts = [Draft(f"user:{way}3", b"a"), Draft(f"user:{way}3", b"b")]
        first = await asyncio.to_thread(hub.publish_sync, drafts, batch=f"batch-{way}")
        again = await asyncio.to_thread(hub.publish_sync, drafts, batch=f"batch-{way}")

        assert (again, len((await hub.history(f"user:{way}3", None)).publications)) == (first, 2)

    async def test_history_and_positions_agree(self, hub: HubClient, way: str) -> None:
        """What was missed since a position, or that it is not known."""
        positions = await hub.publish([Draft(f"user:{way}4", b"%d" % number) for number in range(3)])
        since = await hub.history(f"user:{way}4", positions[0])
        lost = await hub.history(f"user:{way}4", StreamPosition("another", 1))

        assert ([p.data for p in since.publications], since.recovered) == ([b"1", b"2"], True)
        assert (lost.publications, lost.recovered) == ((), False)
        assert await hub.positions([f"user:{way}4", f"user:{way}5"]) == {
            f"user:{way}4": positions[2],
            f"user:{way}5": (await hub.history(f"user:{way}5", None)).position,
        }

    async def test_a_channel_that_cannot_be_is_refused(self, hub: HubClient, way: str) -> None:
        """With the error of the hub itself."""
        with pytest.raises(InvalidChannelError):
            await hub.history("nonsense", None)

    async def test_large_batches_arrive_whole(self, hub: HubClient, way: str) -> None:
        """Larger than a frame of the socket may be, in one call."""
        drafts = [Draft(f"user:{way}6", bytes([65 + number]) * 60_000) for number in range(20)]
        positions = await hub.publish(drafts, timeout_s=20)

        assert [position.offset for position in positions] == list(range(1, 21))

    async def test_many_threads_publish_at_once(self, hub: HubClient, way: str) -> None:
        """Each gets the positions of its own drafts."""

        def publish(name: str) -> list[StreamPosition]:
            return [hub.publish_sync([Draft(f"user:{way}7-{name}", b"%d" % number)])[0] for number in range(20)]

        found = await asyncio.gather(*(asyncio.to_thread(publish, str(number)) for number in range(6)))

        assert [[position.offset for position in positions] for positions in found] == [list(range(1, 21))] * 6

    async def test_a_client_crosses_processes(self, hub: HubClient, way: str) -> None:
        """Its copy makes connections of its own."""
        copy = pickle.loads(pickle.dumps(hub))

        assert await copy.positions([f"user:{way}8"]) == await hub.positions([f"user:{way}8"])

    async def test_the_way_is_the_one_under_test(self, hub: HubClient, way: str) -> None:
        """And can be told from the outside."""
        await hub.positions([f"user:{way}9"])
        await asyncio.to_thread(hub.publish_sync, [Draft(f"user:{way}9", b"1")])

        assert hub.calls == {way: 2}
