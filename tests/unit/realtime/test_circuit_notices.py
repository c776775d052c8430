"""What the NOC hears of a circuit."""

import json
from collections.abc import Iterator

import pytest
from fakes_realtime import ScriptedTransport

from cluster import breaker, names
from cluster.circuit import Cause, CircuitState, SharedState
from realtime import process_broadcaster
from realtime.broadcaster import Broadcaster
from realtime.settings import BroadcastSettings


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedTransport]:
    transport = ScriptedTransport()
    broadcaster = Broadcaster(BroadcastSettings(), lambda: transport)
    monkeypatch.setattr(process_broadcaster, "_of_process", broadcaster)
    yield transport
    broadcaster.close()


@pytest.mark.parametrize(
    ("state", "priority", "text"),
    [
        pytest.param(
            SharedState(state=CircuitState.OPEN, remaining_s=300.0, cause=Cause("failures", reason="OSError: refused")),
            "high",
            "calls of mqtt_broker are refused for 300 s (failures: OSError: refused)",
            id="opened",
        ),
        pytest.param(
            SharedState(state=CircuitState.CLOSED, remaining_s=0.0, cause=Cause("probe succeeded")),
            "normal",
            "calls of mqtt_broker pass again (probe succeeded)",
            id="closed",
        ),
        pytest.param(
            SharedState(state=CircuitState.FORCED_OPEN, remaining_s=0.0, cause=Cause("forced", "ada", "it moves")),
            "high",
            "calls of mqtt_broker are refused until the circuit is reset (forced by ada: it moves)",
            id="forced",
        ),
    ],
)
def test_a_change_is_told_to_the_noc(
    transport: ScriptedTransport, state: SharedState, priority: str, text: str
) -> None:
    """By the name under which the breaker finds it, with the key under which the hub takes it once."""
    breaker._announce("mqtt_broker", state, "circuit:mqtt_broker:17")
    assert process_broadcaster.get_broadcaster().flush(10)

    (draft,) = transport.sent
    message = json.loads(draft.data)
    assert (draft.channel, draft.key) == (names.CHANNEL_NOC, "circuit:mqtt_broker:17")
    assert (message["type"], message["priority"], message["data"]["message"]) == ("system_alert", priority, text)
    assert set(message["data"]) == {"component", "message", "blocked"}
    assert list(message["data"]["blocked"]) == (["mqtt_broker"] if priority == "high" else [])
