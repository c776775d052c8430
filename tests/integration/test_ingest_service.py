"""Ingest between real brokers and real stores: accepted is stored, once, whatever happens in between."""

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from bad_payloads import BAD_PAYLOADS, telemetry
from ingest_parts import (
    CountingDevice,
    Ingest,
    StoppableService,
    eventually,
    make_engine,
    own_broker,
    own_mosquitto,
    own_valkey,
)
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import select

from cluster.store import read_transaction
from ingest.alerts.tables import alerts
from ingest.dead_letter import DeadLetterStore
from ingest.delivery import MAX_PAYLOAD_BYTES
from ingest.device_mqtt import DeviceConnection
from ingest.directory import DeviceDirectory
from ingest.inbox import MqttSettings
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import new_client
from ingest.payload import Flag, Reason
from ingest.topics import TopicClass

pytestmark = [pytest.mark.mqtt, pytest.mark.redis]

MakeIngest = Callable[..., Ingest]


@pytest.fixture
def make_ingest(tmp_path: Path, redis_url: str) -> Iterator[MakeIngest]:
    """Makes ingests on stores of the test's own; all are stopped in the end."""
    made: list[Ingest] = []

    def make(mqtt_url: str, redis: str = redis_url, **fields: object) -> Ingest:
        ingest = Ingest(mqtt_url, redis, make_engine(tmp_path), **fields)  # type: ignore[arg-type]
        made.append(ingest)
        return ingest

    yield make
    for ingest in made:
        ingest.stop()
        ingest.stream.close()
        ingest.engine.dispose()


@pytest.fixture
def make_device() -> Iterator[Callable[..., CountingDevice]]:
    """Makes devices; all are closed in the end."""
    made: list[CountingDevice] = []

    def make(ingest: Ingest, name: str = "pump-7", in_flight: int = 50) -> CountingDevice:
        made.append(CountingDevice(ingest.mqtt_url, ingest.root, name, in_flight))
        return made[-1]

    yield make
    for device in made:
        device.close()


@pytest.fixture(
    params=[
        pytest.param("nats", id="nats-server"),
        pytest.param("3.1.1", id="mosquitto-3.1.1", marks=pytest.mark.mosquitto),
        pytest.param("5", id="mosquitto-5", marks=pytest.mark.mosquitto),
    ]
)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoppableService]:
    """A running broker of the test's own, of each kind."""
    kind = request.param
    broker = own_broker(tmp_path / "b") if kind == "nats" else own_mosquitto(tmp_path / "b", kind)
    broker.start()
    yield broker
    broker.stop()


def test_a_reading_is_stored_once_and_then_acknowledged(
    broker: StoppableService, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """Publish, store, acknowledge: afterwards nothing is open, and nothing is stored again."""
    ingest = make_ingest(broker.url)
    ingest.start()
    device = make_device(ingest)
    for _ in range(500):
        assert device.send()
    assert device.wait_all_acknowledged()

    assert eventually(lambda: len(ingest.stored_keys()) == 500)
    assert sorted(ingest.stored_keys()) == sorted(device.acknowledged())
    assert eventually(lambda: ingest.status().window == 0)

    ingest.stop()
    ingest.start()
    time.sleep(1.0)
    assert len(ingest.stored_keys()) == 500


def test_an_alert_is_committed_and_wakes_the_relay(
    broker: StoppableService, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """The device's own alert goes to SQL, by its short path."""
    ingest = make_ingest(broker.url)
    ingest.start()
    device = make_device(ingest)
    device.send(kind=TopicClass.ALERT, alert_type="leak", severity="critical", message="Water on the floor")

    assert eventually(lambda: ingest.num_wakes == 1)
    with read_transaction(ingest.engine) as connection:
        (row,) = connection.execute(select(alerts)).all()
    assert (row.tenant, row.device_id, row.severity, row.text) == ("demo", "pump-7", "critical", "Water on the floor")


def test_each_bad_message_is_set_aside_once_and_ingest_goes_on(
    mqtt_url: str, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """The whole catalogue, an oversize payload and a stray topic; then a good reading arrives."""
    ingest = make_ingest(mqtt_url)
    ingest.start()
    device = make_device(ingest)
    expected = []
    for bad in BAD_PAYLOADS:
        if bad.kind == "state" or bad.payload == b"":
            continue  # presence below; nats-server does not deliver an empty payload twice the same way
        expected.append((bad.reason, len(bad.payload)))
        assert device.send_raw(bad.payload, TopicClass(bad.kind))
    # No two parts of it are alike, so that what is kept can be told from any other part.
    oversize = b'{"values":{"value":1}}' + random.Random(7).randbytes(4 * 1024 * 1024 - 300)
    assert device.send_raw(oversize, timeout_s=10.0)
    expected.append((Reason.OVERSIZE, len(oversize)))
    assert device.send_raw(telemetry()[:-1].ljust(MAX_PAYLOAD_BYTES - 1) + b"}")

    letters = DeadLetterStore(ingest.engine, "test")
    assert eventually(lambda: letters.total() >= len(expected), 30.0)
    assert eventually(lambda: len(ingest.stored()) == 1)
    assert sorted((row.reason, row.payload_bytes) for row in letters.list(1000)) == sorted(expected)
    assert all(row.count == 1 for row in letters.list(1000))
    assert eventually(lambda: ingest.status().dead_letters == len(expected))
    (large,) = [row for row in letters.list(1000) if row.reason == Reason.OVERSIZE]
    assert large.payload == oversize[: 64 * 1024]
    assert (large.payload_bytes, large.sha256) == (len(oversize), hashlib.sha256(oversize).hexdigest())


def test_a_topic_that_matches_no_template_is_set_aside(mqtt_url: str, make_ingest: MakeIngest) -> None:
    """Under our root everything is seen, also what nobody planned."""
    ingest = make_ingest(mqtt_url)
    ingest.start()
    client: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(mqtt_url), f"{ingest.root}-stray")
    client.start()
    assert client.wait_connected(10.0)
    for number, tail in enumerate(("v9/acme/pump/telemetry", "acme/pump/telemetri", "acme/pump/telemetry/x")):
        client.publish(f"{ingest.root}/{tail}", telemetry(), number, 5.0)

    letters = DeadLetterStore(ingest.engine, "test")
    assert eventually(lambda: letters.total() == 3)
    assert {row.reason for row in letters.list()} == {Reason.UNKNOWN_TOPIC}
    client.stop()


def test_presence_comes_from_birth_and_last_will(
    broker: StoppableService, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """Also of devices that were there before ingest; a bad state is set aside."""
    ingest = make_ingest(broker.url)
    address = MqttAddress.parse(broker.url)
    early: DeviceConnection[int] = DeviceConnection.for_device(address, ingest.tree, "demo", "early")
    early.start()
    assert early.wait_connected(10.0)
    early.publish(ingest.tree.build(TopicClass.TELEMETRY, "demo", "early"), telemetry(), 1, 5.0)
    ingest.start()
    directory = DeviceDirectory(ingest.engine)

    assert eventually(lambda: _online(directory, "early") is True)
    assert ingest.status().devices_online <= 1
    early.abandon()
    assert eventually(lambda: _online(directory, "early") is False, 30.0)
    early.stop()

    make_device(ingest, "liar").send_raw(b"online", TopicClass.STATE)
    letters = DeadLetterStore(ingest.engine, "test")
    assert eventually(lambda: [row.reason for row in letters.list()] == [Reason.NOT_JSON])


def test_messages_of_a_stopped_ingest_wait_with_the_broker(
    broker: StoppableService, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """The session is persistent: what was accepted while ingest was away is stored when it is back."""
    ingest = make_ingest(broker.url)
    ingest.start()
    device = make_device(ingest)
    ingest.stop()
    for _ in range(300):
        assert device.send()
    assert device.wait_all_acknowledged()
    assert ingest.stored_keys() == []

    ingest.start()
    assert eventually(lambda: sorted(ingest.stored_keys()) == sorted(device.acknowledged()))


def test_a_broker_that_is_killed_loses_nothing_it_accepted(
    tmp_path: Path, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """The embedded broker, twice, under load; ingest reconnects by itself."""
    broker = own_broker(tmp_path / "b")
    broker.start()
    ingest = make_ingest(broker.url)
    ingest.start()
    device = make_device(ingest)
    for _ in range(2):
        device.send_for(1.0, per_second=300)
        broker.kill()
        device.send_for(0.5, per_second=300)
        assert eventually(lambda: not ingest.status().broker_connected)
        broker.start()
        device.send_for(1.0, per_second=300)
    assert device.wait_all_acknowledged(30.0)

    # Messages in the hands of the killed connection come again after the broker's ack_wait.
    assert eventually(lambda: set(ingest.stored_keys()) >= device.acknowledged(), 30.0)
    assert len(ingest.stored_keys()) == len(set(ingest.stored_keys()))
    assert eventually(ingest.is_connected)
    broker.stop()


@pytest.mark.parametrize("fault", ["pause", "kill"])
def test_during_a_valkey_outage_nothing_is_acknowledged_and_nothing_lost(
    tmp_path: Path, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice], fault: str
) -> None:
    """The broker's repeats on the live connection (every ack_wait) are ignored; then all is stored once."""
    broker = own_broker(tmp_path / "b", ack_wait_s=1)
    valkey = own_valkey(tmp_path / "v")
    broker.start()
    valkey.start()
    ingest = make_ingest(broker.url, valkey.url)
    ingest.start()
    device = make_device(ingest)
    device.send_for(0.5, per_second=200)
    assert device.wait_all_acknowledged()
    getattr(valkey, fault)()
    device.send_for(4.0, per_second=200)
    assert device.wait_all_acknowledged(), "the broker accepts for us"
    assert eventually(lambda: "telemetry" in ingest.status().blocked)
    assert ingest.status().window > 0

    valkey.resume() if fault == "pause" else valkey.start()
    assert eventually(lambda: len(ingest.stored_keys()) >= len(device.acknowledged()), 30.0)
    assert sorted(ingest.stored_keys()) == sorted(device.acknowledged())
    assert eventually(lambda: ingest.status().window == 0 and not ingest.status().blocked)
    broker.stop()
    ingest.stop()
    valkey.stop()


def test_without_its_sql_store_ingest_holds_alerts_back(
    tmp_path: Path, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice], mqtt_url: str
) -> None:
    """A database that cannot be written stops acknowledging; when it is back, the alert is there once."""
    ingest = make_ingest(mqtt_url)
    ingest.start()
    device = make_device(ingest)
    with ingest.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE alerts RENAME TO alerts_away")
        connection.commit()
    device.send(kind=TopicClass.ALERT, alert_type="leak", severity="high", message="x")
    assert eventually(lambda: "alert" in ingest.status().blocked)
    assert ingest.status().window == 1

    with ingest.engine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE alerts_away RENAME TO alerts")
        connection.commit()
    assert eventually(lambda: ingest.num_wakes == 1)
    with read_transaction(ingest.engine) as connection:
        assert len(connection.execute(select(alerts)).all()) == 1
    assert eventually(lambda: ingest.status().window == 0)


def test_a_flood_above_the_queue_is_not_lost(
    tmp_path: Path, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice]
) -> None:
    """A tiny queue and a stopped store: ingest stops reading, the broker keeps the rest, all arrives."""
    broker = own_broker(tmp_path / "b", ack_wait_s=1)
    valkey = own_valkey(tmp_path / "v")
    broker.start()
    valkey.start()
    settings = IngestSettings(tick_s=0.1, queue_count=50, telemetry_batch=20)
    ingest = make_ingest(broker.url, valkey.url, settings=settings)
    ingest.start()
    device = make_device(ingest, in_flight=200)
    valkey.pause()
    for _ in range(400):
        assert device.send()
    assert device.wait_all_acknowledged()
    assert eventually(lambda: "queue" in (ingest.status().broker_problem or ""))
    valkey.resume()

    assert eventually(lambda: len(ingest.stored_keys()) == 400, 60.0)
    assert sorted(ingest.stored_keys()) == sorted(device.acknowledged())
    broker.stop()
    ingest.stop()
    valkey.stop()


def test_equal_readings_without_a_number(mqtt_url: str, make_ingest: MakeIngest) -> None:
    """Nothing is dropped for its content alone: 100 are 100 rows. With a device time they are one reading."""
    ingest = make_ingest(mqtt_url)
    ingest.start()
    client: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(mqtt_url), f"{ingest.root}-plain")
    client.start()
    assert client.wait_connected(10.0)
    now_ms = int(time.time() * 1000)
    for number in range(100):
        for device, head in (("plain", {}), ("timed", {"ts": now_ms}), ("ticking", {"ts": now_ms + number})):
            payload = orjson.dumps(head | {"values": {"value": 1.0}})
            client.publish(ingest.tree.build(TopicClass.TELEMETRY, "demo", device), payload, number, 5.0)

    assert eventually(lambda: len(ingest.stored()) == 201)
    assert eventually(lambda: ingest.status().duplicates_total == 99)
    rows = Counter(reading.device for reading in ingest.stored())
    assert rows == {"plain": 100, "timed": 1, "ticking": 100}
    assert all((Flag.UNKEYED in reading.flags) == (reading.device == "plain") for reading in ingest.stored())
    client.stop()


@pytest.mark.mosquitto
def test_the_version_is_negotiated(tmp_path: Path, mqtt_url: str, make_ingest: MakeIngest) -> None:
    """A URL without a version gets MQTT 5 from mosquitto and 3.1.1 from nats-server."""
    mosquitto = own_mosquitto(tmp_path / "b", "auto")
    mosquitto.start()
    spoken = []
    for url in (mosquitto.url, mqtt_url.replace("version=3.1.1", "version=auto")):
        ingest = make_ingest(url)
        ingest.start()
        spoken.append(ingest.status().mqtt_version)
        ingest.stop()
    mosquitto.stop()

    assert spoken == ["5", "3.1.1"]


@pytest.mark.mosquitto
def test_the_brokers_word_on_a_message_is_taken(tmp_path: Path, make_ingest: MakeIngest) -> None:
    """User and time as MQTT 5 user properties, a content type that nobody reads, and a foreign user."""
    mosquitto = own_mosquitto(tmp_path / "b", "5")
    mosquitto.start()
    mqtt = MqttSettings(keepalive_s=2, user_property="user", time_property="at")
    ingest = make_ingest(mosquitto.url, mqtt=mqtt)
    ingest.start()
    client = new_client(MqttAddress.parse(mosquitto.url), "device", has_session=False)
    client.connect(MqttAddress.parse(mosquitto.url).host, MqttAddress.parse(mosquitto.url).port)
    client.loop_start()
    for number, (user, content_type) in enumerate(
        [("demo.pump-7", None), ("demo", "application/json"), ("other", None), ("demo", "application/cbor")]
    ):
        properties: Any = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("user", user), ("noise", "x" * 1000), ("at", "1790000000500")]
        if content_type:
            properties.ContentType = content_type
        topic = ingest.tree.build(TopicClass.TELEMETRY, "demo", "pump-7")
        client.publish(topic, telemetry(seq=number), qos=1, properties=properties).wait_for_publish(10.0)

    letters = DeadLetterStore(ingest.engine, "test")
    assert eventually(lambda: {row.reason for row in letters.list()} == {Reason.FOREIGN_TENANT, Reason.UNKNOWN_CODEC})
    assert eventually(lambda: [reading.seq for reading in ingest.stored()] == [0, 1])
    assert {reading.broker_ts for reading in ingest.stored()} == {1_790_000_000.5}
    client.loop_stop()
    ingest.stop()
    mosquitto.stop()


def test_a_refused_mqtt_5_is_named_with_the_way_out(mqtt_url: str, make_ingest: MakeIngest) -> None:
    """The embedded broker speaks 3.1.1 only; the status says what to change."""
    ingest = make_ingest(mqtt_url.replace("version=3.1.1", "version=5"))
    ingest.start(wait=False)

    assert eventually(lambda: "remove ?version=5" in (ingest.status().broker_problem or ""))


def test_a_broker_that_is_not_there_is_named(make_ingest: MakeIngest, tmp_path: Path) -> None:
    """Ingest runs, waits, and says for what; then it connects by itself."""
    broker = own_broker(tmp_path / "b")
    ingest = make_ingest(broker.url)
    ingest.start(wait=False)
    assert eventually(lambda: "refused" in (ingest.status().broker_problem or ""))
    broker.start()
    assert eventually(ingest.is_connected)
    broker.stop()


def _online(directory: DeviceDirectory, device: str) -> bool | None:
    row = directory.get("demo", device)
    return row.online if row is not None else None


# The thread is meant to end with an exception that nobody caught.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_network_thread_that_dies_is_replaced(
    mqtt_url: str, make_ingest: MakeIngest, make_device: Callable[..., CountingDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception on paho's path is a lost connection; even a thread that is gone comes back, and nothing is lost."""
    ingest = make_ingest(mqtt_url)
    ingest.start()
    device = make_device(ingest)
    assert ingest.service is not None
    inbox = ingest.service._inbox
    whole_turn = inbox._turn
    faults = iter([RuntimeError("a bug"), SystemExit("the thread ends")])

    def faulty_turn(client: object) -> object:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return whole_turn(client)  # type: ignore[arg-type]

    first = inbox._thread
    monkeypatch.setattr(inbox, "_turn", faulty_turn)
    device.send_for(2.0, per_second=100)
    assert device.wait_all_acknowledged()

    assert eventually(lambda: sorted(ingest.stored_keys()) == sorted(device.acknowledged()), 30.0)
    assert inbox._thread is not first
    assert inbox.status().epoch == 2, "the second fault came before the broker answered"
