"""History of one channel."""

import itertools
from typing import Any

from realtime.publication import Draft, Priority, StreamPosition
from realtime.settings import HubSettings
from realtime.stream import Stream


def make_stream(**settings: Any) -> Stream:
    epochs = (f"epoch-{number}" for number in itertools.count())
    return Stream(HubSettings(**settings), next(epochs), lambda: next(epochs))


def publish(stream: Stream, *payloads: str, coalesce_key: str | None = None, time_ms: int = 0) -> None:
    for payload in payloads:
        draft = Draft("noc:all", payload.encode(), Priority.NORMAL, None, coalesce_key)
        stream.append(draft, seq=0, batch="", index=0, time_ms=time_ms)


def since(stream: Stream, offset: int, limit: int = 100) -> list[str] | None:
    found = stream.since(StreamPosition(stream.position.epoch, offset), limit)
    return None if found is None else [publication.data.decode() for publication in found]


def test_a_reader_gets_what_came_after_its_position() -> None:
    """In order, and nothing twice."""
    stream = make_stream()
    publish(stream, "a", "b", "c")

    assert (since(stream, 1), since(stream, 3), stream.position.offset) == (["b", "c"], [], 3)


def test_more_than_the_limit_is_not_a_recovery() -> None:
    """A partial recovery would look complete to the reader."""
    stream = make_stream()
    publish(stream, "a", "b", "c")

    assert since(stream, 0, limit=2) is None


def test_old_publications_leave_by_number() -> None:
    """A reader that missed one of them hears that it cannot recover."""
    stream = make_stream(history_size=2)
    publish(stream, "a", "b", "c")

    assert (since(stream, 0), since(stream, 1)) == (None, ["b", "c"])


def test_old_publications_leave_by_bytes() -> None:
    """Large payloads shorten the history."""
    stream = make_stream(history_max_bytes=10)
    publish(stream, "x" * 6, "y" * 6)

    assert (stream.num_bytes, since(stream, 0), since(stream, 1)) == (6, None, ["y" * 6])


def test_old_publications_leave_by_age() -> None:
    """An expired history keeps its position: who saw everything still recovers."""
    stream = make_stream(history_ttl_s=1.0)
    publish(stream, "a", time_ms=0)
    stream.trim(1001)

    assert (stream.num_publications, since(stream, 0), since(stream, 1)) == (0, None, [])


def test_a_newer_value_of_a_bar_replaces_the_older() -> None:
    """Only the latest is recovered, and its offset skips no other publication."""
    stream = make_stream()
    publish(stream, "10 %", coalesce_key="bar")
    publish(stream, "alert")
    publish(stream, "20 %", coalesce_key="bar")

    assert (since(stream, 0), stream.position.offset) == (["alert", "20 %"], 3)


def test_progress_does_not_push_alerts_out() -> None:
    """However often a bar moves, it takes one place of the history."""
    stream = make_stream(history_size=2)
    publish(stream, "alert")
    publish(stream, *map(str, range(50)), coalesce_key="bar")

    assert since(stream, 0) == ["alert", "49"]


def test_a_used_up_reservation_begins_a_new_epoch() -> None:
    """Going on in the old one, a restarted hub could hand the same offsets out again."""
    stream = make_stream(offset_block=4)
    publish(stream, "a", "b", "c")
    before = stream.position
    publish(stream, "d")

    assert (before, stream.position) == (StreamPosition("epoch-0", 3), StreamPosition("epoch-1", 1))


def test_a_confirmed_reservation_keeps_the_epoch() -> None:
    """Half a block ahead the next one is asked for, and counts once the journal has it."""
    stream = make_stream(offset_block=4)
    publish(stream, "a", "b")
    stream.confirm(stream.mark(2))
    publish(stream, "c", "d")

    assert stream.position == StreamPosition("epoch-0", 4)


def test_a_resumed_stream_skips_what_may_have_been_used() -> None:
    """What was journalled is recovered, what was not is not, and the new is above both."""
    settings = HubSettings(offset_block=100)
    before = Stream(settings, "e", lambda: "other")
    entries = [before.append(Draft("noc:all", b"%d" % n), n, "", 0, 0)[0] for n in range(1, 4)]
    journalled = before.mark(2)

    stream = Stream.resume(settings, journalled, entries[:2], lambda: "other")
    publish(stream, "new")

    assert stream.position == StreamPosition("e", 101)
    assert (since(stream, 1), since(stream, 2), since(stream, 3)) == (["2", "new"], ["new"], None)
