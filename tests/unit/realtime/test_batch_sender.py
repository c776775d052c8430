"""Batches that are under way together: order, repetition and the end of each."""

from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.clock import SystemClock
from realtime.batch_sender import WINDOW, BatchSender
from realtime.errors import TransportError
from realtime.publication import Draft
from realtime.send_buffer import Waiting
from realtime.settings import BroadcastSettings


class Line:
    """A hub and the connections to it: appends each name once, and confirms in order when told."""

    def __init__(self) -> None:
        self.appended: dict[str, list[bytes]] = {}
        self.attempts: list[str] = []
        self.breaks_at = -1
        """Number of the send that fails; what was sent before it may have arrived."""

    @property
    def payloads(self) -> list[bytes]:
        return [data for batch in self.appended.values() for data in batch]

    def open(self) -> "LineTransport":
        return LineTransport(self)


class LineTransport:
    name = "line"
    never_blocks_when_idle = True

    def __init__(self, line: Line) -> None:
        self._line = line
        self._under_way: deque[str] = deque()
        self.is_closed = False

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        assert not self.is_closed
        self._line.attempts.append(batch)
        if len(self._line.attempts) == self._line.breaks_at:
            raise TransportError(self.name, "unreachable", False)
        self._line.appended.setdefault(batch, [draft.data for draft in drafts])
        self._under_way.append(batch)
        return 0

    def fileno(self) -> int:
        return 0

    def confirm(self, timeout_s: float) -> int:
        self._under_way.popleft()
        return 1

    def close(self) -> None:
        self.is_closed = True


class Books:
    """What became of each message."""

    def __init__(self) -> None:
        self.confirmed: list[bytes] = []
        self.dropped: list[tuple[bytes, str]] = []
        self.failures = 0

    def on_confirmed(self, messages: list[Waiting], settle: Callable[[], object]) -> None:
        settle()
        self.confirmed += [waiting.draft.data for waiting in messages]

    def on_dropped(self, messages: list[Waiting], reason: str, settle: Callable[[], object]) -> None:
        settle()
        self.dropped += [(waiting.draft.data, reason) for waiting in messages]

    def on_failure(self, error: TransportError) -> None:
        self.failures += 1


def messages(*payloads: bytes) -> list[Waiting]:
    return [Waiting(Draft("noc:all", data), 0, 0.0, None) for data in payloads]


def sender(line: Line, books: Books, retry_for_s: float = 30.0) -> BatchSender:
    return BatchSender(BroadcastSettings(retry_for_s=retry_for_s), line.open, SystemClock(), books)


def test_several_batches_are_under_way_and_confirmed_in_order() -> None:
    """Up to the window, without waiting for each other."""
    line, books = Line(), Books()
    sends = sender(line, books)
    for number in range(WINDOW):
        assert sends.has_room
        sends.add(messages(b"%d" % number))
        assert sends.send() == 0.0
    assert (sends.has_room, len(sends.messages), books.confirmed) == (False, WINDOW, [])
    while not sends.is_idle:
        sends.confirm()

    assert books.confirmed == line.payloads == [b"%d" % number for number in range(WINDOW)]
    assert sends.is_smooth


@given(st.integers(1, 6), st.lists(st.booleans(), min_size=12, max_size=12))
def test_after_a_failure_all_go_again_under_their_names(breaks_at: int, confirms: list[bool]) -> None:
    """In their order; the hub appends each once, whether it had arrived or not."""
    line, books = Line(), Books()
    line.breaks_at = breaks_at
    sends = sender(line, books)
    given_out = []
    for number, confirm in enumerate(confirms):
        if sends.has_room:
            given_out.append(b"%d" % number)
            sends.add(messages(given_out[-1]))
        while sends.awaited is None:
            sends.send()
        if confirm and not sends.is_idle:
            sends.confirm()
    while not sends.is_idle:
        sends.confirm()

    assert books.confirmed == line.payloads == given_out
    assert books.failures == (len(line.attempts) >= breaks_at)
    assert books.dropped == []


def test_what_is_overdue_goes_again_and_what_is_too_old_is_dropped() -> None:
    """With the reason of the failure."""
    line, books = Line(), Books()
    sends = sender(line, books, retry_for_s=1e-9)
    line.breaks_at = 1
    sends.add(messages(b"1", b"2"))

    assert sends.send() > 0.0
    assert books.dropped == [(b"1", "unreachable"), (b"2", "unreachable")]
    assert (sends.is_idle, sends.is_smooth, sends.transport_name) == (True, False, "none")


def test_a_refused_message_is_dropped_alone() -> None:
    """Those before it have arrived; the others of its batch go on, under another name."""

    class Refusing(LineTransport):
        def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
            for index, draft in enumerate(drafts):
                if draft.data == b"bad":
                    raise TransportError(self.name, "refused", True, index)
            return super().send(batch, drafts, timeout_s)

    line, books = Line(), Books()
    sends = BatchSender(BroadcastSettings(), lambda: Refusing(line), SystemClock(), books)
    sends.add(messages(b"1", b"bad", b"2", b"bad"))
    while not sends.is_idle:
        assert sends.send() == 0.0

    assert books.confirmed == [b"1", b"2"]
    assert books.dropped == [(b"bad", "refused")] * 2


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_waits_for_ever(count: int) -> None:
    """A hub that is silent for too long is taken to be away."""
    line, books = Line(), Books()
    sends = BatchSender(BroadcastSettings(confirm_timeout_s=1e-9), line.open, SystemClock(), books)
    for number in range(count):
        sends.add(messages(b"%d" % number))
    sends.send()

    assert sends.check() > 0.0
    assert (sends.awaited, books.failures, len(sends.messages)) == (None, 1, count)
