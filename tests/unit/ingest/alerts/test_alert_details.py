"""What a device says of an alert in its own words reaches the history and the dashboards as it was said."""

import json

import orjson

from ingest.alerts.engine import AlertEngine
from ingest.alerts.relay import Relay
from ingest.alerts.store import AlertStore
from ingest.decoder import ClockTolerance, Decoder
from ingest.topics import Topic, TopicClass
from tests.fakes_alerts import FakeHub, device_alert

DETAILS = {"t": 17, "seq": 3, "probe": {"name": 'rack "7"', "samples": [1.5, None, "x", {"a": True}]}}


def test_details_are_taken_as_they_are() -> None:
    """Quotes, lists and objects within them do not make the payload look as if a key came twice."""
    payload = {"alert_type": "leak", "severity": "high", "message": "Water", "labels": {"a": "b"}, "details": DETAILS}
    topic = Topic(TopicClass.ALERT, "acme", "pump-7")

    assert Decoder(ClockTolerance()).alert(topic, orjson.dumps(payload), 0.0).details == DETAILS


def test_details_are_kept_with_each_event_and_told(
    alert_engine: AlertEngine, store: AlertStore, relay: Relay, hub: FakeHub
) -> None:
    """A repetition has its own; an alert without has none."""
    first = alert_engine.raise_device_alerts([device_alert(1, details=DETAILS)])[0]
    alert_engine.raise_device_alerts([device_alert(2, details={"t": 18}), device_alert(3)])
    relay.publish_pending()

    told = [json.loads(draft.data)["data"].get("details") for draft in hub.on("noc:all")]
    assert told == [DETAILS, {"t": 18}, None]
    assert [event.data.get("details") for event in store.get(first.alert_id).events] == told
