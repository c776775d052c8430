"""What waits in a process that broadcasts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.publication import Draft, Priority
from realtime.send_buffer import OLDEST_EVERY, SendBuffer
from realtime.settings import BroadcastSettings

CLASSES = st.sampled_from(Priority)


def make_buffer(**settings: Any) -> SendBuffer:
    return SendBuffer(BroadcastSettings(**settings))


def draft(data: str, priority: Priority = Priority.NORMAL, bar: str | None = None, channel: str = "run:1") -> Draft:
    return Draft(channel, data.encode(), Priority.PROGRESS if bar else priority, None, bar)


def taken(buffer: SendBuffer, max_count: int = 100, max_bytes: int = 10_000) -> list[str]:
    return [waiting.draft.data.decode() for waiting in buffer.take(max_count, max_bytes, 1.0)]


def test_messages_of_a_channel_leave_in_the_order_of_the_calls() -> None:
    """Whatever their class: a completion must not overtake its last progress."""
    buffer = make_buffer()
    buffer.offer(draft("1", Priority.NORMAL), 0.0)
    buffer.offer(draft("2", bar="bar"), 0.0)
    buffer.offer(draft("3", Priority.CRITICAL), 0.0)

    assert (taken(buffer), len(buffer), buffer.num_bytes) == (["1", "2", "3"], 0, 0)


def test_an_urgent_message_waits_for_its_own_channel_only() -> None:
    """Thousands of another channel's stand behind it, and of its own those that came before it."""
    buffer = make_buffer()
    for number in range(1000):
        buffer.offer(draft(f"a{number}", channel="user:a"), 0.0)
    buffer.offer(draft("b0", channel="user:b"), 0.0)
    buffer.offer(draft("b1", Priority.CRITICAL, channel="user:b"), 0.0)
    buffer.offer(draft("b2", channel="user:b"), 0.0)

    assert taken(buffer, max_count=3) == ["b0", "b1", "a0"]


def test_channels_of_one_class_take_turns() -> None:
    """One that floods delays another by a message, not by a buffer."""
    buffer = make_buffer()
    for data, channel in (("a0", "user:a"), ("a1", "user:a"), ("a2", "user:a"), ("b0", "user:b"), ("c0", "user:c")):
        buffer.offer(draft(data, channel=channel), 0.0)

    assert taken(buffer) == ["a0", "b0", "c0", "a1", "a2"]


def test_a_flood_of_urgent_messages_starves_nobody() -> None:
    """One place in so many is the oldest message's."""
    buffer = make_buffer()
    buffer.offer(draft("patient", bar="bar", channel="user:b"), 0.0)
    for number in range(1000):
        buffer.offer(draft(str(number), Priority.CRITICAL), 0.0)

    assert taken(buffer, max_count=OLDEST_EVERY + 1)[-1] == "patient"


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), CLASSES, st.sampled_from([None, None, "bar"]), st.integers(0, 4)),
        max_size=60,
    )
)
def test_whatever_comes_and_goes_each_message_leaves_once_and_in_its_channels_order(
    steps: list[tuple[str, Priority, str | None, int]],
) -> None:
    """Or is handed back as displaced, replaced by a newer value of its bar, or refused."""
    buffer = make_buffer(buffer_size=8, progress_keys=2)
    left: list[str] = []
    gone = coalesced = refused = 0
    for number, (name, priority, bar, count) in enumerate(steps):
        offer = buffer.offer(draft(f"{number:03}", priority, bar and f"{bar}{number % 3}", f"user:{name}"), 0.0)
        gone += len(offer.displaced)
        coalesced += offer.coalesced
        refused += not offer.is_accepted
        batch = buffer.take(count, 10_000, 1.0, at_once=True) if count else []
        left += [f"{waiting.draft.channel} {waiting.draft.data.decode()}" for waiting in batch]
        assert len(buffer) == len(list(buffer)) == number + 1 - len(left) - gone - coalesced - refused
    left += [
        f"{waiting.draft.channel} {waiting.draft.data.decode()}"
        for waiting in buffer.take(1000, 10_000, 1.0, at_once=True)
    ]

    assert (len(buffer), buffer.num_bytes, len(set(left))) == (0, 0, len(left))
    assert len(left) + gone + coalesced + refused == len(steps)


def test_a_batch_is_bounded_but_never_empty() -> None:
    """By number and by bytes."""
    buffer = make_buffer()
    for data in ("aaaa", "bbbb", "c"):
        buffer.offer(draft(data), 0.0)

    assert [taken(buffer, max_bytes=1), taken(buffer, max_count=1), taken(buffer)] == [["aaaa"], ["bbbb"], ["c"]]


def test_of_a_bar_only_the_latest_value_waits() -> None:
    """At the place of its first one, so that a flood cannot keep it waiting for ever."""
    buffer = make_buffer()
    offers = [buffer.offer(draft(value, bar="bar"), 0.0) for value in ("10 %", "20 %", "30 %")]
    buffer.offer(draft("done"), 0.0)

    assert ([offer.coalesced for offer in offers], taken(buffer)) == ([0, 1, 1], ["30 %", "done"])


def test_a_full_buffer_still_takes_the_last_value_of_a_bar() -> None:
    """Bars have room of their own."""
    buffer = make_buffer(buffer_size=1)
    buffer.offer(draft("alert"), 0.0)

    assert buffer.offer(draft("100 %", bar="bar"), 0.0).is_accepted is True


def test_a_full_buffer_refuses_what_is_not_more_urgent() -> None:
    """By number or by bytes."""
    buffer = make_buffer(buffer_size=2, buffer_max_bytes=4)
    assert [buffer.offer(draft(data), 0.0).is_accepted for data in ("aa", "bbb", "b", "c")] == [
        True,
        False,
        True,
        False,
    ]


def test_the_more_urgent_displaces_the_oldest_of_the_least_urgent() -> None:
    """And what was displaced is handed back to be counted."""
    buffer = make_buffer(buffer_size=3)
    buffer.offer(draft("high", Priority.HIGH), 0.0)
    buffer.offer(draft("old"), 0.0)
    buffer.offer(draft("new"), 0.0)
    offer = buffer.offer(draft("critical", Priority.CRITICAL), 0.0)

    assert ([waiting.draft.data for waiting in offer.displaced], taken(buffer)) == (
        [b"old"],
        ["high", "new", "critical"],
    )


def test_too_many_bars_displace_the_oldest() -> None:
    """Memory is bounded, and the loss is handed back to be counted."""
    buffer = make_buffer(progress_keys=2)
    offers = [buffer.offer(draft(name, bar=name), 0.0) for name in "abc"]

    assert ([waiting.draft.data for waiting in offers[2].displaced], taken(buffer)) == ([b"a"], ["b", "c"])


def test_progress_leaves_at_its_pace_and_everything_else_at_once() -> None:
    """A flood of bars fills five milliseconds' worth at a time; a completion takes its bar along."""
    buffer = make_buffer(progress_per_s=400)
    for number in range(10):
        buffer.offer(draft(f"{number} %", bar="bar", channel=f"run:{number}"), 0.0)
    buffer.offer(draft("done", Priority.HIGH, channel="run:9"), 0.0)
    buffer.offer(draft("alert", Priority.CRITICAL, channel="noc:all"), 0.0)

    def leaving(now_s: float, **options: bool) -> list[str]:
        return [waiting.draft.data.decode() for waiting in buffer.take(100, 10_000, now_s, **options)]

    assert leaving(1.0) == ["alert", "9 %", "done", "0 %", "1 %"]
    assert (buffer.wait_s(1.0), leaving(1.002)) == (pytest.approx(0.005), [])
    assert leaving(1.005) == ["2 %", "3 %"]
    assert leaving(1.06, at_once=True) == ["4 %", "5 %", "6 %", "7 %", "8 %"]
    assert buffer.wait_s(2.0) is None
