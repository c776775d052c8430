"""A task that stores a device's alert and then tells the NOC, the supervisor and the tenant.

    eval "$(watchfloor env)"
    python examples/device_alert.py

The floor does the same by itself for alerts that arrive over MQTT. The alert is stored
before anyone hears of it, and each message carries a key: should this process die before
it has told everybody, the floor's relay does it, and nobody hears of it twice.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from cluster.clock import SystemClock
from cluster.settings import Settings
from cluster.store import open_engine
from cluster.task import task
from ingest.alerts.engine import AlertEngine
from ingest.alerts.store import AlertStore
from ingest.decoder import ClockTolerance, Decoder
from ingest.topics import TopicTree
from realtime import get_broadcaster
from training.runs.driver import connect_ray


@task(lane="general")
def process_device_alert(topic: str, data: Mapping[str, Any]) -> list[str]:
    """Store the alert, tell everybody it concerns, and return the events written."""
    settings = Settings.load()
    engine = open_engine(settings.database_url)
    parsed = TopicTree(settings.topic_root).parse(topic)
    if parsed is None:
        raise ValueError(f"{topic!r} is no topic of this floor")
    alert = Decoder(ClockTolerance()).alert(parsed, json.dumps(data).encode(), time.time())
    events = AlertEngine(engine, SystemClock()).raise_device_alerts([alert])
    for event in events:
        stored = AlertStore(engine, SystemClock()).get(event.alert_id).alert
        audience = {"noc:all": "critical_alert", f"tenant:{stored.tenant}": "tenant_alert"}
        if stored.client_id:
            audience[f"noc:client-{stored.client_id}"] = "critical_alert"
        if stored.supervisor_id:
            audience[f"user:{stored.supervisor_id}"] = "supervisor_alert"
        message = {"event_id": event.event_id, "alert_id": stored.id, "source_id": stored.device_id, **data}
        for channel, kind in audience.items():
            key = f"{event.event_id}:{channel}"
            get_broadcaster().publish(channel, kind, message, priority="critical", key=key)
    return [event.event_id for event in events]


if __name__ == "__main__":
    connect_ray()
    payload = {"alert_type": "door_forced", "severity": "critical", "message": "Door forced", "ts": time.time() * 1000}
    print(process_device_alert.submit("wf/demo/door-1/alert", payload).result(timeout_s=60))
