"""What leaves first, what waits for credit, and who has fallen behind: ring, outbox and credit together."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from realtime.publication import Priority, Publication, StreamPosition
from serve_apps.codes import CloseCode
from serve_apps.credit import Budget, CreditWindow
from serve_apps.errors import OutboxError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.outbox import Outbox
from serve_apps.ring import RANKS, Append, ChannelRing

LIMITS = GatewaySettings(credit_bytes=4000, credit_ping_bytes=1000, frame_bytes=500, frame_lines=4)


def publication(channel: str, offset: int, size: int = 1, epoch: str = "e") -> Publication:
    return Publication(channel, offset, json.dumps("x" * size).encode(), Priority.NORMAL, 1000 + offset, epoch)


def ring(channel: str, offsets: Iterable[int] = (), *, size: int = 1, start: int = 0) -> ChannelRing[Any]:
    made: ChannelRing[Any] = ChannelRing(channel, channel.partition(":")[0], LIMITS)
    made.start(StreamPosition("e", start))
    for offset in offsets:
        assert made.append(publication(channel, offset, size), 0.0) is Append.ADDED
    return made


def outbox(*rings: ChannelRing[Any], limits: GatewaySettings = LIMITS, unidirectional: bool = False) -> Outbox:
    made = Outbox(limits, CreditWindow(limits), unidirectional=unidirectional)
    for followed in rings:
        made.follow(followed, 0)
    return made


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.split("\n")]


def offsets(text: str) -> list[tuple[str, int]]:
    return [(line["push"]["channel"], line["push"]["pub"]["offset"]) for line in lines(text) if line]


def drained(box: Outbox) -> list[str]:
    texts = []
    while (frame := box.next_frame(0.0)) is not None:
        texts.append(frame.text)
    return texts


def test_frames_join_lines_up_to_their_bounds() -> None:
    """Four lines or 500 bytes, whichever comes first, in offset order."""
    texts = drained(outbox(ring("run:a", range(1, 11))))

    assert [offset for text in texts for _, offset in offsets(text)] == list(range(1, 11))
    assert max(len(lines(text)) for text in texts) == 4
    wide = drained(outbox(ring("run:a", range(1, 5), size=200)))
    assert [len(offsets(text)) for text in wide if text != "{}"] == [1, 1, 1, 1]


def test_connections_at_the_same_place_share_one_text() -> None:
    """A publication is joined once, however many receive it."""
    followed = ring("run:a", range(1, 4))

    first, second = (outbox(followed).next_frame(0.0) for _ in range(2))

    assert first is not None
    assert second is not None
    assert first.text is second.text


def test_urgent_channels_go_first_and_equals_take_turns() -> None:
    """Between channels by class, within a channel by offset."""
    slow, other, alerts = ring("run:a", range(1, 9)), ring("run:b", range(1, 9)), ring("noc:all", range(1, 3))
    box = outbox()
    for followed, priority in ((slow, Priority.PROGRESS), (other, Priority.PROGRESS), (alerts, Priority.CRITICAL)):
        box.follow(followed, 0)
        box._pending[followed.channel] = RANKS[priority]

    channels = [channel for text in drained(box) for channel, _ in offsets(text)]

    assert channels == ["noc:all"] * 2 + ["run:a"] * 4 + ["run:b"] * 4 + ["run:a"] * 4 + ["run:b"] * 4


def test_replies_stand_before_publications() -> None:
    """A subscribe reply is written before the channel's first publication."""
    box = outbox(ring("run:a", [1]))
    box.add(b'{"id":1,"subscribe":{}}')

    frame = box.next_frame(0.0)

    assert frame is not None
    assert list(lines(frame.text)[0]) == ["id", "subscribe"]
    assert list(lines(frame.text)[1]) == ["push"]


def test_left_channel_sends_nothing_more() -> None:
    """Also when it was marked before."""
    box = outbox(ring("run:a", [1]))
    box.leave("run:a", "unsubscribed")

    assert box.next_frame(0.0) is None


def test_offsets_may_skip() -> None:
    """A coalesced publication leaves its offset unused; that is no gap."""
    assert [offset for text in drained(outbox(ring("run:a", [2, 7, 40]))) for _, offset in offsets(text)] == [2, 7, 40]


def test_without_credit_nothing_leaves_and_a_pong_returns_it() -> None:
    """In flight never exceeds the limit by more than a frame; pings are in the stream."""
    followed = ring("run:a", range(1, 101), size=100)
    credit = CreditWindow(LIMITS)
    box = Outbox(LIMITS, credit)
    box.follow(followed, 0)

    sent = drained(box)
    assert 4000 <= credit.in_flight_bytes < 4000 + 500
    assert sent.count("{}") == 4, "a ping is a frame of its own"
    data = [text for text in sent if text != "{}"]
    assert all({} not in lines(text) for text in data)
    assert not box.has_work

    assert credit.on_pong(1.0) is not None
    assert credit.in_flight_bytes < 4000
    more = drained(box)
    assert offsets(more[0])[0][1] == offsets(data[-1])[-1][1] + 1


def test_cursor_that_left_the_ring_has_fallen_behind() -> None:
    """The connection is closed rather than sent a stream with a hole."""
    followed = ring("run:a", range(1, 11))
    box = outbox(followed)
    followed.drop_older(1.0)

    with pytest.raises(OutboxError, match="channel"):
        box.next_frame(0.0)


def test_unread_replies_are_bounded() -> None:
    """One long reply passes, a heap behind it does not."""
    box = outbox(limits=GatewaySettings(control_bytes=100))
    box.add(b"x" * 1000)
    with pytest.raises(OutboxError, match="replies"):
        box.add(b"y")


def test_unidirectional_lines_have_no_wrapper() -> None:
    """Pushes without ``push``, pings as they are."""
    box = outbox(ring("run:a", [1]), unidirectional=True)
    box.add(b'{"push":{"connect":{}}}')
    box.add(b"{}")

    frames = [[list(line) for line in lines(text)] for text in drained(box)]

    assert frames == [[["connect"], ["channel", "pub"]], [[]]]


class TestRing:
    """One channel on one replica."""

    def test_publications_come_back_as_they_were(self) -> None:
        """A recovery from the ring gives what the hub would give."""
        added = [publication("run:a", offset, size=offset) for offset in range(1, 6)]
        followed = ring("run:a")
        for item in added:
            followed.append(item, 0.0)

        assert followed.after(2) == tuple(added[2:])

    def test_repetitions_and_other_epochs_are_told_apart(self) -> None:
        """The feed repeats what a history had; a new life of the stream must be read anew."""
        followed = ring("run:a", [1, 2])

        assert followed.append(publication("run:a", 2), 0.0) is Append.DUPLICATE
        assert followed.append(publication("run:a", 3, epoch="f"), 0.0) is Append.OTHER_EPOCH
        assert followed.position == StreamPosition("e", 2)

    def test_publications_before_the_first_answer_count_from_that_answer(self) -> None:
        """What the feed brought while the hub was asked follows the hub's position without a gap."""
        fresh: ChannelRing[Any] = ChannelRing("run:a", "run", LIMITS)
        fresh.append(publication("run:a", 50), 0.0)
        fresh.start(StreamPosition("e", 20))

        assert fresh.covers(StreamPosition("e", 20))
        assert not fresh.covers(StreamPosition("e", 19))
        assert [item.offset for item in fresh.after(20)] == [50]

    def test_late_answer_of_the_hub_does_not_lower_the_floor(self) -> None:
        """Two clients attach at once; the older answer arrives last, and what lies between was never here."""
        fresh: ChannelRing[Any] = ChannelRing("run:a", "run", LIMITS)
        fresh.start(StreamPosition("e", 9))
        fresh.start(StreamPosition("e", 6))

        assert fresh.floor == 9
        assert fresh.chunk(6, unidirectional=False) is None

    def test_bounds_by_count_bytes_and_age(self) -> None:
        """The oldest leave first and the floor says so."""
        limits = GatewaySettings(ring_items=5, ring_bytes=10_000)
        bounded: ChannelRing[Any] = ChannelRing("run:a", "run", limits)
        bounded.start(StreamPosition("e", 0))
        for offset in range(1, 5001):
            bounded.append(publication("run:a", offset), float(offset))
        assert (len(bounded), bounded.floor) == (5, 4995)
        bounded.drop_older(4999.0)
        assert len(bounded) == 2
        bounded.shrink(0)
        assert (len(bounded), bounded.num_bytes, bounded.floor) == (0, 0, 5000)
        assert bounded.covers(StreamPosition("e", 5000))


class TestCredit:
    """What pongs return."""

    def test_unasked_pong_is_noticed(self) -> None:
        """It is a mistake of the client's, and closes the socket."""
        assert CreditWindow(LIMITS).on_pong(0.0) is None

    def test_each_pong_acknowledges_what_came_before_its_ping(self) -> None:
        """Not what was sent since."""
        credit = CreditWindow(LIMITS)
        credit.on_sent(300)
        credit.on_ping(0.0)
        credit.on_sent(200)

        assert credit.on_pong(0.5) == 0.5
        assert credit.in_flight_bytes == 200
        assert credit.deadline_s is None

    def test_budget_is_spent_once(self) -> None:
        """A unidirectional client gets no credit back."""
        budget = Budget(GatewaySettings(uni_budget_bytes=100))
        budget.on_sent(99)
        assert budget.overdue(0.0) is None
        budget.on_sent(1)
        assert not budget.is_open
        assert budget.overdue(0.0) is CloseCode.FORCE_RECONNECT
