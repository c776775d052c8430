"""`watchfloor acl` against the real brokers: a device's own topics work, and no others."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from cluster.embedded import EmbeddedService, find_nats_server
from cluster.ports import LOOPBACK, free_port
from cluster.store import metadata, open_engine
from ingest.directory import DeviceDirectory, DeviceEntry
from tests.ingest_parts import MOSQUITTO, StoppableService, eventually

BCRYPT = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
SECRET = "secret"  # what BCRYPT is the hash of
USERS = ("ingest", "acme/pump-7", "acme/pump-8", "globex/pump-7")

pytestmark = pytest.mark.mqtt


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker with generated files."""

    port: int
    device_port: int
    summary: dict[str, Any]


@dataclass
class Client:
    """One signed-in connection that remembers what it hears."""

    paho: paho.Client
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1; a broker acknowledges what it then refuses, so nothing is known by that."""
        self.paho.publish(topic, payload, qos=1)

    def subscribe(self, topic: str) -> bool:
        """Subscribe; whether the broker says yes."""
        answered, codes = threading.Event(), []

        def on_subscribe(_client: object, _data: object, _mid: int, reasons: list[Any], _properties: object) -> None:
            codes.extend(reason.is_failure for reason in reasons)
            answered.set()

        self.paho.on_subscribe = on_subscribe
        self.paho.subscribe(topic, qos=1)
        assert answered.wait(20)
        return not any(codes)


@contextmanager
def signed_in(port: int, user: str, password: str = SECRET) -> Iterator[Client]:
    """Connect; ``ConnectionRefusedError`` when the broker does not let the user in."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, f"c-{user.replace('/', '-')}-{os.urandom(4).hex()}")
    client.username_pw_set(user, password)
    answered, failures = threading.Event(), []

    def on_connect(_client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        failures.append(reason.is_failure)
        answered.set()

    client.on_connect = on_connect
    made = Client(client)
    client.on_message = lambda _client, _data, message: made.heard.append((message.topic, message.payload))
    client.reconnect_delay_set(30, 60)
    client.connect(LOOPBACK, port)
    client.loop_start()
    try:
        assert answered.wait(20)
        if failures[0]:
            raise ConnectionRefusedError(user)
        yield made
    finally:
        client.disconnect()
        client.loop_stop()


def write_acl(folder: Path, broker: str, passwords: Path) -> dict[str, Any]:
    """Run the command against a directory with two devices."""
    data_dir = folder / "data"
    data_dir.mkdir()
    engine = open_engine(f"sqlite:///{data_dir}/floor.db")
    metadata.create_all(engine)
    DeviceDirectory(engine).register([DeviceEntry("acme", "pump-7"), DeviceEntry("acme", "silent")])
    engine.dispose()
    program = str(Path(sys.executable).parent / "watchfloor")
    options = ("--broker", broker, "--out", str(folder / "out"), "--passwords", str(passwords), "--json")
    done = subprocess.run(
        [program, "acl", *options, "--data-dir", str(data_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def mosquitto(folder: Path) -> tuple[EmbeddedService, Broker]:
    passwords = folder / "passwords"
    passwords.touch()
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, SECRET], check=True, capture_output=True)
    summary = write_acl(folder, "mosquitto", passwords)
    (folder / "out" / "passwords").write_bytes(passwords.read_bytes())
    config = folder / "out" / "mosquitto.conf"
    port, device_port = free_port(), free_port()
    text = config.read_text(encoding="utf-8").replace("listener 1883", f"listener {port}")
    text = text.replace("listener 8883", f"listener {device_port}").replace("/var/lib/mosquitto/", f"{folder}/")
    config.write_text(f"user root\n{text}", encoding="utf-8")
    program = MOSQUITTO if Path(MOSQUITTO).exists() else "mosquitto"
    service = EmbeddedService("mosquitto", (program, "-c", str(config)), "", port, folder / "log")
    return service, Broker(port, device_port, summary)


def nats(folder: Path) -> tuple[EmbeddedService, Broker]:
    passwords = folder / "passwords"
    passwords.write_text("".join(f"{user}:{BCRYPT}\n" for user in USERS), encoding="utf-8")
    summary = write_acl(folder, "nats", passwords)
    config = folder / "out" / "nats-server.conf"
    port = free_port()
    text = config.read_text(encoding="utf-8").replace(":4222", ":-1").replace(":1883", f":{port}")
    config.write_text(text.replace("/var/lib/nats", str(folder / "store")), encoding="utf-8")
    service = EmbeddedService("nats", (find_nats_server(), "-c", str(config)), "", port, folder / "log")
    return service, Broker(port, port, summary)


@pytest.fixture(
    scope="module",
    params=[pytest.param(mosquitto, marks=pytest.mark.mosquitto, id="mosquitto"), pytest.param(nats, id="nats-server")],
)
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    make: Callable[[Path], tuple[EmbeddedService, Broker]] = request.param
    service, made = make(tmp_path_factory.mktemp("acl"))
    running = StoppableService(service)
    running.start()
    yield made
    running.stop()


def test_the_command_names_devices_without_a_password_and_unknown_ones(broker: Broker) -> None:
    """From the directory, so that nobody wonders later why a device is silent."""
    assert broker.summary["users"] == 3
    assert broker.summary["without_password"] == ["acme/silent"]
    assert broker.summary["unregistered"] == ["acme/pump-8", "globex/pump-7"]


def test_the_floor_reads_what_a_device_writes_on_its_own_topics_and_nothing_else(broker: Broker) -> None:
    """Another device's topics, another tenant's, and its own commands: none of it arrives."""
    own = ("telemetry", "alert", "state", "cmd/ack")
    with signed_in(broker.port, "ingest") as floor:
        assert floor.subscribe("wf/#")
        with signed_in(broker.device_port, "acme/pump-7") as device:
            for topic in ("acme/pump-8/telemetry", "globex/pump-7/telemetry", "acme/pump-7/cmd", "acme/pump-7/other"):
                device.publish(f"wf/{topic}", b"forged")
        # A broker may end the connection of whoever asks for too much, so the own ones have one of theirs.
        with signed_in(broker.device_port, "acme/pump-7") as device:
            for name in own:
                device.publish(f"wf/acme/pump-7/{name}", b"own")
            assert eventually(lambda: len(floor.heard) >= len(own)), floor.heard
        assert {topic for topic, _ in floor.heard} == {f"wf/acme/pump-7/{name}" for name in own}
        assert {payload for _, payload in floor.heard} == {b"own"}


def test_forged_messages_reach_nobody(broker: Broker) -> None:
    """The floor listens all the while; a last message on an own topic shows that the others are not just late."""
    with signed_in(broker.port, "ingest") as floor, signed_in(broker.device_port, "globex/pump-7") as device:
        assert floor.subscribe("wf/#")
        device.publish("wf/acme/pump-7/telemetry", b"forged")
        with signed_in(broker.device_port, "globex/pump-7") as again:
            again.publish("wf/globex/pump-7/telemetry", b"own")
            assert eventually(lambda: b"own" in {payload for _, payload in floor.heard})
        assert [payload for _, payload in floor.heard] == [b"own"]


def test_a_device_hears_its_own_commands_and_no_others(broker: Broker) -> None:
    """Nor telemetry, nor everything."""
    with signed_in(broker.device_port, "acme/pump-7") as device, signed_in(broker.port, "ingest") as floor:
        assert device.subscribe("wf/acme/pump-7/cmd")
        floor.publish("wf/acme/pump-7/cmd", b"for pump-7")
        assert eventually(lambda: bool(device.heard))
    with signed_in(broker.device_port, "acme/pump-8") as other, signed_in(broker.port, "ingest") as floor:
        for topic in ("wf/acme/pump-7/cmd", "wf/#", "wf/+/+/cmd", "wf/acme/pump-8/telemetry"):
            # mosquitto 2.0 says yes to a subscription and then delivers nothing.
            other.subscribe(topic)
        other.subscribe("wf/acme/pump-8/cmd")
        floor.publish("wf/acme/pump-7/cmd", b"for pump-7")
        floor.publish("wf/acme/pump-8/cmd", b"for pump-8")
        assert eventually(lambda: bool(other.heard))
        assert {payload for _, payload in other.heard} == {b"for pump-8"}


@pytest.mark.parametrize("user", ["acme/+", "+/pump-7", "#", "acme/pump-9", ""])
def test_a_user_of_no_line_is_refused(broker: Broker, user: str) -> None:
    """Wildcards are nobody's name."""
    with pytest.raises(ConnectionRefusedError), signed_in(broker.device_port, user):
        pass


def test_a_wrong_password_is_refused(broker: Broker) -> None:
    """Also that the hash itself is none."""
    for password in ("wrong", BCRYPT):
        with pytest.raises(ConnectionRefusedError), signed_in(broker.device_port, "acme/pump-7", password):
            pass


@pytest.mark.mosquitto
def test_mosquitto_gives_a_user_named_with_a_wildcard_nothing(tmp_path: Path) -> None:
    """Even if somebody puts one into the password file by hand (CVE-2017-7650)."""
    service, made = mosquitto(tmp_path)
    subprocess.run(
        ["mosquitto_passwd", "-b", str(tmp_path / "out" / "passwords"), "acme/+", SECRET],
        check=True,
        capture_output=True,
    )
    running = StoppableService(service)
    running.start()
    try:
        with signed_in(made.port, "ingest") as floor, signed_in(made.port, "acme/+") as bad:
            assert floor.subscribe("wf/#")
            bad.subscribe("wf/acme/+/cmd")
            bad.publish("wf/acme/+/telemetry".replace("+", "pump-7"), b"forged")
            floor.publish("wf/acme/pump-7/cmd", b"command")
            with signed_in(made.device_port, "acme/pump-7") as device:
                device.publish("wf/acme/pump-7/telemetry", b"own")
                assert eventually(lambda: bool(floor.heard))
            assert {payload for _, payload in floor.heard} <= {b"own", b"command"}
            assert bad.heard == []
    finally:
        running.stop()
