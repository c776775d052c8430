"""Commands in SQL: made once, claimed by one, answered by their own device only, told once, gone in the end."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes_alerts import FakeClock, FakeHub
from fakes_commands import ack, make_order
from sqlalchemy import Engine

from ingest.command import CommandState, sent
from ingest.command_relay import CommandRelay
from ingest.command_retention import CommandRetention
from ingest.command_store import CLAIM_S, CommandQuery, CommandSettings, CommandStore
from ingest.errors import CommandConflictError, CommandNotFoundError, DeviceBusyError, StoreRefusedError
from realtime.errors import HubUnavailableError


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(sql: Engine, clock: FakeClock) -> CommandStore:
    return CommandStore(sql, clock, CommandSettings(max_open_per_device=5))


def test_a_request_makes_one_command(store: CommandStore) -> None:
    """The same again returns it; another one under the same id is refused; another user's id is another's."""
    first = store.create(make_order(request_id="request-1"))

    assert store.create(make_order(request_id="request-1")) == first
    with pytest.raises(CommandConflictError):
        store.create(make_order(2, request_id="request-1"))
    assert store.create(make_order(request_id="request-1", user_id="otto")).id != first.id
    assert len(store.list(CommandQuery())) == 2


def test_the_same_request_from_many_at_once_makes_one_command(store: CommandStore) -> None:
    """Whoever loses the race gets the winner's."""
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: store.create(make_order(request_id="request-1")).id, range(8)))

    assert len(set(made)) == 1


def test_a_device_has_so_many_open_commands_and_no_more(store: CommandStore, clock: FakeClock) -> None:
    """One that has ended makes room; other devices have their own."""
    for number in range(5):
        store.create(make_order(number))
    with pytest.raises(DeviceBusyError, match="5 commands of demo/pump-7"):
        store.create(make_order(6))
    store.create(make_order(7, device="door-3"))
    clock.advance(61.0)

    assert store.end_overdue() == 6
    store.create(make_order(8))


def test_one_process_at_a_time_has_a_command(store: CommandStore, clock: FakeClock) -> None:
    """Until it gives it up, or has been silent for too long; the oldest goes first."""
    first, second = store.create(make_order(1)), store.create(make_order(2))
    assert [[command.id for command in store.claim(1)] for _ in range(3)] == [[first.id], [second.id], []]
    store.change([first.id], lambda _command: None, retry_in_s=2.0)
    assert store.claim(10) == ()
    clock.advance(2.0)
    (again,) = store.claim(10)
    assert (again.id, again.attempts) == (first.id, 2)
    clock.advance(CLAIM_S)
    assert [command.id for command in store.claim(10)] == [first.id, second.id]


def test_many_who_claim_at_once_get_different_commands(store: CommandStore) -> None:
    """Nothing is sent by two."""
    made = {store.create(make_order(number)).id for number in range(5)}
    with ThreadPoolExecutor(4) as pool:
        claimed = [command.id for found in pool.map(lambda _: store.claim(2), range(12)) for command in found]

    assert len(claimed) == len(set(claimed))
    assert set(claimed) <= made


def test_what_has_ended_or_is_sent_is_not_claimed(store: CommandStore, clock: FakeClock) -> None:
    """Nor what is past its deadline although nobody has ended it yet; nor is it queued again by a late retry."""
    one = store.create(make_order(1))
    store.claim(1)
    store.change([one.id], lambda command: sent(command, clock.time_s()))
    store.change([one.id], lambda _command: None, retry_in_s=0.0)
    assert store.claim(10) == ()
    store.create(make_order(2))
    clock.advance(60.0)

    assert store.claim(10) == ()


def test_answers_are_stored_together_or_not_at_all(store: CommandStore) -> None:
    """One that fits no command of its device takes the others' transaction with it; the lane then halves."""
    one, two = store.create(make_order(1)), store.create(make_order(2, device="door-3"))
    for wrong in (ack("ok", command_id=two.id), ack("ok", command_id="nobody")):
        with pytest.raises(StoreRefusedError, match="no such command"):
            store.record([ack("ok", command_id=one.id), wrong])
    assert store.get(one.id)[0].state is CommandState.QUEUED

    answers = [ack("delivered", command_id=one.id), ack("ok", "locked", one.id), ack("ok", "locked", one.id)]
    assert store.record(answers) == 2
    assert store.record(answers) == 0
    command, events = store.get(one.id)
    assert (command.state, command.detail) == (CommandState.OK, "locked")
    assert [(event.seq, event.state.value) for event in events] == [(1, "queued"), (2, "delivered"), (3, "ok")]


def test_an_answer_that_comes_while_it_is_being_sent_wins(store: CommandStore, clock: FakeClock) -> None:
    """The sender finds it done and writes nothing over it."""
    command = store.create(make_order())
    store.claim(1)
    store.record([ack("ok", command_id=command.id)])
    assert store.change([command.id], lambda current: sent(current, clock.time_s())) == 0

    after, _ = store.get(command.id)
    assert (after.state, after.attempts) == (CommandState.OK, 1)


def test_pages_have_no_gap_and_tenants_have_their_own(store: CommandStore) -> None:
    """Newest first; by device, state and user; another tenant's is not found."""
    made = [store.create(make_order(number, device=f"d{number % 2}")) for number in range(4)]
    other = store.create(make_order(tenant="acme", user_id="otto"))
    first = store.list(CommandQuery(tenant="demo", limit=3))
    rest = store.list(CommandQuery(tenant="demo", before_id=first[-1].id))

    assert [command.id for command in (*first, *rest)] == [command.id for command in reversed(made)]
    assert [command.id for command in store.list(CommandQuery(device="d1"))] == [made[3].id, made[1].id]
    assert store.list(CommandQuery(user_id="otto")) == (other,)
    assert store.list(CommandQuery(state=CommandState.OK)) == ()
    with pytest.raises(CommandNotFoundError):
        store.get(other.id, tenant="demo")


def test_each_event_is_told_once_on_both_channels(store: CommandStore, clock: FakeClock) -> None:
    """A hub that is away, or whose answer got lost, changes nothing; a user without a channel neither."""
    hub = FakeHub()
    relay = CommandRelay(store, hub, clock)
    store.create(make_order())
    store.create(make_order(user_id="auth0|7"))
    hub.fail_next = 1
    with pytest.raises(HubUnavailableError):
        relay.turn()
    hub.confirms = False
    with pytest.raises(HubUnavailableError):
        relay.turn()
    hub.confirms = True
    assert relay.turn()
    assert not relay.turn()

    assert [len(hub.on(channel)) for channel in ("device:demo/pump-7", "user:nora")] == [2, 1]
    assert len(hub.published) == 3
    clock.advance(60.0)
    assert relay.turn()
    assert {json.loads(draft.data)["data"]["event"]["state"] for draft in hub.on("user:nora")} == {
        "queued",
        "timed_out",
    }


def test_old_commands_leave_and_open_ones_stay(sql: Engine, store: CommandStore, clock: FakeClock) -> None:
    """By age, or the first ended ones for their number."""
    retention = CommandRetention(sql)
    store.create(make_order(1))
    clock.advance(61.0)
    store.end_overdue()
    store.create(make_order(2))
    clock.advance(61.0)
    store.end_overdue()
    kept = store.create(make_order(3))

    assert retention.usage().size_bytes > 0
    assert retention.expire(clock.time_s() - 30.0, limit=10) == 1
    assert retention.shed(limit=10) == 1
    assert retention.shed(limit=10) == 0
    assert store.list(CommandQuery()) == (kept,)
