"""What a caller sees of a hub that does not answer at once."""

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from realtime.errors import HubUnavailableError
from realtime.hub_client import HubClient
from realtime.publication import Draft, Priority, Publication, StreamPosition
from realtime.replies import Cursor, HistoryReply, PollReply
from realtime.wire import read_drafts, read_history, read_poll, write_drafts, write_history, write_poll


class Handle:
    """Stands for the actor's handle: each method has ``remote``, whose result is awaited."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self.calls: list[tuple[Any, ...]] = []
        self.publish = self.history = self.positions = self

    async def remote(self, *args: Any) -> Any:
        self.calls.append(args)
        return self._answer()


def failing_first(times: int, answer: Any) -> Callable[[], Any]:
    left = [times]

    def answer_or_fail() -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise ActorUnavailableError("it restarts", b"0" * 16)
        return answer

    return answer_or_fail


async def test_a_publish_is_repeated_under_one_name() -> None:
    """So that the hub knows which drafts it already has."""
    handle = Handle(failing_first(2, [("e", 1)]))
    client = HubClient(handle)

    assert await client.publish([Draft("noc:all", b"1")]) == [StreamPosition("e", 1)]
    assert len(handle.calls) == 3
    assert len({batch for batch, _ in handle.calls}) == 1


async def test_two_publishes_have_two_names() -> None:
    """Equal messages on purpose are both published."""
    handle = Handle(lambda: [("e", 1)])
    client = HubClient(handle)
    await client.publish([Draft("noc:all", b"1")])
    await client.publish([Draft("noc:all", b"1")])

    assert len({batch for batch, _ in handle.calls}) == 2


async def test_a_hub_that_stays_away_is_an_error_of_ours() -> None:
    """Within the time of the caller."""
    client = HubClient(Handle(failing_first(10_000, None)))

    with pytest.raises(HubUnavailableError):
        await client.publish([Draft("noc:all", b"1")], timeout_s=0.05)


async def test_nothing_to_publish_asks_nobody() -> None:
    """An empty batch is confirmed."""
    handle = Handle(lambda: None)

    assert (await HubClient(handle).publish([]), handle.calls) == ([], [])


def test_what_crosses_the_wire_arrives() -> None:
    """Every field of drafts and replies."""
    drafts = [Draft("noc:all", b"1", Priority.CRITICAL, "k", "c"), Draft("user:1", b"2")]
    publication = Publication("noc:all", 7, b"1", Priority.HIGH, 1_700_000_000_000, "e")
    poll = PollReply(Cursor("h", 3), (publication,), gap=True, coalesced=2)
    history = HistoryReply((publication,), StreamPosition("e", 7), recovered=True)

    assert read_drafts(write_drafts(drafts)) == drafts
    assert read_poll(write_poll(poll)) == poll
    assert read_history(write_history(history)) == history
