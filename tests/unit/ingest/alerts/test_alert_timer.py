"""What time does to alerts: each at its time, once, whoever looks."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, insert

from cluster.store import write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.heartbeats import Heartbeat, HeartbeatStore
from ingest.alerts.model import Action, Alert, Condition, Handling, Severity, SourceKind
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.silence import Matcher
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.timer import AlertTimer
from ingest.directory import DeviceDirectory, devices
from ingest.episode import Change
from tests.fakes_alerts import START_S, FakeClock, FakeHub, a_silence, decision, device_alert

Step = Callable[[float], int]


@pytest.fixture
def step(sql: Engine, clock: FakeClock) -> Step:
    """Let so many seconds pass, and two timers look."""
    settings = AlertSettings(escalation=("critical:300:supervisor", "critical:900:group:heads"))
    timers = [AlertTimer(sql, settings, lambda: None, clock) for _ in range(2)]

    def passes(seconds: float) -> int:
        clock.advance(seconds)
        return sum(timer.step(clock.time_s()) for timer in timers)

    return passes


def actions_of(store: AlertStore, alert_id: str) -> list[str]:
    return [event.action.value for event in store.get(alert_id).events]


def raise_one(alert_engine: AlertEngine, **changes: object) -> str:
    (ref,) = alert_engine.raise_device_alerts([device_alert(1, **changes)])  # type: ignore[arg-type]
    return ref.alert_id


def test_an_acknowledgement_ends_and_the_alert_waits_again(
    alert_engine: AlertEngine, store: AlertStore, step: Step
) -> None:
    """After the hour that was asked for, not before, and with the name of who had it."""
    alert_id = raise_one(alert_engine)
    store.act([alert_id], "acknowledge", "ann", "request-1", ack_s=3600)

    assert step(3599) == 0
    assert step(1) == 1
    alert = store.get(alert_id).alert
    assert (alert.handling, alert.acked_by, alert.waiting_since) == (Handling.NEW, None, START_S + 3600)
    last = store.get(alert_id).events[-1]
    assert (last.action, last.actor) == (Action.ACK_EXPIRED, "watchfloor")
    assert "ann" in (last.reason or "")


def test_an_acknowledgement_without_end_and_one_of_a_cleared_alert_stay(
    alert_engine: AlertEngine, store: AlertStore, step: Step
) -> None:
    """Nobody is called for what is gone."""
    endless = raise_one(alert_engine)
    (ref,) = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])
    store.act([endless], "acknowledge", "ann", "request-1", ack_s=0)
    store.act([ref.alert_id], "acknowledge", "ann", "request-2", ack_s=60)
    alert_engine.raise_detector_alerts([decision(Change.CLEAR, 2, ts=START_S + 5)])

    assert step(7200) == 0
    assert store.get(endless).alert.handling is Handling.ACKED


def test_a_longer_acknowledgement_takes_over(alert_engine: AlertEngine, store: AlertStore, step: Step) -> None:
    """Without a duration an acknowledged alert stays whose it is."""
    alert_id = raise_one(alert_engine)
    store.act([alert_id], "acknowledge", "ann", "request-1", ack_s=60)
    store.act([alert_id], "acknowledge", "bob", "request-2")
    unchanged = store.get(alert_id).alert
    store.act([alert_id], "acknowledge", "bob", "request-3", ack_s=600)

    assert (unchanged.acked_by, unchanged.version) == ("ann", 2)
    assert step(61) == 0
    assert store.get(alert_id).alert.acked_by == "bob"


def test_escalation_goes_through_its_levels_once_each(
    sql: Engine, alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub, step: Step
) -> None:
    """The supervisor after five minutes, the heads after fifteen, nobody twice."""
    owner = {"client_id": "7", "site": "Hall 3", "supervisor_id": "sue", "known": True}
    with write_transaction(sql) as connection:
        connection.execute(insert(devices).values(tenant="demo", device="door-1", **owner))
    alert_id = raise_one(alert_engine, severity="critical")
    relay.publish_pending()
    hub.published.clear()
    steps = [step(299), step(1)]
    relay.publish_pending()
    steps += [step(300), step(300), step(10_000)]
    relay.publish_pending()

    assert steps == [0, 1, 0, 1, 0]
    to_sue, to_heads = hub.on("user:sue"), hub.on("group:heads")
    assert [json.loads(one.data)["type"] for one in to_sue + to_heads] == ["supervisor_alert"] * 2
    assert json.loads(to_sue[0].data)["data"]["alert"]["escalated_to"] == "user:sue"
    assert [json.loads(one.data)["type"] for one in hub.on("noc:all")] == ["alert_update"] * 2
    assert store.get(alert_id).alert.escalation_level == 2


def test_what_is_taken_cleared_silenced_or_mild_is_not_escalated(
    sql: Engine, alert_engine: AlertEngine, store: AlertStore, step: Step, clock: FakeClock
) -> None:
    """And an acknowledgement that is taken back begins anew."""
    SilenceStore(sql, clock).create(a_silence(Matcher("device", ("door-3",)), lasts_s=86_400))
    taken = raise_one(alert_engine, severity="critical")
    raise_one(alert_engine, severity="warning", device="door-2")
    raise_one(alert_engine, severity="critical", device="door-3")
    store.act([taken], "acknowledge", "ann", "request-1")

    assert step(2000) == 0
    store.act([taken], "unacknowledge", "ann", "request-2")
    assert step(299) == 0
    assert step(1) == 1
    event = store.get(taken).events[-1]
    assert (event.action, event.data) == (Action.ESCALATED_TO, {"level": 1, "to": None})


def test_acknowledged_and_cleared_is_closed_after_a_day(
    alert_engine: AlertEngine, store: AlertStore, step: Step
) -> None:
    """One that nobody took stays for somebody to see."""
    (taken,) = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])
    store.act([taken.alert_id], "acknowledge", "ann", "request-1")
    alert_engine.raise_detector_alerts([decision(Change.CLEAR, 2, ts=START_S + 5)])

    assert step(86_000) == 0
    assert step(500) == 1
    assert store.get(taken.alert_id).alert.closed_by == "watchfloor"


def a_heartbeat(**changes: object) -> Heartbeat:
    values: dict[str, object] = {
        "tenant": "demo",
        "name": "backup",
        "timeout_s": 60.0,
        "severity": Severity.HIGH,
        "text": "the nightly copy",
        "created_by": "ann",
        "created_at": START_S,
    }
    return Heartbeat(**(values | changes))  # type: ignore[arg-type]


def the_alert(store: AlertStore) -> Alert:
    (alert,) = store.list(AlertQuery(source=SourceKind.HEARTBEAT)).items
    return alert


def test_a_missing_beat_is_an_alert_until_the_next_one(
    sql: Engine, store: AlertStore, step: Step, clock: FakeClock
) -> None:
    """Raised once though two timers look, cleared by the next beat."""
    hearts = HeartbeatStore(sql, clock)
    hearts.put(a_heartbeat())
    assert step(60) == 0
    hearts.beat("demo", "backup")
    assert step(60) == 0
    assert step(1) == 1
    raised = the_alert(store)
    hearts.beat("demo", "backup")
    assert step(1) == 1

    assert (raised.condition, raised.rule, raised.severity) == (Condition.FIRING, "heartbeat", Severity.HIGH)
    assert "the nightly copy" in raised.text
    assert the_alert(store).condition is Condition.CLEARED
    assert not hearts.get("demo", "backup").is_missing


def test_a_devices_messages_are_its_beats(sql: Engine, store: AlertStore, step: Step, clock: FakeClock) -> None:
    """What the directory knows; a call is refused."""
    hearts = HeartbeatStore(sql, clock)
    hearts.put(a_heartbeat(name="pump", device_id="pump-1"))
    with pytest.raises(ValueError, match="pump-1"):
        hearts.beat("demo", "pump")
    DeviceDirectory(sql).saw({("demo", "pump-1"): START_S + 50})

    assert step(100) == 0
    assert step(11) == 1
    assert the_alert(store).device_id == "pump-1"
    AlertEngine(sql, clock).mark_stale("demo", "pump-1", "the link is down")
    assert the_alert(store).condition is Condition.FIRING


def test_a_promise_taken_back_clears_its_alert(
    sql: Engine, alert_engine: AlertEngine, store: AlertStore, step: Step, clock: FakeClock
) -> None:
    """What nobody promises cannot be missing."""
    hearts = HeartbeatStore(sql, clock)
    hearts.put(a_heartbeat())
    step(61)
    hearts.remove(alert_engine, "demo", "backup")

    assert the_alert(store).condition is Condition.CLEARED
    assert hearts.list() == []


@pytest.mark.parametrize(
    "text", ["critical", "critical:soon:supervisor", "bad:5:supervisor", "low:5:nobody", "low:0:supervisor"]
)
def test_a_policy_that_cannot_be_read_is_refused(text: str) -> None:
    """At the start, with the step in the text."""
    with pytest.raises(ValueError, match="escalation step"):
        AlertSettings(escalation=(text,))


def test_an_alert_that_everybody_forgot_is_closed_in_the_end(
    alert_engine: AlertEngine, store: AlertStore, step: Step
) -> None:
    """Acknowledged or not, once nothing was reported for so long; what a source still holds stays."""
    forgotten, had = (
        alert_engine.raise_device_alerts([device_alert(seq, alert_type=kind)])[0].alert_id
        for seq, kind in enumerate(("door", "fire"), start=1)
    )
    store.act([had], "acknowledge", "ann", "request-1", ack_s=0)
    (held,) = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])
    ten_years_s = 10 * 365 * 86_400.0
    step(86_400)
    assert {store.get(one).alert.handling for one in (forgotten, had)} == {Handling.NEW, Handling.ACKED}
    step(ten_years_s)

    for alert_id in (forgotten, had):
        alert = store.get(alert_id).alert
        assert (alert.handling, alert.closed_by, alert.condition) == (Handling.CLOSED, "watchfloor", Condition.FIRING)
        assert "90 days" in (store.get(alert_id).events[-1].reason or "")
    assert store.get(held.alert_id).alert.handling is Handling.NEW
    alert_engine.mark_stale("demo", store.get(held.alert_id).alert.device_id, "gone")
    step(1)
    assert store.get(held.alert_id).alert.handling is Handling.CLOSED


def test_forgotten_alerts_may_stay_for_ever(sql: Engine, alert_engine: AlertEngine, clock: FakeClock) -> None:
    """By setting; nothing is closed then."""
    raise_one(alert_engine)
    clock.advance(10 * 365 * 86_400.0)
    settings = AlertSettings(close_forgotten_s=0, escalation=())

    assert AlertTimer(sql, settings, lambda: None, clock).step(clock.time_s()) == 0
