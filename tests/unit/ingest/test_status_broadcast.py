"""The NOC hears when ingest stops acknowledging and when it goes on, each once."""

import json
from typing import Any

from fakes_realtime import ScriptedTransport

from ingest.ingest_status import IngestStatus
from ingest.status_broadcast import StatusBroadcast
from ingest.store_bounds import StoreBound, StoreName, StoreReport, StoreUsage, report
from realtime.broadcaster import Broadcaster
from realtime.settings import BroadcastSettings


def status(stores: dict[str, StoreReport] | None = None, **blocked: str) -> IngestStatus:
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
        stores=stores or {},
    )


def told(*ticks: IngestStatus) -> list[tuple[str, Any]]:
    """What goes out, as (channel, message)."""
    transport = ScriptedTransport()
    broadcaster = Broadcaster(BroadcastSettings(), lambda: transport)
    telling = StatusBroadcast(broadcaster)
    for tick in ticks:
        telling.on_tick(tick)
        assert broadcaster.flush(5.0)
    broadcaster.close()
    return [(draft.channel, json.loads(draft.data)) for draft in transport.sent]


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    """The status itself goes out with every tick, latest only."""
    messages = told(status(), status(alert="SQL is away"), status(alert="SQL is away"), status(), status())
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


def test_a_store_is_told_once_at_each_level() -> None:
    """Before its bound, at it, and when there is room again."""
    bound = StoreBound(limit_bytes=1000, near_bytes=800)

    def holding(size_bytes: int) -> IngestStatus:
        return status({"dead_letters": report(StoreName.DEAD_LETTERS, StoreUsage(size_bytes), bound, now=0.0)})

    messages = told(*map(holding, (10, 850, 860, 1000, 10)))
    alerts = [(one["priority"], one["data"]) for _, one in messages if one["type"] == "system_alert"]

    assert [(priority, data["message"]) for priority, data in alerts] == [
        ("high", "dead_letters holds 850 B, 85% of its bound of 1000 B"),
        ("high", "dead_letters holds 1000 B, 100% of its bound of 1000 B"),
        ("normal", "store dead_letters has room again"),
    ]
