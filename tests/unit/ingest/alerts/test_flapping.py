"""Flapping: told when it starts and when it stops, and silent in between."""

import json

from sqlalchemy import Engine

from ingest.alerts.engine import AlertEngine
from ingest.alerts.flapping import weight
from ingest.alerts.model import Action
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.timer import AlertTimer
from ingest.episode import Change
from tests.fakes_alerts import START_S, FakeClock, FakeHub, decision


def test_recent_changes_weigh_more() -> None:
    """1.2 now, 0.8 at the end of the window, nothing after it."""
    settings = AlertSettings(flap_window_s=100)

    assert weight((START_S,), START_S, settings) == 1.2
    assert round(weight((START_S,), START_S + 100, settings), 6) == 0.8
    assert weight((START_S,), START_S + 101, settings) == 0.0
    assert weight((START_S,), START_S, AlertSettings(flap_window_s=0)) == 0.0


def test_a_problem_that_comes_and_goes_is_told_twice_only(
    alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub, clock: FakeClock, sql: Engine
) -> None:
    """Its first changes, that it flaps, and that it is steady again; what is between is stored."""
    for number in range(10):
        change = Change.RAISE if number % 2 == 0 else Change.CLEAR
        alert_engine.raise_detector_alerts([decision(change, number, ts=START_S + 20 * number, recorded_at=None)])
        clock.advance(20)
    flapping = store.list(AlertQuery()).items[0]
    clock.advance(1000)
    timer = AlertTimer(sql, AlertSettings(), lambda: None, clock)
    early = timer.step(clock.time_s())
    clock.advance(900)
    timer.step(clock.time_s())
    relay.publish_pending()

    detail = store.get(flapping.id)
    actions = [event.action for event in detail.events]
    told = [message["data"]["action"] for message in map(_message, hub.on("noc:all")) if _is_told(message)]
    assert flapping.is_flapping
    assert early == 0
    assert not detail.alert.is_flapping
    assert actions.count(Action.REOPENED) == 4
    assert actions.count(Action.FLAPPING_STARTED) == actions.count(Action.FLAPPING_STOPPED) == 1
    assert told == ["raised", "reopened", "reopened", "flapping_started", "flapping_stopped"]


def _message(draft: object) -> dict:  # type: ignore[type-arg]
    return json.loads(draft.data)  # type: ignore[attr-defined]


def _is_told(message: dict) -> bool:  # type: ignore[type-arg]
    return message["type"] != "alert_update"


def test_a_recording_that_is_replayed_does_not_flap(alert_engine: AlertEngine, store: AlertStore) -> None:
    """It runs faster than life; the demo's problems come and go within seconds."""
    for number in range(20):
        change = Change.RAISE if number % 2 == 0 else Change.CLEAR
        alert_engine.raise_detector_alerts([decision(change, number, ts=START_S + number)])

    assert not store.list(AlertQuery()).items[0].is_suppressed


def test_a_later_occurrence_of_a_flapping_problem_is_suppressed_from_its_start(
    alert_engine: AlertEngine, store: AlertStore, clock: FakeClock
) -> None:
    """Closing it does not make it steady."""
    for number in range(6):
        change = Change.RAISE if number % 2 == 0 else Change.CLEAR
        alert_engine.raise_detector_alerts([decision(change, number, ts=START_S + number, recorded_at=None)])
    (first,) = store.list(AlertQuery()).items
    store.act([first.id], "close", "ann", "request-1")
    alert_engine.raise_detector_alerts([decision(Change.RAISE, 9, ts=START_S + 9, recorded_at=None)])
    second = store.list(AlertQuery()).items[0]

    assert (first.is_flapping, second.occurrence, second.is_flapping) == (True, 2, True)
