"""Commands from the desk through a real broker to a device, and its answers back through ingest."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes_alerts import FakeHub
from ingest_parts import Ingest, StoppableService, eventually, make_engine, own_broker, own_mosquitto
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cluster.breaker import Breaker
from cluster.circuit import BreakerSettings
from ingest import commands
from ingest.command import Command, CommandEvent, CommandOrder, CommandState
from ingest.command_desk import CommandDesk
from ingest.command_sender import wire_payload
from ingest.command_store import CommandSettings
from ingest.dead_letter import DeadLetterRow, DeadLetterStore
from ingest.device_commands import CarryOut, CommandRefusedError
from ingest.device_mqtt import DeviceConnection
from ingest.directory import DeviceDirectory
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client
from ingest.topics import TopicClass

pytestmark = [pytest.mark.mqtt, pytest.mark.redis]

TENANT, DEVICE, USER = "demo", "pump-7", "nora"
ROOT = Path(__file__).resolve().parents[2]
FINAL = {CommandState.OK, CommandState.FAILED, CommandState.TIMED_OUT}


@dataclass
class Desk:
    """The floor's side: a desk, an ingest, a hub, and the breaker between desk and broker."""

    ingest: Ingest
    desk: CommandDesk
    hub: FakeHub
    devices: list[DeviceConnection[int]] = field(default_factory=list)
    bare: list[Any] = field(default_factory=list)

    def order(self, timeout_s: float = 60.0, **payload: object) -> Command:
        """Hand a command in, as the API does."""
        order = CommandOrder(tenant=TENANT, device=DEVICE, payload=payload, timeout_s=timeout_s, user_id=USER)
        command = self.desk.store.create(order)
        self.desk.wake()
        return command

    def read(self, command: Command) -> tuple[Command, tuple[CommandEvent, ...]]:
        return self.desk.store.get(command.id)

    def until(self, command: Command, *states: CommandState) -> Command:
        """Wait until a command has come so far, and return it."""
        assert eventually(lambda: self.read(command)[0].state in states, 30.0), self.read(command)
        return self.read(command)[0]

    def device(self, carry_out: CarryOut = lambda payload: f"did {payload.get('do')}") -> DeviceConnection[int]:
        """Connect the device, with the session that the broker keeps for it."""
        connection: DeviceConnection[int] = DeviceConnection.for_device(
            MqttAddress.parse(self.ingest.mqtt_url), self.ingest.tree, TENANT, DEVICE, carry_out
        )
        # Of this test alone: the broker is shared, and knows sessions by name.
        connection._client._client_id = f"{self.ingest.root}-{DEVICE}".encode()
        connection.start()
        self.devices.append(connection)
        assert connection.wait_connected(20.0)
        return connection

    def bare_client(self, name: str, on_command: Callable[[Any, Any], None]) -> Any:
        """Connect a client that does as the test says, and wait until it is subscribed."""
        address = MqttAddress.parse(self.ingest.mqtt_url)
        client = new_client(address, f"{self.ingest.root}-{name}", has_session=False)
        subscribed = threading.Event()
        client.on_connect = lambda connected, *_: connected.subscribe(self.topic(TopicClass.COMMAND), qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda connected, _data, message: on_command(connected, message)
        connect(client, address, keepalive_s=5, has_session=False)
        client.loop_start()
        self.bare.append(client)
        assert subscribed.wait(20.0)
        return client

    def topic(self, kind: TopicClass, device: str = DEVICE) -> str:
        return self.ingest.tree.build(kind, TENANT, device)

    def letters(self) -> tuple[DeadLetterRow, ...]:
        return DeadLetterStore(self.ingest.engine, source="test").list()

    def told(self, channel: str) -> list[tuple[str, bool]]:
        """Return the states that a channel heard of."""
        events = [json.loads(draft.data)["data"]["event"] for draft in self.hub.on(channel)]
        return [(event["state"], event["late"]) for event in sorted(events, key=lambda event: event["seq"])]


@pytest.fixture(scope="module")
def mosquitto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mosquitto for the whole module, spoken to with MQTT 5."""
    broker = own_mosquitto(tmp_path_factory.mktemp("mosquitto"))
    broker.start()
    yield broker.url
    broker.stop()


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDesk]:
    """Makes the floor's side at a broker; everything is stopped in the end."""
    made: list[Desk] = []
    breaker = Breaker(BreakerSettings())
    monkeypatch.setattr(commands, "get_breaker", lambda: breaker)

    def make(url: str, **fields: Any) -> Desk:
        monkeypatch.setenv("MQTT_URL", url)
        ingest = Ingest(url, redis_url, make_engine(tmp_path), **fields)
        hub = FakeHub()
        desk = CommandDesk(ingest.engine, hub, ingest.root, CommandSettings())
        ingest.on_answers = desk.wake
        ingest.start()
        desk.start()
        made.append(Desk(ingest, desk, hub))
        return made[-1]

    yield make
    for one in made:
        for client in one.bare:
            client.disconnect()
            client.loop_stop()
        for device in one.devices:
            device.stop(0.0)
        one.desk.close()
        one.ingest.stop()
        one.ingest.stream.close()
        one.ingest.engine.dispose()


@pytest.fixture(
    params=[pytest.param("3.1.1", id="nats-3.1.1"), pytest.param("5", id="mosquitto-5", marks=pytest.mark.mosquitto)]
)
def desk(request: pytest.FixtureRequest, make_desk: MakeDesk) -> Desk:
    """The floor's side at each broker."""
    return make_desk(request.getfixturevalue("mqtt_url" if request.param == "3.1.1" else "mosquitto_url"))


def test_a_command_is_carried_out_and_everybody_hears_of_it(desk: Desk) -> None:
    """Stored, sent, received, done: each step once, in order, told on the device's and the user's channel."""
    seen: list[dict[str, Any]] = []
    desk.device(lambda payload: seen.append(payload) or "locked")
    command = desk.until(desk.order(do="lock"), *FINAL)
    _, events = desk.read(command)

    assert (command.state, command.detail, command.user_id) == (CommandState.OK, "locked", USER)
    assert seen == [{"do": "lock"}]
    states = [event.state for event in events]
    # A device on this machine may answer before the sender has written down that it is sent.
    assert [state for state in states if state is not CommandState.SENT] == ["queued", "delivered", "ok"]
    assert command.sent_at is not None
    assert [event.actor for event in events if event.state is not CommandState.SENT] == [USER, "device", "device"]
    expected = [(state.value, False) for state in states]
    for channel in (f"device:{TENANT}/{DEVICE}", f"user:{USER}"):
        assert eventually(lambda channel=channel: desk.told(channel) == expected), desk.told(channel)  # type: ignore[misc]
    assert not any(b'"do"' in draft.data for draft in desk.hub.published.values()), "a payload was broadcast"


def test_what_a_device_cannot_do_has_failed_with_its_words(desk: Desk) -> None:
    """The reason is the device's own."""

    def refuse(_payload: dict[str, Any]) -> str:
        raise CommandRefusedError("the valve is stuck")

    desk.device(refuse)
    command = desk.until(desk.order(do="open"), *FINAL)

    assert (command.state, command.detail) == (CommandState.FAILED, "the valve is stuck")


def test_a_device_that_was_away_gets_its_commands_when_it_is_back(desk: Desk) -> None:
    """The broker keeps them in the device's session; nothing is sent twice."""
    desk.device().stop()
    orders = [desk.order(do=number) for number in range(3)]
    for order in orders:
        assert desk.until(order, CommandState.SENT).attempts == 1
    seen: list[object] = []
    desk.device(lambda payload: seen.append(payload["do"]) or "done")

    assert [desk.until(order, *FINAL).state for order in orders] == [CommandState.OK] * 3
    assert seen == [0, 1, 2]


def test_a_late_answer_is_kept_and_changes_no_end(desk: Desk) -> None:
    """Timed out stays timed out; what the device said afterwards stands beside it."""
    payloads: list[bytes] = []
    client = desk.bare_client("silent", lambda _client, message: payloads.append(message.payload))
    order = desk.order(timeout_s=2.0, do="think")
    assert "did not confirm it in time" in desk.until(order, CommandState.TIMED_OUT).detail
    assert eventually(lambda: len(payloads) == 1)
    answer = {"command_id": json.loads(payloads[0])["command_id"], "status": "ok", "detail": "at last"}
    for _ in range(2):  # the second one is no news
        client.publish(desk.topic(TopicClass.COMMAND_ACK), json.dumps(answer), qos=1)

    assert eventually(lambda: desk.read(order)[0].answer is not None)
    command, events = desk.read(order)
    assert (command.state, command.answer, command.detail) == ("timed_out", "ok", "ok after the end: at last")
    assert [event.is_late for event in events] == [False, False, False, True]
    assert eventually(lambda: desk.told(f"device:{TENANT}/{DEVICE}")[-1] == ("timed_out", True))


def test_a_repeated_command_is_carried_out_once_and_answered_again(desk: Desk) -> None:
    """The same message under the same id, as after a PUBACK that got lost."""
    seen: list[object] = []
    desk.device(lambda payload: seen.append(payload) or "done")
    command = desk.until(desk.order(do="once"), *FINAL)
    client = desk.bare_client("again", lambda _client, _message: None)
    answers: list[bytes] = []
    client.on_message = lambda _client, _data, message: answers.append(message.payload)
    client.subscribe(desk.topic(TopicClass.COMMAND_ACK), qos=1)
    for _ in range(2):
        client.publish(desk.topic(TopicClass.COMMAND), wire_payload(command), qos=1)

    assert eventually(lambda: sum(b'"ok"' in answer for answer in answers) >= 2), answers
    assert len(seen) == 1
    assert desk.read(command)[0] == command
    assert desk.letters() == ()


def test_an_answer_for_another_devices_command_is_set_aside(desk: Desk) -> None:
    """Who speaks is said by the topic; the command's own device is still heard, also in the same batch."""
    taken = threading.Event()
    client = desk.bare_client("both", lambda _client, _message: taken.set())
    order = desk.order(do="open")
    assert taken.wait(20.0)
    good = json.dumps({"command_id": order.id, "status": "delivered"})
    forged = json.dumps({"command_id": order.id, "status": "ok", "detail": "trust me"})
    invented = json.dumps({"command_id": "01NOSUCHCOMMAND", "status": "ok"})
    client.publish(desk.topic(TopicClass.COMMAND_ACK, "door-3"), forged, qos=1)
    client.publish(desk.topic(TopicClass.COMMAND_ACK), good, qos=1)
    client.publish(desk.topic(TopicClass.COMMAND_ACK), invented, qos=1)
    client.publish(desk.topic(TopicClass.COMMAND_ACK), b'{"command_id":"x","status":"maybe"}', qos=1)

    assert eventually(lambda: len(desk.letters()) == 3), desk.letters()
    assert desk.until(order, CommandState.DELIVERED).answer is None
    assert {(letter.topic.split("/")[2], letter.reason) for letter in desk.letters()} == {
        ("door-3", "refused_by_store"),
        (DEVICE, "refused_by_store"),
        (DEVICE, "bad_value"),
    }
    assert eventually(lambda: desk.ingest.status().window == 0)


def test_an_answer_that_comes_while_ingest_is_away_is_not_lost(desk: Desk) -> None:
    """The broker keeps it in ingest's session."""
    desk.ingest.stop()
    desk.device()
    order = desk.order(do="note")
    desk.until(order, CommandState.SENT)
    assert eventually(lambda: desk.devices[0].num_open() == 0)
    desk.ingest.start()

    assert desk.until(order, *FINAL).state is CommandState.OK


@pytest.mark.mosquitto
def test_mqtt_5_names_topic_and_command_beside_the_payload(make_desk: MakeDesk, mosquitto_url: str) -> None:
    """A device may answer by response topic and correlation data alone; where they contradict it is set aside."""
    desk = make_desk(mosquitto_url)
    properties: list[Any] = []

    def answer(client: Any, message: Any) -> None:
        properties.append(message.properties)
        reply: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        reply.CorrelationData = message.properties.CorrelationData
        topic = message.properties.ResponseTopic
        client.publish(topic, b'{"status":"ok","command_id":"another"}', qos=1, properties=reply)
        client.publish(topic, b'{"status":"ok"}', qos=1, properties=reply)

    desk.bare_client("five", answer)
    command = desk.until(desk.order(timeout_s=40.0, do="x"), *FINAL)

    assert command.state is CommandState.OK
    assert properties[0].CorrelationData == command.id.encode()
    assert properties[0].ResponseTopic == desk.topic(TopicClass.COMMAND_ACK)
    assert 30 <= properties[0].MessageExpiryInterval <= 40
    assert eventually(lambda: [letter.reason for letter in desk.letters()] == ["bad_value"])


@pytest.mark.mosquitto
def test_mqtt_5_drops_a_command_whose_time_is_over(make_desk: MakeDesk, mosquitto_url: str) -> None:
    """A device that comes back after the deadline does not even get it."""
    desk = make_desk(mosquitto_url)
    desk.device().stop()
    desk.until(desk.order(timeout_s=1.0, do="stale"), CommandState.TIMED_OUT)
    seen: list[object] = []
    desk.device(lambda payload: seen.append(payload["do"]) or "done")
    desk.until(desk.order(do="fresh"), CommandState.OK)

    assert seen == ["fresh"]


def test_the_example_is_a_device_that_keeps_the_contract(make_desk: MakeDesk, mqtt_url: str) -> None:
    """``examples/commanded_device.py`` as its reader runs it."""
    desk = make_desk(mqtt_url, root="wf")
    argv = [sys.executable, str(ROOT / "examples" / "commanded_device.py"), mqtt_url, TENANT, DEVICE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert eventually(lambda: DeviceDirectory(desk.ingest.engine).count_online() == 1, 30.0)
            done = desk.until(desk.order(do="on"), *FINAL)
            failed = desk.until(desk.order(do="dance"), *FINAL)
        finally:
            program.kill()
            said = program.communicate()[0]

    assert (done.state, done.detail) == (CommandState.OK, "is on")
    assert (failed.state, failed.detail) == (CommandState.FAILED, 'a lamp can do "on" and "off"')
    assert said == "the lamp is on\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[StoppableService]:
    made = own_broker(tmp_path / "broker")
    made.start()
    yield made
    made.stop()


def test_a_broker_that_is_down_keeps_commands_queued_with_the_reason(
    broker: StoppableService, make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back in time they go out once; out of time they say that they were never sent, and why."""
    # Open for longer than any pause of the sender: with a short time it might come when it may try, each time.
    breaker = Breaker(BreakerSettings(failure_threshold=3, open_s=60.0))
    monkeypatch.setattr(commands, "get_breaker", lambda: breaker)
    desk = make_desk(broker.url)
    seen: list[object] = []
    desk.device(lambda payload: seen.append(payload["do"]) or "done")
    desk.until(desk.order(do="first"), CommandState.OK)  # from here on the broker has a session for the device
    broker.kill()
    lost, kept = desk.order(timeout_s=10.0, do="lost"), desk.order(do="kept")

    def said() -> str:
        return " ".join(event.detail for event in desk.read(lost)[1])

    assert eventually(lambda: "the circuit of mqtt_broker is open" in said()), said()
    assert desk.until(lost, CommandState.TIMED_OUT).detail.startswith("not sent in time: ")
    assert desk.read(kept)[0].state is CommandState.QUEUED
    broker.start()
    breaker.circuit("mqtt_broker").reset("nora", "it is back")

    assert desk.until(kept, *FINAL).state is CommandState.OK
    assert seen == ["first", "kept"]
