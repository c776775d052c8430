"""Golden list of message types and of the bytes of a message; changed knowingly only."""

import json
import uuid

import numpy as np
import pytest
from fakes_cluster import FakeClock

from realtime.errors import InvalidMessageError
from realtime.messages import MessageType, encode

SEED_TYPES = [
    "alert_notification",
    "task_complete",
    "system_alert",
    "ml_prediction",
    "task_progress",
    "critical_alert",
    "supervisor_alert",
    "tenant_alert",
    "ml_training_complete",
]
OUR_TYPES = ["alert_update", "alerts_changed", "silence_update", "run_update", "ingest_status", "model_update"]


def test_message_types_are_the_agreed_ones() -> None:
    """The seed's nine stay as they are; each further one is added here on purpose."""
    assert [str(kind) for kind in MessageType] == SEED_TYPES + OUR_TYPES


@pytest.mark.parametrize("message_type", [str(kind) for kind in MessageType])
def test_each_message_has_the_seeds_four_fields(message_type: str) -> None:
    """A consumer of the replaced system reads every message without a change."""
    payload = encode(message_type, {"a": 1}, "critical", FakeClock(time_s=1_700_000_000.25))

    assert payload == (
        b'{"type":"%s","data":{"a":1},"priority":"critical","timestamp":"2023-11-14T22:13:20.250Z"}'
        % message_type.encode()
    )


def test_numbers_of_a_training_become_json() -> None:
    """NumPy scalars and arrays, NaN, UUIDs and keys that are no text are what training code has at hand."""
    identity = uuid.UUID(int=1)
    data = {"loss": np.float32(0.5), "row": np.array([1, 2]), "nan": float("nan"), "id": identity, 7: {"x"}}

    message = json.loads(encode("x", data, "normal", FakeClock()))

    assert message["data"] == {"loss": 0.5, "row": [1, 2], "nan": None, "id": str(identity), "7": ["x"]}


@pytest.mark.parametrize(
    ("message_type", "data", "priority"),
    [
        pytest.param("", {}, "normal", id="no-type"),
        pytest.param("two words", {}, "normal", id="type-with-space"),
        pytest.param("x", {}, "urgent", id="unknown-priority"),
        pytest.param("x", {"raw": b"\xff"}, "normal", id="bytes"),
        pytest.param("x", {"text": "y" * 70_000}, "normal", id="too-large"),
    ],
)
def test_what_cannot_be_a_message_is_refused(message_type: str, data: dict[str, object], priority: str) -> None:
    """The error says which message and why."""
    with pytest.raises(InvalidMessageError):
        encode(message_type, data, priority, FakeClock())
