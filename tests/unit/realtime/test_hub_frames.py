"""Whatever bytes come in on the hub's socket, they are frames or one kind of error."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import HubFrameError
from realtime.hub_frames import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    FrameReader,
    SocketAddress,
    read_reply,
    read_request,
    write_refusal,
    write_reply,
    write_request,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
NUMBERS = st.integers(0, 2**63)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(stream) + 1) for place in cuts), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


@given(
    st.lists(st.tuples(NUMBERS, st.text(), st.lists(VALUES, max_size=3).map(tuple)), max_size=5),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_requests_arrive_however_the_stream_is_cut(
    requests: list[tuple[int, str, tuple[object, ...]]], cuts: list[int]
) -> None:
    """Whole, in order, each once."""
    reader = FrameReader(MAX_REQUEST_BYTES)
    stream = b"".join(write_request(*request) for request in requests)
    frames = [frame for part in cut(stream, cuts) for frame in reader.feed(part)]

    assert [read_request(frame) for frame in frames] == requests


@given(NUMBERS, VALUES)
def test_a_reply_arrives(number: int, value: object) -> None:
    """With its value, and told from a refusal."""
    assert read_reply(write_reply(number, value)[4:]) == (number, value, None)
    assert read_reply(write_refusal(number, "why")[4:]) == (number, None, "why")


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_frames_or_an_error(parts: list[bytes]) -> None:
    """Nothing else is raised, and what is kept is bounded."""
    reader = FrameReader(100)
    with contextlib.suppress(HubFrameError):
        for part in parts:
            for frame in reader.feed(part):
                assert len(frame) <= 100
                for read in (read_request, read_reply):
                    with contextlib.suppress(HubFrameError):
                        read(frame)
            assert len(reader._buffer) < 104


def test_a_length_over_the_limit_is_refused_before_its_bytes() -> None:
    """Nobody makes the hub hold a gigabyte."""
    reader = FrameReader(1_000)

    assert reader.feed((1_000).to_bytes(4, "big")) == []
    with pytest.raises(HubFrameError, match="1001 bytes"):
        FrameReader(1_000).feed((1_001).to_bytes(4, "big"))


def test_what_is_too_large_is_not_written() -> None:
    """Its caller takes the actor."""
    with pytest.raises(HubFrameError):
        write_request(1, "publish", (b"x" * MAX_REQUEST_BYTES,))
    with pytest.raises(HubFrameError):
        write_reply(1, b"x" * MAX_REPLY_BYTES)


def test_the_secret_is_not_shown() -> None:
    """An address in a log line names the path only."""
    assert "hush" not in repr(SocketAddress("/run/hub.sock", b"hush"))
