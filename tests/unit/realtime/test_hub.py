"""The hub's rules, one by one."""

from typing import Any

from fakes_cluster import FakeClock

from realtime.hub import Hub
from realtime.publication import Draft, Priority, StreamPosition
from realtime.replies import Cursor
from realtime.settings import HubSettings


def make_hub(**settings: Any) -> tuple[Hub, FakeClock]:
    clock = FakeClock()
    return Hub(HubSettings(**settings), clock), clock


def draft(data: str, channel: str = "noc:all", key: str | None = None, coalesce_key: str | None = None) -> Draft:
    return Draft(channel, data.encode(), Priority.NORMAL, key, coalesce_key)


def data_of(publications: Any) -> list[str]:
    return [publication.data.decode() for publication in publications]


def test_a_poller_gets_every_channel_in_order() -> None:
    """A gateway follows the whole floor with one cursor."""
    hub, _ = make_hub()
    start = hub.since(None, hub.top).cursor
    hub.publish([draft("a"), draft("b", "user:1"), draft("c")])
    reply = hub.since(start, hub.top)

    assert (data_of(reply.publications), reply.gap) == (["a", "b", "c"], False)
    assert hub.since(reply.cursor, hub.top).publications == ()


def test_a_poller_of_another_hub_is_told_of_a_gap() -> None:
    """Its cursor proves nothing here, so it must read each channel again."""
    hub, _ = make_hub()
    hub.publish([draft("a")])
    reply = hub.since(Cursor("another", 0), hub.top)

    assert (reply.gap, reply.publications, reply.cursor.seq) == (True, (), 1)


def test_a_poller_that_fell_behind_is_told_of_a_gap() -> None:
    """The log is bounded; losing silently is not an option."""
    hub, _ = make_hub(log_size=2)
    start = hub.since(None, hub.top).cursor
    hub.publish([draft(name) for name in "abc"])

    assert hub.since(start, hub.top).gap is True


def test_the_books_say_where_everything_is() -> None:
    """Duplicates, coalesced values and what has left the log, by class."""
    hub, _ = make_hub(log_size=4)
    hub.publish([draft(str(number), key=f"k{number % 5}") for number in range(7)])
    hub.publish([draft(f"{percent} %", "run:1", coalesce_key="bar") for percent in (10, 20, 30)])
    books = hub.books()

    assert [book.imbalance() for book in books.values()] == [{}, {}]
    assert (books["hub"].num_settled("published"), books["hub"].num_settled("duplicate")) == (8, 2)
    assert (books["log"].num_settled("coalesced"), books["log"].num_settled("aged out")) == (2, 4)
    assert books["log"].num_open("held") == 2


def test_a_known_key_is_not_published_again() -> None:
    """On its channel, for its time; the answer is the first one's position."""
    hub, clock = make_hub(idempotency_ttl_s=10.0)
    first = hub.publish([draft("a", key="k"), draft("a", "user:1", key="k")])
    again = hub.publish([draft("a", key="k"), draft("a", "user:1", key="k")])
    clock.advance(11)
    later = hub.publish([draft("a", key="k")])

    assert again == first
    assert (later[0].offset, hub.duplicates.total()) == (2, 2)


def test_a_repeated_call_appends_only_what_the_first_did_not() -> None:
    """Drafts without a key are safe to send again under the name of their call."""
    hub, _ = make_hub()
    first = hub.publish([draft("a")], batch="call-1")
    again = hub.publish([draft("a"), draft("b")], batch="call-1")

    assert (again[0], again[1].offset, hub.top) == (first[0], 2, 2)


def test_history_says_where_a_channel_stands() -> None:
    """Without a position: the newest few, and nothing is claimed."""
    hub, _ = make_hub()
    hub.publish([draft(name) for name in "abc"])
    reply = hub.history("noc:all", None, limit=2)

    assert (data_of(reply.publications), reply.position.offset, reply.recovered) == (["b", "c"], 3, False)


def test_a_quiet_channel_can_be_recovered() -> None:
    """Its reader comes back with the position it was given, and hears that it missed nothing."""
    hub, _ = make_hub()
    position = hub.positions(["user:7"])["user:7"]

    assert hub.history("user:7", position, 10).recovered is True
    hub.publish([draft("a", "user:7")])
    assert data_of(hub.history("user:7", position, 10).publications) == ["a"]


def test_a_lagging_poller_gets_only_the_latest_of_a_bar() -> None:
    """And is told how many it was spared, for the loss account."""
    hub, _ = make_hub()
    start = hub.since(None, hub.top).cursor
    hub.publish([draft(f"{percent} %", "run:1", coalesce_key="bar") for percent in (10, 20, 30)])
    reply = hub.since(start, hub.top)

    assert (data_of(reply.publications), reply.coalesced, hub.coalesced_total) == (["30 %"], 2, 2)


def test_channels_are_bounded() -> None:
    """The one that was quiet longest is forgotten, and its next life has another epoch."""
    hub, _ = make_hub(max_channels=2)
    (first,) = hub.publish([draft("a", "user:1")])
    hub.publish([draft("b", "user:2"), draft("c", "user:3")])

    assert (hub.num_channels, hub.channels_evicted_total) == (2, 1)
    assert hub.history("user:1", first, 10).recovered is False


def test_a_history_expires_and_its_channel_stays_recoverable() -> None:
    """Until it was idle for long; then it is forgotten."""
    hub, clock = make_hub(history_ttl_s=10.0, channel_idle_s=100.0)
    (position,) = hub.publish([draft("a")])
    clock.advance(11)
    hub.sweep()
    assert (hub.history_bytes, hub.history("noc:all", position, 10).recovered) == (0, True)

    clock.advance(101)
    hub.sweep()
    assert hub.num_channels == 0


def test_reading_a_channel_does_not_keep_others_from_expiring() -> None:
    """Readers of the oldest history must not hold back what is behind it."""
    hub, clock = make_hub(history_ttl_s=10.0)
    hub.publish([draft("a", "user:1"), draft("b", "user:2")])
    clock.advance(6)
    hub.history("user:1", None, 10)
    clock.advance(6)
    hub.sweep()

    assert hub.history_bytes == 0


def test_a_flooding_channel_pays_with_its_own_history() -> None:
    """Beyond the common bound it cannot take that of others."""
    hub, _ = make_hub(total_max_bytes=10)
    hub.publish([draft("12345", "user:1")])
    hub.publish([draft("abc", "user:2") for _ in range(9)])

    assert hub.history_bytes <= 10
    assert data_of(hub.history("user:1", None, 10).publications) == ["12345"]


def test_records_carry_everything_once() -> None:
    """What is confirmed is not written again."""
    hub, _ = make_hub()
    hub.publish([draft("a"), draft("b")])
    first = hub.next_record(1, 1000)
    assert first is not None
    hub.confirm(first)
    second = hub.next_record(10, 1000)
    assert second is not None
    hub.confirm(second)

    assert [entry.publication.data for entry in first.entries + second.entries] == [b"a", b"b"]
    assert (hub.next_record(10, 1000), hub.journal_lag) == (None, 0)


def test_a_channel_that_was_only_read_is_journalled() -> None:
    """Or its reader would have to start afresh after a restart of the hub."""
    hub, _ = make_hub()
    position = hub.positions(["user:7"])["user:7"]
    record = hub.next_record(10, 1000)

    assert record is not None
    assert (record.entries, record.marks["user:7"].epoch, record.marks["user:7"].top) == ((), position.epoch, 0)


def test_a_log_that_ran_away_asks_for_a_snapshot() -> None:
    """Publications left it before the journal took them."""
    hub, _ = make_hub(log_size=2)
    hub.publish([draft(name) for name in "abc"])
    assert hub.has_outrun_journal is True
    for record in hub.snapshot():
        hub.confirm(record)

    assert (hub.has_outrun_journal, hub.journal_lag) == (False, 0)


def test_a_position_of_a_forgotten_life_is_refused() -> None:
    """The epoch tells the lives of a channel apart, whatever their offsets are."""
    hub, _ = make_hub()
    hub.publish([draft("a")])

    assert hub.history("noc:all", StreamPosition("gone", 1), 10).recovered is False


def test_a_removed_history_is_gone_and_so_are_its_positions() -> None:
    """Who stood in it is told to start anew; the offsets go on."""
    hub, _ = make_hub()
    (first, second) = hub.publish([draft("a"), draft("b")])

    assert hub.remove_history("noc:all") == second
    assert hub.history("noc:all", None, 10).publications == ()
    assert hub.history("noc:all", first, 10).recovered is False
    assert hub.history("noc:all", second, 10).recovered is True
    (third,) = hub.publish([draft("c")])
    assert (third.epoch, third.offset) == (second.epoch, 3)
    assert hub.remove_history("noc:all") == third
    assert hub.history_bytes == 0
