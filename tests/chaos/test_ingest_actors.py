"""The number of ingest actors on a real Ray: as many as the settings say, and no reading lost when there are fewer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ingest_parts import CountingDevice, eventually, make_engine, own_mosquitto, own_valkey

from cluster import names
from cluster.settings import Settings
from cluster.store import open_engine
from ingest.ingest_actor import get_or_create_ingest
from ingest.session_store import SessionStore
from ingest.telemetry_redis import TelemetryStream
from realtime.hub_actor import get_or_create_hub

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.mosquitto,
    pytest.mark.redis,
    pytest.mark.timeout(180),
]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    broker, valkey = own_mosquitto(tmp_path / "mqtt", "auto"), own_valkey(tmp_path / "redis")
    make_engine(tmp_path).dispose()
    broker.start()
    valkey.start()
    yield Settings(
        mqtt_url=broker.url,
        redis_url=valkey.url,
        database_url=f"sqlite:///{tmp_path}/floor.db",
        storage_url=f"file://{tmp_path}/storage",
        data_dir=str(tmp_path),
    )
    broker.stop()
    valkey.stop()


@contextmanager
def floor(settings: Settings, actors: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Ray with the floor's hub and so many ingest actors; yields the names of those that run."""
    monkeypatch.setenv("WATCHFLOOR_INGEST_ACTORS", str(actors))
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        get_or_create_hub(settings)
        assert len(get_or_create_ingest(settings)) == actors
        found = ray.util.list_named_actors(all_namespaces=True)
        yield sorted(one["name"] for one in found if one["name"].startswith("ingest-"))
    finally:
        ray.shutdown()


def test_as_many_actors_as_the_settings_say(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two share the work; after a restart with one, what the broker held for the other is stored as well."""
    sessions = SessionStore(open_engine(settings.database_url))
    stream = TelemetryStream.open(settings.redis_url)
    with floor(settings, 2, monkeypatch) as running:
        assert running == ["ingest-0", "ingest-1"]
        assert eventually(lambda: [one.is_settled for one in sessions.all()] == [True, True], 30.0)
        device = CountingDevice(settings.mqtt_url, settings.topic_root, "pump")
        assert all(device.send() for _ in range(200))
        assert device.wait_all_acknowledged()
        assert eventually(lambda: stream.total() == 200, 30.0)
    assert all(device.send() for _ in range(200))
    assert device.wait_all_acknowledged()

    with floor(settings, 1, monkeypatch) as running:
        assert running == ["ingest-0"]
        assert eventually(lambda: stream.total() == 400, 30.0)
        assert eventually(lambda: [one.client_id for one in sessions.all()] == ["ingest-0"], 30.0)
    device.close()
