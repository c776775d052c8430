"""The detector's actor on a real Ray, Valkey, SQLite and hub."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from cluster import migrate, names
from cluster.settings import Settings
from cluster.store import open_engine
from ingest.alerts.model import Alert
from ingest.alerts.store import AlertQuery, AlertStore
from ingest.detector_actor import get_or_create_detector
from ingest.telemetry_redis import TelemetryStream
from realtime.hub_actor import get_or_create_hub
from tests.fakes_alerts import FakeClock, readings
from tests.signals import SHIFT, a_day_with_faults

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    url = f"sqlite:///{tmp_path}/floor.db"
    migrate.upgrade(url)
    return Settings(database_url=url, redis_url=redis_url, data_dir=str(tmp_path))


@pytest.fixture
def _ray() -> Iterator[None]:
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


def wait_until(what: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.usefixtures("_ray")
async def test_alerts_reach_the_hub_and_survive_the_actors_death(settings: Settings) -> None:
    """Killed (SIGKILL) between two faults, the detector comes back by itself and raises the second, once."""
    hub = get_or_create_hub(settings)
    stream = TelemetryStream.open(settings.redis_url)
    stream.check()
    store = AlertStore(open_engine(settings.database_url), FakeClock())
    telemetry = readings(a_day_with_faults())
    detector = get_or_create_detector(settings)

    def alerts() -> tuple[Alert, ...]:
        return store.list(AlertQuery()).items

    stream.append(telemetry[:1600])
    wait_until(lambda: len(alerts()) == 1)
    wait_until(lambda: stream.lag(names.DETECTOR_GROUP) == 0)
    pid = ray.get(detector.status.remote())["pid"]
    os.kill(pid, signal.SIGKILL)
    stream.append(telemetry[1600:])
    wait_until(lambda: len(alerts()) == 2)
    wait_until(lambda: stream.lag(names.DETECTOR_GROUP) == 0)

    status = ray.get(detector.status.remote(), timeout=30)
    assert (status["model"], status["version"], status["problem"]) == ("ar-baseline", "1", None)
    assert status["readings_total"] <= len(telemetry) - 1600
    assert [alert.occurrence for alert in alerts()] == [2, 1]
    assert alerts()[0].starts_at - telemetry[0].ts >= SHIFT
    wait_until(lambda: all(event.broadcast_at for alert in alerts() for event in store.get(alert.id).events))
    history = await hub.history(names.CHANNEL_NOC, None, 300)
    told = [json.loads(publication.data)["data"] for publication in history.publications]
    raised = [data["alert_id"] for data in told if data["action"] == "raised"]
    assert raised == [alert.id for alert in reversed(alerts())]
    assert len({data["event_id"] for data in told}) == len(told)
