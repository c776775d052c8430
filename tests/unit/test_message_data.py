"""Golden list of the fields in each message's ``data``, as their real producers send them; changed knowingly only."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes_alerts import START_S, FakeHub, a_silence, decision, device_alert
from fakes_alerts import FakeClock as AlertClock
from fakes_commands import make_order
from fakes_realtime import ScriptedTransport
from sqlalchemy import insert

from cluster.lanes import LANES, get_route
from cluster.run_life import ended, new_run
from cluster.runs import RunOrigin, RunState, run_to_json
from cluster.store import metadata, open_engine, write_transaction
from ingest.alerts.engine import AlertEngine
from ingest.alerts.relay import Relay
from ingest.alerts.silence_relay import SilenceRelay
from ingest.alerts.silence_store import SilenceStore
from ingest.alerts.store import AlertStore
from ingest.command_relay import CommandRelay
from ingest.command_store import CommandStore
from ingest.directory import devices
from ingest.episode import Change
from ingest.ingest_status import IngestStatus
from ingest.model_trial import TrialState
from ingest.status_broadcast import StatusBroadcast
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType
from realtime.run_listener import RunListener
from realtime.settings import BroadcastSettings
from training.registry.manifest import Manifest
from training.runs.completion import Offer, Sample, announce
from training.runs.order import TrainingOrder

ANNOUNCED = "action actor alert alert_id alert_type at event_id message severity source_id timestamp"
MODEL = "dataset_id model_id model_type run_id version"

FIELDS = {
    "alert_notification": ANNOUNCED,
    "task_complete": f"{MODEL} result task_name",
    "system_alert": "blocked component message",
    "ml_prediction": f"{MODEL} actual forecast prediction series",
    "task_progress": "message progress reason run_id state task_name",
    "critical_alert": ANNOUNCED,
    "supervisor_alert": ANNOUNCED,
    "tenant_alert": ANNOUNCED,
    "ml_training_complete": f"{MODEL} accuracy accuracy_kind metrics",
    "alert_update": "action actor alert alert_id at event_id",
    "alerts_changed": "action actor at changes count is_announced reason request_id",
    "silence_update": "silence",
    "run_update": (
        "arguments created_at dataset_id ended_at hard_limit_s id lane message model_type origin priority progress "
        "reason request_id resources result soft_limit_s started_at state stopping submission_id task tenant user_id "
        "version waits_for"
    ),
    "ingest_status": (
        "alerts_total blocked broker broker_connected broker_problem dead_letters devices_online duplicates_total "
        "lag_s mqtt_version rate readings_total stores window"
    ),
    "model_update": f"{MODEL} alias decision metrics reason revision",
    "command_update": "command command_id event",
}
ALERT = (
    "ack_expires_at acked_at acked_by cleared_at client_id closed_at closed_by condition count device_id escalated_to "
    "escalation_level fingerprint handling id labels last_seen_at metric occurrence recorded_at severity site source "
    "starts_at suppressed_by tenant text title value verdict verdict_by version"
)
COMMAND = (
    "answer answered_at attempts created_at delivered_at detail device ended_at expires_at id request_id sent_at state "
    "tenant user_id version"
)
EVENT = "actor at detail id late seq state"
SOURCE = "kind model model_version rule score threshold"


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Message type -> the ``data`` of every message that the producers sent."""
    transport = ScriptedTransport()
    broadcaster = Broadcaster(BroadcastSettings(), lambda: transport)
    a_run_fails(broadcaster)
    a_training_ends(broadcaster)
    ingest_stops(broadcaster)
    broadcaster.close()
    found: dict[str, list[dict[str, Any]]] = {}
    alerts = alerts_happen(tmp_path_factory.mktemp("alerts"))
    commands = a_command_is_given(tmp_path_factory.mktemp("commands"))
    for draft in [*transport.sent, *alerts.published.values(), *commands.published.values()]:
        message = json.loads(draft.data)
        found.setdefault(message["type"], []).append(message["data"])
    return found


def a_run_fails(broadcaster: Broadcaster) -> None:
    route = get_route("train_model")
    request = TrainingOrder(dataset_id="telemetry", user_id="ada").to_request()
    run = new_run("01RUN", "01RUN", RunOrigin.API, request, route, LANES[route.lane], 0.0)
    RunListener(broadcaster).on_change(run_to_json(ended(run, 1.0, RunState.FAILED, "worker died")))


def a_training_ends(broadcaster: Broadcaster) -> None:
    manifest = Manifest(
        model_type="anomaly_detector",
        version="v1",
        files={},
        config={},
        dataset={"name": "recorded:nyc_taxi"},
        metrics={"accuracy": 0.9},
        settings={},
        seed=0,
        run_id="01RUN",
        user_id="ada",
        created_at="2026-01-01T00:00:00Z",
        libraries={},
    )
    sample = Sample(series="recorded/nyc_taxi/value", forecast=1.0, actual=2.0)
    announce(broadcaster, manifest, sample, Offer(TrialState.PROMOTED, "trained", 1))


def ingest_stops(broadcaster: Broadcaster) -> None:
    status = IngestStatus(
        rate=1.0,
        window=0,
        lag_s=0.0,
        readings_total=1,
        alerts_total=0,
        dead_letters=0,
        duplicates_total=0,
        devices_online=1,
        broker_connected=True,
        broker="mqtt://127.0.0.1:1883",
        mqtt_version="3.1.1",
        broker_problem=None,
        blocked={"alert": "the store is away"},
    )
    StatusBroadcast(broadcaster).on_tick(status)


def alerts_happen(folder: Path) -> FakeHub:
    """A device's alert, a critical one, a detector's, and what a person did."""
    engine = open_engine(f"sqlite:///{folder}/floor.db")
    metadata.create_all(engine)
    owner = {"client_id": "7", "site": "Hall 3", "supervisor_id": "ann", "known": True}
    with write_transaction(engine) as connection:
        connection.execute(insert(devices).values(tenant="demo", device="door-1", **owner))
    clock, hub = AlertClock(), FakeHub()
    alerts = AlertEngine(engine, clock)
    alerts.raise_device_alerts([device_alert(1), device_alert(2, alert_type="fire", severity="critical")])
    (ref,) = alerts.raise_detector_alerts([decision(Change.RAISE, 1, ts=START_S)])
    AlertStore(engine, clock).act([ref.alert_id], "acknowledge", "ann", "r1")
    many = alerts.raise_device_alerts([device_alert(n, device=f"door-{n}") for n in range(10, 20)])
    AlertStore(engine, clock).act([one.alert_id for one in many], "acknowledge", "ann", "r2")
    SilenceStore(engine, clock).create(a_silence())
    Relay(engine, hub, clock).publish_pending()
    SilenceRelay(engine, hub, clock).publish_pending()
    return hub


def a_command_is_given(folder: Path) -> FakeHub:
    engine = open_engine(f"sqlite:///{folder}/floor.db")
    metadata.create_all(engine)
    clock, hub = AlertClock(), FakeHub()
    store = CommandStore(engine, clock)
    store.create(make_order())
    CommandRelay(store, hub, clock).turn()
    return hub


@pytest.mark.parametrize("message_type", [str(kind) for kind in MessageType])
def test_the_fields_of_each_type_are_the_agreed_ones(sent: dict[str, list[dict[str, Any]]], message_type: str) -> None:
    """Every type has a producer here; a renamed, new or missing field is a change of the protocol."""
    assert {tuple(sorted(data)) for data in sent[message_type]} == {tuple(sorted(FIELDS[message_type].split()))}


@pytest.mark.parametrize(
    "message_type", ["alert_notification", "critical_alert", "supervisor_alert", "tenant_alert", "alert_update"]
)
def test_the_alert_in_a_message_has_the_agreed_fields(sent: dict[str, list[dict[str, Any]]], message_type: str) -> None:
    """All axes, owners and times; the same as over HTTP."""
    for data in sent[message_type]:
        assert sorted(data["alert"]) == ALERT.split()
        assert sorted(data["alert"]["source"]) == SOURCE.split()


def test_the_command_in_a_message_has_the_agreed_fields(sent: dict[str, list[dict[str, Any]]]) -> None:
    """Without its payload, which not everybody who listens to the device may see."""
    for data in sent["command_update"]:
        assert sorted(data["command"]) == COMMAND.split()
        assert sorted(data["event"]) == EVENT.split()
