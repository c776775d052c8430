"""The log of all channels."""

from realtime.log import SEQ_BLOCK, Log
from realtime.publication import Priority, Publication
from realtime.replies import Cursor
from realtime.stream import Entry


def entry(seq: int, data: bytes = b"x") -> Entry:
    return Entry(seq, Publication("noc:all", seq, data, Priority.NORMAL, 0, "e"))


def make_log(count: int, size: int = 8, max_bytes: int = 1000) -> Log:
    log = Log(size, max_bytes, "log")
    for seq in range(1, count + 1):
        log.append(entry(seq))
    return log


def read(log: Log, after: int, until: int | None = None, max_count: int = 100, max_bytes: int = 1000) -> list[int]:
    reading = log.read(after, log.top if until is None else until, max_count, max_bytes)
    return [publication.offset for publication in reading.publications]


def test_a_reader_gets_everything_after_its_place() -> None:
    """In the order of publishing."""
    assert read(make_log(3), after=1) == [2, 3]


def test_a_reply_is_bounded_and_the_next_goes_on() -> None:
    """By number and by bytes, but never empty while there is something."""
    log = make_log(4)
    first = log.read(0, log.top, max_count=3, max_bytes=1)

    assert ([p.offset for p in first.publications], first.seq) == ([1], 1)
    assert read(log, after=1, max_count=2) == [2, 3]


def test_what_is_not_shown_yet_stays_hidden() -> None:
    """A reader gets nothing above the number that it is allowed to see."""
    log = make_log(4)

    assert (read(log, after=0, until=2), log.read(0, 2, 100, 1000).seq) == ([1, 2], 2)


def test_the_oldest_leave_and_laggards_are_told() -> None:
    """A cursor before what has left cannot be followed."""
    log = make_log(10, size=4)

    assert (log.floor, read(log, after=6)) == (6, [7, 8, 9, 10])
    assert (log.can_follow(Cursor("log", 6)), log.can_follow(Cursor("log", 5))) == (True, False)


def test_bytes_bound_the_log_too() -> None:
    """A large publication pushes several small ones out."""
    log = make_log(4, max_bytes=4)
    log.append(entry(5, b"xyz"))

    assert read(log, after=log.floor) == [4, 5]


def test_superseded_publications_are_passed_over_and_counted() -> None:
    """The loss account of a reader knows them."""
    log = Log(8, 1000, "log")
    old, new = entry(1), entry(2)
    log.append(old)
    log.append(new)
    old.is_superseded = True
    reading = log.read(0, 2, 100, 1000)

    assert ([p.offset for p in reading.publications], reading.coalesced, reading.seq) == ([2], 1, 2)


def test_a_reader_from_before_a_restart_goes_on_without_a_gap() -> None:
    """Unless it saw what the journal never heard of."""
    before = make_log(3)
    journalled = before.mark
    log = Log(8, 1000, "other")
    log.resume(journalled, [entry(2), entry(3)])
    log.append(entry(log.top + 1))

    assert log.top == SEQ_BLOCK + 1
    assert [log.can_follow(Cursor("log", seq)) for seq in (0, 1, 3, 4)] == [False, True, True, False]
    assert read(log, after=1) == [2, 3, SEQ_BLOCK + 1]
