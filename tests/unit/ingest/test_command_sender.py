"""What becomes of a command at the broker: sent, refused, or queued again with the reason."""

from pathlib import Path

import orjson
import pytest
from fakes_alerts import FakeClock
from fakes_commands import make_order

from cluster.errors import CallTimeoutError, CircuitOpenError
from cluster.store import metadata, open_engine
from ingest.command import CommandState
from ingest.command_sender import LONGEST_PAUSE_S, CommandSender
from ingest.command_store import CommandStore
from ingest.errors import BrokerRefusedError, BrokerUnavailableError
from ingest.publisher_mqtt import Request
from ingest.topics import TopicTree


class Broker:
    """``publish_mqtt`` without a broker: remembers, or fails as told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.fails_after: int | None = None
        self.sent: list[tuple[str, bytes, float, Request]] = []

    def publish(self, topic: str, payload: bytes, timeout_s: float, request: Request) -> None:
        if self.error is not None:
            raise self.error
        if self.fails_after is not None and len(self.sent) >= self.fails_after:
            raise BrokerUnavailableError("b:1883", "gone")
        self.sent.append((topic, payload, timeout_s, request))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> CommandStore:
    engine = open_engine(f"sqlite:///{tmp_path}/floor.db")
    metadata.create_all(engine)
    return CommandStore(engine, clock)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def sender(store: CommandStore, broker: Broker, clock: FakeClock) -> CommandSender:
    return CommandSender(store, TopicTree("wf"), broker.publish, clock)


def test_a_command_goes_out_with_all_that_both_versions_need(
    sender: CommandSender, store: CommandStore, broker: Broker
) -> None:
    """In the payload for MQTT 3.1.1, beside it for MQTT 5; what a person chose cannot pass for the envelope."""
    command = store.create(make_order(payload={"command_id": "forged", "do": "lock"}, timeout_s=4.0))
    assert sender.send_due()
    assert not sender.send_due()
    ((topic, payload, timeout_s, request),) = broker.sent

    assert (topic, timeout_s) == ("wf/demo/pump-7/cmd", 4.0)
    assert orjson.loads(payload) == {
        "command_id": command.id,
        "expires_at": int(command.expires_at * 1000),
        "payload": {"command_id": "forged", "do": "lock"},
    }
    assert request == Request(response_topic="wf/demo/pump-7/cmd/ack", correlation=command.id.encode(), expiry_s=4)
    assert store.get(command.id)[0].state is CommandState.SENT


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(CircuitOpenError("mqtt_broker", 290.0), "the circuit of mqtt_broker is open", id="circuit-open"),
        pytest.param(BrokerUnavailableError("b:1883", "gone"), "MQTT broker at b:1883: gone", id="broker-away"),
        pytest.param(TimeoutError("no PUBACK from b:1883 in time"), "no PUBACK from b:1883 in time", id="no-puback"),
        pytest.param(CallTimeoutError("mqtt_broker", 10.0), "mqtt_broker", id="deadline"),
    ],
)
def test_what_could_not_be_sent_waits_with_the_reason_and_goes_out_later(
    sender: CommandSender, store: CommandStore, broker: Broker, clock: FakeClock, error: Exception, reason: str
) -> None:
    """However often it is tried, the reason is one line of history, and the id stays."""
    command = store.create(make_order())
    broker.error = error
    for _ in range(3):
        assert not sender.send_due()
        assert not sender.send_due(), "it is not tried again at once"
        clock.advance(LONGEST_PAUSE_S)
    waiting, events = store.get(command.id)
    assert waiting.state is CommandState.QUEUED
    assert reason in waiting.detail
    assert len(events) == 2
    broker.error = None
    assert sender.send_due()

    done, _ = store.get(command.id)
    assert (done.state, done.attempts, done.detail) == (CommandState.SENT, 4, "")
    assert orjson.loads(broker.sent[0][1])["command_id"] == command.id


def test_what_the_broker_refuses_has_failed(sender: CommandSender, store: CommandStore, broker: Broker) -> None:
    """MQTT 5 says so; trying again would change nothing, and the next one gets its turn."""
    command = store.create(make_order())
    broker.error = BrokerRefusedError("b:1883", "Not authorized")
    assert sender.send_due()

    failed, _ = store.get(command.id)
    assert (failed.state, failed.answer) == (CommandState.FAILED, None)
    assert failed.detail == "MQTT broker at b:1883 refused the message: Not authorized"


def test_a_failure_in_the_middle_leaves_the_rest_queued(
    sender: CommandSender, store: CommandStore, broker: Broker, clock: FakeClock
) -> None:
    """What the broker had before is sent; none is lost, none goes out twice."""
    ids = [store.create(make_order(number)).id for number in range(5)]
    broker.fails_after = 2
    assert not sender.send_due()
    states = [store.get(one)[0].state.value for one in ids]
    broker.fails_after = None
    clock.advance(LONGEST_PAUSE_S)
    assert sender.send_due()

    assert states == ["sent", "sent", "queued", "queued", "queued"]
    assert {store.get(one)[0].state for one in ids} == {CommandState.SENT}
    assert [orjson.loads(payload)["command_id"] for _, payload, _, _ in broker.sent] == ids
