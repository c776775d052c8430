"""A store at its bound, a full disk, a full Valkey: ingest stops acknowledging, loses nothing, and goes on by itself.

Accepted = the device's process received its PUBACK; each test compares that with what is stored in the end.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from ingest_parts import CountingDevice, Ingest, StoppableService, eventually, make_engine, own_valkey
from sqlalchemy import select

from cluster.store import read_transaction
from ingest.alerts.retention import AlertRetention
from ingest.alerts.tables import alert_events
from ingest.store_bounds import StoreBound, StoreName, StoresSettings
from ingest.store_watch import BoundedStore, StoreWatch
from ingest.topics import TopicClass
from tests.small_disk import MIB, SmallDisk, mounted

pytestmark = [pytest.mark.mqtt, pytest.mark.redis]

SETTINGS = StoresSettings(check_s=0.1, disk_free_bytes=0)


@contextmanager
def running(ingest: Ingest, watch: StoreWatch | None, name: str = "pump-7") -> Iterator[CountingDevice]:
    """Run an ingest and its watch, with a device."""
    ingest.stores = watch
    if watch is not None:
        watch.start()
    ingest.start()
    device = CountingDevice(ingest.mqtt_url, ingest.root, name)
    try:
        yield device
    finally:
        device.close()
        ingest.stop()
        ingest.stream.close()
        ingest.engine.dispose()
        if watch is not None:
            watch.close()


def names_in_status(ingest: Ingest, lane: str, text: str) -> Callable[[], bool]:
    return lambda: text in ingest.status().blocked.get(lane, "")


def accepted(device: CountingDevice) -> int:
    """Wait until the broker has accepted all that the device sent; return how much that is."""
    assert device.wait_all_acknowledged()
    return len(device.acknowledged())


def stored_alerts(ingest: Ingest) -> int:
    with read_transaction(ingest.engine) as connection:
        return len(connection.execute(select(alert_events.c.reading_key)).all())


def test_at_the_bound_of_a_table_alerts_wait_with_the_broker(mqtt_url: str, redis_url: str, tmp_path: Path) -> None:
    """Readings go on; with room, the alerts that waited are stored once each."""
    limit_bytes = [6000]
    ingest = Ingest(mqtt_url, redis_url, make_engine(tmp_path))
    alerts = BoundedStore(
        name=StoreName.ALERTS,
        bound=lambda: StoreBound(limit_bytes=limit_bytes[0], near_bytes=limit_bytes[0] // 2),
        usage=AlertRetention(ingest.engine).usage,
    )
    with running(ingest, StoreWatch([alerts], SETTINGS)) as device:
        kinds = iter(range(1000))

        def is_stopped() -> bool:
            device.send(kind=TopicClass.ALERT, alert_type=f"kind_{next(kinds)}", severity="warning", message="hot")
            return names_in_status(ingest, "alert", "store alerts is full")()

        assert eventually(is_stopped)
        assert ingest.status().stores["alerts"].text.startswith("alerts holds ")
        for _ in range(5):
            device.send(kind=TopicClass.ALERT, alert_type=f"kind_{next(kinds)}", severity="warning", message="hot")
        device.send()
        assert eventually(lambda: len(ingest.stored()) == 1)
        num_alerts = accepted(device) - 1
        assert stored_alerts(ingest) < num_alerts
        limit_bytes[0] = 10**9
        assert eventually(lambda: stored_alerts(ingest) == num_alerts)
        assert eventually(lambda: not ingest.status().blocked)


def test_a_valkey_at_its_memory_bound_stops_readings_until_there_is_room(mqtt_url: str, tmp_path: Path) -> None:
    """Above 80 % nothing is acknowledged; alerts go on; afterwards everything accepted is there once."""
    valkey = own_valkey(tmp_path / "valkey", max_memory_mb=16)
    valkey.start()
    ingest = Ingest(mqtt_url, valkey.url, make_engine(tmp_path))
    try:
        with running(ingest, None) as device, redis.Redis.from_url(valkey.url) as client:
            assert device.send()
            assert eventually(lambda: len(ingest.stored()) == 1)
            fillers = [f"filler{number}" for number in range(52)]
            for name in fillers:
                client.set(name, b"x" * (MIB // 4))

            def is_stopped() -> bool:
                device.send()
                return names_in_status(ingest, "telemetry", "of its memory")()

            assert eventually(is_stopped)
            held = len(ingest.stored())
            device.send(kind=TopicClass.ALERT, alert_type="door_open", severity="warning", message="open")
            assert eventually(lambda: stored_alerts(ingest) == 1)
            sent = accepted(device) - 1
            assert held < sent
            client.delete(*fillers)
            assert eventually(lambda: len(ingest.stored()) == sent)
            assert len(set(ingest.stored_keys())) == sent
    finally:
        valkey.stop()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    yield from mounted(tmp_path / "disk")


@pytest.fixture
def valkey_on_disk(disk: SmallDisk) -> Iterator[StoppableService]:
    """A Valkey whose log is on the small disk."""
    valkey = own_valkey(disk.folder / "valkey", max_memory_mb=256)
    valkey.start()
    yield valkey
    valkey.stop()


def send_both(device: CountingDevice, number: int) -> None:
    device.send()
    device.send(kind=TopicClass.ALERT, alert_type=f"kind_{number}", severity="warning", message="hot" * 50)


def test_ingest_stops_before_the_disk_is_full(mqtt_url: str, disk: SmallDisk, valkey_on_disk: StoppableService) -> None:
    """Both stores on it are spared; it goes on within a moment of there being room."""
    ingest = Ingest(mqtt_url, valkey_on_disk.url, make_engine(disk.folder))
    watch = StoreWatch([], StoresSettings(check_s=0.1, disk_free_bytes=4 * MIB), disk=disk.folder)
    with running(ingest, watch) as device:
        send_both(device, 0)
        assert eventually(lambda: stored_alerts(ingest) == len(ingest.stored()) == 1)
        disk.fill(leave_bytes=3 * MIB)
        assert eventually(lambda: ingest.status().stores["disk"].level == "full")
        for number in range(1, 30):
            send_both(device, number)
        for lane in ("telemetry", "alert"):
            assert eventually(names_in_status(ingest, lane, "store disk is full"))
        assert accepted(device) == 60
        assert (stored_alerts(ingest), len(ingest.stored())) == (1, 1)
        disk.filler.unlink()
        assert eventually(lambda: (stored_alerts(ingest), len(set(ingest.stored_keys()))) == (30, 30))
        assert eventually(lambda: not ingest.status().blocked)


def test_a_disk_that_is_really_full_loses_nothing_accepted(
    mqtt_url: str, disk: SmallDisk, valkey_on_disk: StoppableService
) -> None:
    """ENOSPC in SQLite, and in Valkey, which ends itself rather than confirm what it cannot write."""
    ingest = Ingest(mqtt_url, valkey_on_disk.url, make_engine(disk.folder))
    with running(ingest, StoreWatch([], SETTINGS, disk=disk.folder)) as device, ExitStack() as undo:
        undo.callback(disk.filler.unlink, missing_ok=True)
        send_both(device, 0)
        assert eventually(lambda: stored_alerts(ingest) == len(ingest.stored()) == 1)
        disk.fill(leave_bytes=0)
        numbers = iter(range(1, 100_000))

        def is_stopped(lane: str) -> Callable[[], bool]:
            def check() -> bool:
                send_both(device, next(numbers))
                return lane in ingest.status().blocked

            return check

        for lane in ("telemetry", "alert"):
            assert eventually(is_stopped(lane)), ingest.status()
        sent = accepted(device) // 2
        disk.filler.unlink()
        # As the supervisor of a floor does for its own.
        valkey_on_disk.kill()
        valkey_on_disk.start()
        assert eventually(lambda: stored_alerts(ingest) == sent)
        assert eventually(lambda: len(set(ingest.stored_keys())) == len(ingest.stored()) == sent)
