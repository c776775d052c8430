"""What the channels hear of a run."""

import json
from typing import Any

import pytest
from fakes_realtime import ScriptedTransport

from realtime.broadcaster import Broadcaster
from realtime.run_listener import RunListener
from realtime.settings import BroadcastSettings


def messages_of(run: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    transport = ScriptedTransport()
    broadcaster = Broadcaster(BroadcastSettings(), lambda: transport)
    RunListener(broadcaster).on_change(run)
    broadcaster.close()
    messages = [(draft.channel, json.loads(draft.data)) for draft in transport.sent]
    return [(channel, message["type"], message["data"]) for channel, message in messages]


def run_in(state: str, **fields: Any) -> dict[str, Any]:
    run = {"id": "r1", "task": "train_model", "model_type": "anomaly_detector", "user_id": "ada", "state": state}
    return run | {"progress": 40.0, "version": 3, "reason": None} | fields


def test_each_change_reaches_the_noc_the_run_and_its_user() -> None:
    """With the run's row."""
    run = run_in("running")

    assert messages_of(run) == [(channel, "run_update", run) for channel in ("noc:all", "run:r1", "user:ada")]


@pytest.mark.parametrize("state", ["failed", "cancelled", "timed_out"])
def test_a_run_that_ends_without_success_ends_its_bar(state: str) -> None:
    """With state and reason, on the bar that the driver moved."""
    bars = [message for message in messages_of(run_in(state, reason="worker died")) if message[1] == "task_progress"]
    data = {
        "task_name": "train anomaly_detector",
        "progress": 40.0,
        "message": "worker died",
        "run_id": "r1",
        "state": state,
        "reason": "worker died",
    }

    assert sorted(bars) == [("run:r1", "task_progress", data), ("user:ada", "task_progress", data)]


def test_a_run_without_a_user_is_told_to_those_who_watch_it() -> None:
    """An empty user id is nobody."""
    assert [channel for channel, *_ in messages_of(run_in("succeeded", user_id=""))] == ["noc:all", "run:r1"]
