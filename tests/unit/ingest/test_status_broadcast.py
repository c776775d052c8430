"""The NOC hears when ingest stops acknowledging and when it goes on, each once."""

import json

from fakes_realtime import ScriptedTransport

from ingest.ingest_service import IngestStatus
from ingest.status_broadcast import StatusBroadcast
from realtime.broadcaster import Broadcaster
from realtime.settings import BroadcastSettings


def status(**blocked: str) -> IngestStatus:
    return IngestStatus(
        rate=0.0,
        window=0,
        lag_s=0.0,
        readings_total=0,
        alerts_total=0,
        dead_letters=0,
        duplicates_total=0,
        devices_online=0,
        broker_connected=True,
        broker="mqtt://127.0.0.1:1883",
        mqtt_version="3.1.1",
        broker_problem=None,
        blocked=blocked,
    )


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    """The status itself goes out with every tick, latest only."""
    transport = ScriptedTransport()
    broadcaster = Broadcaster(BroadcastSettings(), lambda: transport)
    told = StatusBroadcast(broadcaster)
    for tick in (status(), status(alert="SQL is away"), status(alert="SQL is away"), status(), status()):
        told.on_tick(tick)
        assert broadcaster.flush(5.0)
    broadcaster.close()
    messages = [(draft.channel, json.loads(draft.data)) for draft in transport.sent]
    alerts = [(channel, one["priority"], one["data"]) for channel, one in messages if one["type"] == "system_alert"]

    assert alerts == [
        (
            "noc:all",
            "high",
            {"component": "ingest", "message": "ingest stopped acknowledging", "blocked": {"alert": "SQL is away"}},
        ),
        ("noc:all", "normal", {"component": "ingest", "message": "ingest goes on", "blocked": {}}),
    ]
    assert [one["type"] for _, one in messages].count("ingest_status") == 5
