"""Every committed event reaches its audiences, once, whatever dies in between."""

import json
import time
from dataclasses import replace

import pytest
from sqlalchemy import Engine, insert, select, update

from cluster.ids import new_id
from cluster.store import write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.messages import batch_drafts
from ingest.alerts.model import Action, AlertEvent
from ingest.alerts.relay import Relay
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.alerts.tables import alert_events, alerts
from ingest.directory import devices
from ingest.episode import Change
from realtime.errors import HubUnavailableError
from realtime.publication import Priority
from tests.fakes_alerts import AN_ALERT, FakeClock, FakeHub, decision, device_alert


@pytest.fixture
def _owned(sql: Engine) -> None:
    owner = {"client_id": "7", "site": "Hall 3", "supervisor_id": "ann", "known": True}
    with write_transaction(sql) as connection:
        connection.execute(insert(devices).values(tenant="demo", device="door-1", **owner))


def pending(sql: Engine) -> int:
    with sql.connect() as connection:
        return len(connection.execute(select(alert_events.c.id).where(alert_events.c.broadcast_at.is_(None))).all())


@pytest.mark.usefixtures("_owned")
def test_a_new_alert_reaches_noc_client_supervisor_and_tenant(
    alert_engine: AlertEngine, relay: Relay, hub: FakeHub, sql: Engine
) -> None:
    """The seed's fan-out, with the seed's types and fields."""
    ref = alert_engine.raise_device_alerts([device_alert(1, severity="critical")])[0]

    assert relay.publish_pending() == 1

    types = {channel: json.loads(draft.data)["type"] for (channel, _), draft in hub.published.items()}
    assert types == {
        "noc:all": "critical_alert",
        "noc:client-7": "critical_alert",
        "user:ann": "supervisor_alert",
        "tenant:demo": "tenant_alert",
    }
    draft = hub.on("noc:all")[0]
    message = json.loads(draft.data)
    assert (draft.priority, message["priority"]) == (Priority.CRITICAL, "critical")
    assert f"{ref.event_id}:noc:all" == draft.key
    data = message["data"]
    assert ("raised", ref.event_id, ref.alert_id) == (data["action"], data["event_id"], data["alert_id"])
    assert (data["source_id"], data["alert_type"], data["severity"]) == ("door-1", "door_forced", "critical")
    assert (data["alert"]["condition"], data["alert"]["site"]) == ("firing", "Hall 3")
    assert pending(sql) == 0
    assert relay.publish_pending() == 0


@pytest.mark.parametrize(
    ("severity", "message_type", "priority"),
    [
        pytest.param("critical", "critical_alert", "critical", id="critical"),
        pytest.param("high", "alert_notification", "high", id="high"),
        pytest.param("warning", "alert_notification", "normal", id="warning"),
    ],
)
def test_the_severity_decides_type_and_priority(
    alert_engine: AlertEngine, relay: Relay, hub: FakeHub, severity: str, message_type: str, priority: str
) -> None:
    """Only a critical alert is a critical_alert."""
    alert_engine.raise_device_alerts([device_alert(1, severity=severity)])
    relay.publish_pending()

    message = json.loads(hub.on("noc:all")[0].data)
    assert (message_type, priority) == (message["type"], message["priority"])


def test_other_events_are_updates(alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub) -> None:
    """Acknowledgements and clears keep dashboards up to date without calling anybody."""
    ref = alert_engine.raise_detector_alerts([decision(Change.RAISE, 1)])[0]
    relay.publish_pending()
    store.act([ref.alert_id], "acknowledge", "ann", "r1")
    alert_engine.raise_detector_alerts([decision(Change.CLEAR, 2)])
    relay.publish_pending()

    messages = [json.loads(draft.data) for draft in hub.on("noc:all")]
    assert [message["type"] for message in messages] == ["alert_notification", "alert_update", "alert_update"]
    assert [message["data"]["action"] for message in messages] == ["raised", "acknowledged", "cleared"]
    assert len(hub.on("tenant:demo")) == 3


def test_a_crash_between_commit_and_publish_loses_nothing(
    sql: Engine, alert_engine: AlertEngine, hub: FakeHub, clock: FakeClock
) -> None:
    """Fifty times: the process dies after the commit, or after the publish and before its mark."""
    for number in range(50):
        alert_engine.raise_device_alerts([device_alert(number, device=f"door-{number}")])
        hub.confirms = number % 2 == 0
        if number % 3:
            dying = Relay(sql, hub, clock)
            try:
                dying.publish_pending()
            except HubUnavailableError:
                assert not hub.confirms
    hub.confirms = True
    Relay(sql, hub, clock).publish_pending()

    event_ids = [json.loads(draft.data)["data"]["event_id"] for draft in hub.on("noc:all")]
    assert 50 == len(event_ids) == len(set(event_ids))
    assert len(hub.on("tenant:demo")) == 50
    assert pending(sql) == 0


def test_events_wait_while_the_hub_is_away(alert_engine: AlertEngine, relay: Relay, hub: FakeHub, sql: Engine) -> None:
    """Nothing is marked that was not confirmed."""
    alert_engine.raise_device_alerts([device_alert(1)])
    hub.fail_next = 1

    with pytest.raises(HubUnavailableError):
        relay.publish_pending()
    assert pending(sql) == 1
    assert relay.publish_pending() == 1


def test_a_sweep_leaves_young_events_to_their_process(
    alert_engine: AlertEngine, relay: Relay, clock: FakeClock
) -> None:
    """Every process sweeps; without the grace each of them would publish every event."""
    alert_engine.raise_device_alerts([device_alert(1)])

    assert relay.publish_pending(min_age_s=1.0) == 0
    clock.advance(1.5)
    assert relay.publish_pending(min_age_s=1.0) == 1


def test_a_supervisor_that_no_channel_can_name_hides_nothing(
    sql: Engine, alert_engine: AlertEngine, relay: Relay, hub: FakeHub
) -> None:
    """The other audiences still hear of the alert."""
    with write_transaction(sql) as connection:
        connection.execute(insert(devices).values(tenant="demo", device="door-1", supervisor_id="Ann Lee!", known=True))
    alert_engine.raise_device_alerts([device_alert(1)])
    relay.publish_pending()

    assert {"noc:all", "tenant:demo"} == {channel for channel, _ in hub.published}


def test_an_event_that_cannot_be_told_does_not_block_the_others(
    sql: Engine, alert_engine: AlertEngine, relay: Relay, hub: FakeHub
) -> None:
    """It is logged, marked and left behind."""
    alert_engine.raise_device_alerts([device_alert(1), device_alert(2, device="door-2")])
    with write_transaction(sql) as connection:
        huge = {"blob": "x" * 70_000}
        connection.execute(update(alerts).where(alerts.c.device_id == "door-1").values(labels=huge))

    assert relay.publish_pending() == 2
    assert [json.loads(draft.data)["data"]["source_id"] for draft in hub.on("noc:all")] == ["door-2"]


def test_the_thread_publishes_what_was_committed_and_ends(
    alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub, sql: Engine
) -> None:
    """Woken after a commit; an outage of the hub in between does not end it."""
    hub.fail_next = 1
    relay.start()
    alert_engine.raise_device_alerts([device_alert(1)])
    relay.wake()
    deadline = time.monotonic() + 10
    while pending(sql) and time.monotonic() < deadline:
        relay.wake()
        time.sleep(0.01)
    relay.close()

    assert store.list(AlertQuery()).items[0].id == json.loads(hub.on("noc:all")[0].data)["data"]["alert_id"]
    assert pending(sql) == 0


def test_one_action_on_many_alerts_is_one_message_for_each_audience(
    alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub
) -> None:
    """It names all of them, what they are now and at which version; a lost confirmation repeats nothing."""
    many = [device_alert(number, device=f"door-{number}") for number in range(60)]
    ids = [ref.alert_id for ref in alert_engine.raise_device_alerts(many)]
    store.act(ids[:30], "note", "ann", "request-0", note="first")
    while relay.publish_pending():
        pass
    hub.published.clear()
    store.act(ids, "acknowledge", "ann", "request-1", ack_s=0)
    hub.confirms = False
    with pytest.raises(HubUnavailableError):
        relay.publish_pending()
    hub.confirms = True
    while relay.publish_pending():
        pass

    (draft,) = hub.on("noc:all")
    assert len(hub.on("tenant:demo")) == 1
    message = json.loads(draft.data)
    changes = {change["version"]: change for change in message["data"]["changes"]}
    assert (message["type"], message["data"]["action"], message["data"]["count"]) == (
        "alerts_changed",
        "acknowledged",
        60,
    )
    assert changes[2]["ids"] == "".join(one[-10:] for one in ids[30:])
    assert changes[3]["ids"] == "".join(one[-10:] for one in ids[:30])
    assert changes[2]["set"] | {"acked_at": None} == {
        "handling": "acked", "acked_by": "ann", "acked_at": None, "ack_expires_at": None, "closed_by": None,
        "closed_at": None, "verdict": None, "verdict_by": None, "suppressed_by": [], "escalation_level": 0,
        "escalated_to": None,
    }  # fmt: skip


def test_five_thousand_alerts_fit_into_one_message() -> None:
    """Also with ten versions among them."""
    alerts = [replace(AN_ALERT, id=new_id(), version=number % 10) for number in range(5000)]
    event = AlertEvent(
        id=new_id(), alert_id="A", seq=2, at=0.0, actor="ann", action=Action.ACKNOWLEDGED, from_=None, to="firing/acked"
    )
    drafts = batch_drafts([(event, alert) for alert in alerts], FakeClock())

    assert sorted(draft.channel for draft in drafts) == ["noc:all", "tenant:demo"]
