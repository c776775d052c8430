"""The embedded broker on a disk that fills up: what it accepted is delivered, and it comes back by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ingest_parts import CountingDevice, eventually

from cluster.clock import SystemClock
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service
from cluster.ports import free_port
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import new_client
from serve_apps.full_disk import FullDisk
from serve_apps.supervised import Supervised
from tests.small_disk import MIB, SmallDisk, mounted

pytestmark = pytest.mark.mqtt


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from mounted(tmp_path / "disk")


class Listener:
    """A session that keeps messages for us while we are away, as ingest's does."""

    def __init__(self, url: str) -> None:
        self.heard: list[bytes] = []
        address = MqttAddress.parse(url)
        self._client = new_client(address, "listener", has_session=True, reconnects=False)
        self._client.on_message = self._on_message
        self._client.connect(address.host, address.port)
        self._client.loop_start()

    def subscribe(self) -> None:
        """Have messages kept from now on."""
        answered: list[int] = []
        self._client.on_subscribe = lambda *_: answered.append(1)
        assert eventually(self._client.is_connected)
        self._client.subscribe("full/#", qos=1)
        assert eventually(lambda: bool(answered))

    def close(self) -> None:
        """Go away."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: object, _data: object, message: object) -> None:
        self.heard.append(message.payload)  # type: ignore[attr-defined]
        self._client.ack(message.mid, message.qos)  # type: ignore[attr-defined]


def test_the_broker_is_started_anew_once_there_is_room(disk: SmallDisk) -> None:
    """It refuses while the disk is full and, by itself, also afterwards."""
    service = mqtt_service(
        disk.folder / "floor", free_port(), Credentials.load_or_create(disk.folder), EmbeddedSettings()
    )
    broker = supervised(service)
    full = FullDisk(disk.free_bytes, full_bytes=MIB, room_bytes=2 * MIB)
    listener = None

    def turn() -> None:
        if full.has_ended():
            broker.begin_anew()
        broker.step()

    broker.launch()
    try:
        assert eventually(lambda: turn() or broker.state == "running")  # type: ignore[func-returns-value]
        listener = Listener(service.url)
        listener.subscribe()
        listener.close()
        device = CountingDevice(service.url, "full", "pump-7", in_flight=20)
        assert device.send_raw(b"first")
        assert device.wait_all_acknowledged()
        disk.fill(leave_bytes=0)
        while device.send_raw(b"x" * 50_000, timeout_s=1.0):
            turn()
        refused_at = len(device.acknowledged())
        turn()
        disk.filler.unlink()

        def goes_on() -> bool:
            turn()
            device.send_raw(b"after", timeout_s=0.05)
            return len(device.acknowledged()) > refused_at + 30

        assert eventually(goes_on, 40.0)
        assert broker.restarts == 1
        accepted = len(device.acknowledged())
        device.close()
        listener = Listener(service.url)
        heard = listener.heard
        # More than were accepted may come: those whose PUBACK was lost with the process.
        assert eventually(lambda: len(heard) >= accepted)
        assert heard[0] == b"first"
    finally:
        if listener is not None:
            listener.close()
        broker.stop()


def supervised(service: EmbeddedService) -> Supervised:
    return Supervised(service.name, service.start, is_ready=service.is_ready, clock=SystemClock())
