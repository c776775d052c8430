"""The hub killed and stopped while devices raise alerts: each accepted one is stored once and told once."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ingest_parts import CountingDevice, Ingest, StoppableService, eventually, make_engine, own_broker, own_valkey
from sqlalchemy import ColumnElement, func, select

from cluster import names
from cluster.settings import Settings
from cluster.store import read_transaction
from ingest.alerts.relay import Relay
from ingest.alerts.tables import alert_events
from ingest.topics import TopicClass
from realtime.hub_actor import get_or_create_hub
from realtime.hub_client import HubClient

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.mqtt,
    pytest.mark.redis,
    pytest.mark.timeout(300),
]

ALERTS = 40
STOPPED_S = 8.0
"""Longer than the relay waits for an answer (5 s)."""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[StoppableService, StoppableService]]:
    made = own_broker(tmp_path / "mqtt", ack_wait_s=1), own_valkey(tmp_path / "redis")
    for service in made:
        service.start()
    yield made
    for service in made:
        service.stop()


@pytest.fixture
def hub(services: tuple[StoppableService, StoppableService], tmp_path: Path) -> Iterator[HubClient]:
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    broker, valkey = services
    yield get_or_create_hub(Settings(mqtt_url=broker.url, redis_url=valkey.url, data_dir=str(tmp_path)))
    ray.shutdown()


def hub_pid() -> int:
    handle = ray.get_actor(names.HUB, namespace=names.NAMESPACE)
    return int(ray.get(handle.__ray_call__.remote(lambda _self: os.getpid()), timeout=20))


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
async def test_accepted_alerts_are_told_once(
    services: tuple[StoppableService, StoppableService], hub: HubClient, tmp_path: Path, fault: str
) -> None:
    """Ingest never waits for the hub: it commits and acknowledges, and the relay catches up."""
    broker, valkey = services
    engine = make_engine(tmp_path)
    relay = Relay(engine, hub)
    relay.start()
    ingest = Ingest(broker.url, valkey.url, engine)
    ingest.start()
    device = CountingDevice(broker.url, ingest.root, "door-1")

    def raise_alerts(count: int) -> None:
        for _ in range(count):
            kind = f"open-{device.next_seq()}"
            assert device.send(kind=TopicClass.ALERT, alert_type=kind, severity="high", message="x")
            time.sleep(0.01)

    def count(*where: ColumnElement[bool]) -> int:
        with read_transaction(engine) as connection:
            return int(connection.execute(select(func.count()).select_from(alert_events).where(*where)).scalar_one())

    raise_alerts(ALERTS)
    pid = hub_pid()
    began_s = time.monotonic()
    os.kill(pid, getattr(signal, fault))
    raise_alerts(ALERTS)
    assert device.wait_all_acknowledged()
    assert eventually(lambda: count() == 2 * ALERTS), "alerts are committed without the hub"
    if fault == "SIGSTOP":
        await asyncio.sleep(max(0.0, STOPPED_S - (time.monotonic() - began_s)))
        assert count(alert_events.c.broadcast_at.is_(None)) > 0, "nothing waited for the hub"
        os.kill(pid, signal.SIGCONT)
        began_s = time.monotonic()
    assert eventually(lambda: count(alert_events.c.broadcast_at.is_(None)) == 0, 60.0)
    print({"fault": f"hub {fault}", "accepted": 2 * ALERTS, "recovery_s": round(time.monotonic() - began_s, 2)})

    history = await hub.history(names.CHANNEL_NOC, None, 500)
    told = Counter(json.loads(one.data)["data"]["event_id"] for one in history.publications)
    with read_transaction(engine) as connection:
        stored = {row.id for row in connection.execute(select(alert_events.c.id))}
    assert len(stored) == len(device.acknowledged()) == 2 * ALERTS
    assert set(told) == stored
    assert set(told.values()) == {1}
    device.close()
    ingest.stop()
    ingest.stream.close()
    relay.close()
    engine.dispose()
