"""Broadcasting never fails a task, and every message is accounted for."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fakes_realtime import ScriptedTransport
from prometheus_client import REGISTRY as _DEFAULT_REGISTRY

from cluster.metrics import REGISTRY
from realtime.broadcaster import Broadcaster
from realtime.errors import TransportError
from realtime.process_broadcaster import WebSocketBroadcastMixin
from realtime.settings import BroadcastSettings

assert REGISTRY is not _DEFAULT_REGISTRY


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport()


@pytest.fixture
def make(transport: ScriptedTransport) -> Iterator[Any]:
    made: list[Broadcaster] = []

    def make_broadcaster(**settings: Any) -> Broadcaster:
        made.append(Broadcaster(BroadcastSettings(**{"exit_flush_s": 0.5, **settings}), lambda: transport))
        return made[-1]

    yield make_broadcaster
    transport.gate.set()
    for broadcaster in made:
        broadcaster.close(0.0)


def sent(transport: ScriptedTransport) -> list[tuple[str, str, str, dict[str, Any]]]:
    found = []
    for draft in transport.sent:
        message = json.loads(draft.data)
        found.append((draft.channel, message["type"], message["priority"], message["data"]))
    return found


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_five_calls_reach_their_channels(make: Any, transport: ScriptedTransport) -> None:
    """The audiences of the replaced system, under its names."""
    broadcaster = make()
    assert broadcaster.broadcast_to_group("noc_dashboard", "alert_notification", {"a": 1}, "critical")
    assert broadcaster.broadcast_to_user(123, "task_complete", {"a": 2})
    assert broadcaster.broadcast_to_tenant(456, "system_alert", {"a": 3})
    assert broadcaster.broadcast_to_noc_dashboard("ml_prediction", {"a": 4}, client_id=789)
    assert broadcaster.flush(5)

    assert sent(transport) == [
        ("group:noc_dashboard", "alert_notification", "critical", {"a": 1}),
        ("user:123", "task_complete", "normal", {"a": 2}),
        ("tenant:456", "system_alert", "normal", {"a": 3}),
        ("noc:all", "ml_prediction", "normal", {"a": 4}),
        ("noc:client-789", "ml_prediction", "normal", {"a": 4}),
    ]


def test_progress_goes_to_the_user_and_to_the_run(make: Any, transport: ScriptedTransport) -> None:
    """With the figures of the caller, clamped to a percentage."""
    broadcaster = make()
    broadcaster.broadcast_task_progress(7, "train", 250.0, "epoch 3", run_id="r1", data={"loss": 0.5})
    broadcaster.flush(5)
    data = {"task_name": "train", "progress": 100.0, "message": "epoch 3", "run_id": "r1", "loss": 0.5}

    assert sent(transport) == [
        ("user:7", "task_progress", "progress", data),
        ("run:r1", "task_progress", "progress", data),
    ]


def test_a_flood_of_progress_ends_with_its_last_value(make: Any, transport: ScriptedTransport) -> None:
    """However slow the hub is and however full the buffer."""
    broadcaster = make(buffer_size=1)
    transport.gate.clear()
    broadcaster.broadcast_to_user(1, "system_alert", {})
    assert transport.entered.wait(5)
    for percent in range(1001):
        broadcaster.broadcast_task_progress(1, "train", percent / 10)
    transport.gate.set()
    assert broadcaster.flush(5)

    assert [data["progress"] for _, kind, _, data in sent(transport) if kind == "task_progress"] == [100.0]
    assert broadcaster.health().coalesced_total == 1000


@pytest.mark.parametrize(
    ("message_type", "data", "channel"),
    [
        pytest.param("x", {"raw": b"\xff"}, "noc:all", id="data-that-is-no-json"),
        pytest.param("x", {"text": "y" * 100_000}, "noc:all", id="too-large"),
        pytest.param("two words", {}, "noc:all", id="bad-type"),
        pytest.param("x", {}, "room:1", id="bad-channel"),
        pytest.param(None, {}, "noc:all", id="no-type"),
        pytest.param("x", None, None, id="no-channel"),
    ],
)
def test_a_bad_message_is_dropped_and_counted(make: Any, message_type: Any, data: Any, channel: Any) -> None:
    """The task hears False, never an exception."""
    broadcaster = make()

    assert broadcaster.publish(channel, message_type, data) is False
    assert sum(broadcaster.health().dropped_by_reason.values()) == 1


async def test_the_async_calls_do_not_raise_either(make: Any, transport: ScriptedTransport) -> None:
    """Same rules on an event loop."""
    broadcaster = make()

    assert await broadcaster.abroadcast_to_user("a b", "x", {}) is False
    assert await broadcaster.abroadcast_task_progress(1, "train", float("nan")) is True
    assert await broadcaster.apublish("noc:all", "x", {}) is True
    assert broadcaster.flush(5)
    assert next(data for _, kind, _, data in sent(transport) if kind == "task_progress")["progress"] is None


def test_a_full_buffer_drops_and_counts(make: Any, transport: ScriptedTransport) -> None:
    """After the budget of the call; critical messages take the place of others."""
    broadcaster = make(buffer_size=2, batch_size=1, block_s=0.01)
    before = value("websocket_broadcast_failure_total", kind="user", reason="full")
    transport.gate.clear()
    broadcaster.broadcast_to_user(1, "x", {"n": 0})
    assert transport.entered.wait(5)
    taken = [broadcaster.broadcast_to_user(1, "x", {"n": n}) for n in (1, 2, 3)]
    critical = broadcaster.broadcast_to_user(1, "x", {"n": 4}, "critical")
    transport.gate.set()
    assert broadcaster.flush(5)

    assert (taken, critical) == ([True, True, False], True)
    assert [data["n"] for *_, data in sent(transport)] == [0, 2, 4]
    assert broadcaster.health().dropped_by_reason == {"full": 1, "displaced": 1}
    assert value("websocket_broadcast_failure_total", kind="user", reason="full") == before + 1


def test_a_failed_batch_is_repeated_under_its_name(make: Any, transport: ScriptedTransport) -> None:
    """So that the hub appends it once, whether or not the first attempt arrived."""
    broadcaster = make()
    transport.failure = TransportError("scripted", "unreachable", is_final=False)
    broadcaster.broadcast_to_user(1, "x", {})
    assert transport.entered.wait(5)
    transport.failure = None
    assert broadcaster.flush(5)

    assert (len(transport.attempts) >= 2, len(set(transport.attempts)), len(transport.sent)) == (True, 1, 1)
    assert broadcaster.health().is_ok is True


def test_a_refused_message_does_not_take_others_with_it(make: Any, transport: ScriptedTransport) -> None:
    """Those before it are confirmed, those behind it are sent."""
    broadcaster = make()
    transport.gate.clear()
    broadcaster.publish("noc:all", "x", {"n": 0})
    assert transport.entered.wait(5)
    for n in (1, 2, 3):
        broadcaster.publish("noc:all", "x", {"n": n})
    transport.failure = TransportError("scripted", "refused", is_final=True, confirmed=0)
    transport.gate.set()
    assert broadcaster.flush(5)

    assert (broadcaster.health().dropped_by_reason, broadcaster.health().confirmed_total) == ({"refused": 4}, 0)


def test_what_cannot_be_sent_in_time_is_dropped_with_its_reason(make: Any, transport: ScriptedTransport) -> None:
    """Memory is not kept for ever for a floor that is gone."""
    broadcaster = make(retry_for_s=0.01)
    transport.failure = TransportError("scripted", "unreachable", is_final=False)
    broadcaster.broadcast_to_user(1, "x", {})
    assert broadcaster.flush(5)

    health = broadcaster.health()
    assert (health.is_ok, health.dropped_by_reason, "unreachable" in health.last_error) == (
        False,
        {"unreachable": 1},
        True,
    )


def test_nobody_waits_for_a_hub_that_does_not_answer(make: Any, transport: ScriptedTransport) -> None:
    """With a full buffer and a failing hub the call drops at once."""
    broadcaster = make(buffer_size=1, batch_size=1, block_s=60.0)
    transport.failure = TransportError("scripted", "unreachable", is_final=False)
    broadcaster.broadcast_to_user(1, "x", {})
    while broadcaster.health().is_ok:
        transport.entered.wait(5)
    broadcaster.broadcast_to_user(1, "x", {})

    assert broadcaster.broadcast_to_user(1, "x", {}) is False


def test_success_is_counted_by_kind_and_timed(make: Any) -> None:
    """Under the replaced system's names."""
    before = value("websocket_broadcast_success_total", kind="tenant", priority="high")
    timed = value("websocket_broadcast_duration_seconds_count", kind="tenant")
    broadcaster = make()
    broadcaster.broadcast_to_tenant(1, "x", {}, "high")
    assert broadcaster.flush(5)

    assert value("websocket_broadcast_success_total", kind="tenant", priority="high") == before + 1
    assert value("websocket_broadcast_duration_seconds_count", kind="tenant") == timed + 1


def test_equal_failures_are_logged_once(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With kind, reason and run; the rest is counted."""
    broadcaster = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            broadcaster.publish("room:1", "x", {})

    assert [record.getMessage().split(" detail=")[0] for record in caplog.records] == [
        "broadcast dropped: kind=invalid reason=invalid run_id=- unlogged_before=0"
    ]


def test_the_book_balances_at_every_moment(make: Any, transport: ScriptedTransport) -> None:
    """While a batch is under way, when a part of one was refused, and when all is over."""
    broadcaster = make(buffer_size=4, block_s=0.0)
    transport.gate.clear()
    broadcaster.broadcast_to_user(1, "x", {"n": 0})
    assert transport.entered.wait(5)
    for number in range(6):
        broadcaster.broadcast_to_user(1, "x", {"n": number}, ("normal", "critical")[number % 2])
        broadcaster.broadcast_task_progress(1, "train", number)
        broadcaster.publish("room:1", "x", {})
    under_way = broadcaster.book()
    transport.failure = TransportError("scripted", "refused", is_final=True, confirmed=0)
    transport.gate.set()
    assert broadcaster.flush(5)
    transport.failure = None
    broadcaster.broadcast_to_tenant(1, "x", {})
    assert broadcaster.flush(5)
    book = broadcaster.book()

    assert (under_way.imbalance(), book.imbalance(), book.num_open()) == ({}, {}, 0)
    assert (under_way.num_open("in flight"), under_way.num_open("waiting")) == (1, 5)
    assert book.num_taken() == 1 + 3 * 6 + 1
    assert book.num_settled("dropped", "invalid") == 6
    assert book.num_settled("coalesced") == 5
    assert book.num_settled("delivered") == broadcaster.health().confirmed_total == 1
    assert broadcaster.health().taken_total == book.num_taken()


def test_a_closed_broadcaster_drops_and_says_why(make: Any) -> None:
    """At the end of a process nothing raises either."""
    broadcaster = make()
    broadcaster.close()

    assert broadcaster.broadcast_to_user(1, "x", {}) is False
    assert broadcaster.health().dropped_by_reason == {"closed": 1}


def test_a_class_gets_the_calls_by_the_mixin(
    make: Any, transport: ScriptedTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the one broadcaster of the process."""
    broadcaster = make()
    monkeypatch.setattr("realtime.process_broadcaster.get_broadcaster", lambda: broadcaster)

    class Report(WebSocketBroadcastMixin):
        def run(self) -> bool:
            return self.broadcast_to_user(123, "task_complete", {"result": "ready"})

    assert Report().run() is True
    assert broadcaster.flush(5)
    assert sent(transport) == [("user:123", "task_complete", "normal", {"result": "ready"})]
