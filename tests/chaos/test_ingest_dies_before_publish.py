"""Ingest killed between commit and publish: a client of the gateway hears every stored alert, each event once."""

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray
import redis.asyncio
import uvicorn
from ingest_parts import CountingDevice, Ingest, eventually, make_engine, own_broker, own_valkey
from sqlalchemy import Engine, select

from cluster import names
from cluster.metrics_client import MetricsClient
from cluster.ports import LOOPBACK, free_port
from cluster.run_queue_client import RunQueueClient
from cluster.settings import Settings
from cluster.store import read_transaction
from ingest.alerts.external_store import ExternalAlertSettings
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.alerts.tables import alert_events, alerts
from ingest.command_desk import CommandDesk
from ingest.command_store import CommandSettings
from ingest.directory import DeviceDirectory, DeviceEntry
from ingest.topics import TopicClass
from realtime.hub_actor import get_or_create_hub
from realtime.hub_client import HubClient
from serve_apps.app import create_app
from serve_apps.auth import Authenticator, issue_token
from serve_apps.deps import GatewayDeps
from serve_apps.disabled_users import DisabledUsers
from serve_apps.signin_redis import UsedLinks
from tests.e2e.listener import SdkListener
from training.labelling.label_client import LabelQueueClient

pytestmark = [
    pytest.mark.ray,
    pytest.mark.mqtt,
    pytest.mark.redis,
    pytest.mark.timeout(300),
]

ROUNDS = 50
SECRET = b"s" * 64
PROGRAM = Path(__file__).with_name("dying_ingest.py")


class Killed(BaseException):
    """Stands for a SIGKILL of the relay's process."""


class DyingRelay(Relay):
    """Dies when the hub has confirmed and the events are not yet marked."""

    def _mark(self, event_ids: Sequence[str]) -> None:
        raise Killed


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    broker = own_broker(tmp_path / "mqtt", ack_wait_s=1)
    valkey = own_valkey(tmp_path / "redis")
    broker.start()
    valkey.start()
    yield Settings(
        mqtt_url=broker.url,
        redis_url=valkey.url,
        database_url=f"sqlite:///{tmp_path}/floor.db",
        data_dir=str(tmp_path),
    )
    broker.stop()
    valkey.stop()


@pytest.fixture
def hub(settings: Settings) -> Iterator[HubClient]:
    ray.init(
        address="local",
        namespace=names.NAMESPACE,
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield get_or_create_hub(settings)
    ray.shutdown()


@pytest.fixture
def gateway(settings: Settings, hub: HubClient, tmp_path: Path) -> Iterator[str]:
    """The gateway's app over the hub, without Ray Serve and with a relay that never runs: the test has its own."""
    engine = make_engine(tmp_path)
    client = redis.asyncio.from_url(settings.redis_url)
    port = free_port()
    disabled = DisabledUsers(engine)
    deps = GatewayDeps(
        settings=settings,
        engine=engine,
        redis=client,
        hub=hub,
        run_queue=RunQueueClient(),
        metrics=MetricsClient(),
        auth=Authenticator(SECRET, http_port=port, consume=UsedLinks(client).consume, shut_out=disabled),
        relay=Relay(engine, hub),
        alerts=AlertSettings(),
        external_alerts=ExternalAlertSettings(),
        labels=LabelQueueClient(),
        desk=CommandDesk(engine, hub, settings.topic_root, CommandSettings()),
        disabled=disabled,
    )
    server = uvicorn.Server(uvicorn.Config(create_app(deps), host=LOOPBACK, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, name="gateway")
    thread.start()
    assert eventually(lambda: server.started)
    yield f"http://{LOOPBACK}:{port}"
    server.should_exit = True
    thread.join(20)
    engine.dispose()


@pytest.fixture
def floor_wide(gateway: str) -> Iterator[SdkListener]:
    yield from _listening(gateway, "supervisor-0", tenant=None)


@pytest.fixture
def of_tenant(gateway: str) -> Iterator[SdkListener]:
    yield from _listening(gateway, "supervisor-1", tenant="demo")


def _listening(url: str, user: str, tenant: str | None) -> Iterator[SdkListener]:
    """Yield a client of the official SDK that is there before the first alert."""
    token = issue_token(SECRET, sub=user, tenant=tenant, roles=["operator"], clients=["north"], ttl_s=600)
    with SdkListener(url, token) as listener:
        yield listener


@pytest.fixture
def dying_ingest(settings: Settings) -> Iterator["subprocess.Popen[str]"]:
    env = {
        **os.environ,
        "MQTT_URL": settings.mqtt_url,
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
    }
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    with program:
        yield program
        assert program.stdin is not None
        program.stdin.close()


def test_every_stored_alert_reaches_its_listeners_once(
    settings: Settings,
    hub: HubClient,
    dying_ingest: "subprocess.Popen[str]",
    floor_wide: SdkListener,
    of_tenant: SdkListener,
    tmp_path: Path,
) -> None:
    """Fifty kills after the commit; every third time the relay dies too, between the hub and its mark."""
    engine = make_engine(tmp_path)
    devices = [f"door-{number}" for number in range(ROUNDS)]
    DeviceDirectory(engine).register(
        [DeviceEntry("demo", device, "north", "office", f"supervisor-{n % 2}") for n, device in enumerate(devices)]
    )
    last = Ingest(settings.mqtt_url, settings.redis_url, engine, root=settings.topic_root)
    last.start()  # once, so that the broker keeps messages for this client id from now on
    last.stop()
    for number, device in enumerate(devices):
        _send_alert(settings, device)
        _end_one(dying_ingest)
        assert _stored(engine) == number + 1
        assert _untold(engine) > 0, "the process died before anybody was told"
        if number % 3 == 2:
            with pytest.raises(Killed):
                DyingRelay(engine, hub).publish_pending()

    # The next ingest takes what the dead ones left: alerts redelivered, events not told.
    relay = Relay(engine, hub)
    relay.start()
    last.start()
    assert eventually(lambda: _untold(engine) == 0)
    assert eventually(lambda: last.status().window == 0)
    last.stop()
    last.stream.close()
    relay.close()

    assert _stored(engine) == ROUNDS
    with read_transaction(engine) as connection:
        events = {row.id for row in connection.execute(select(alert_events.c.id))}
    assert len(events) == ROUNDS, "a redelivered alert makes no event"
    # Each person hears of an event on three channels at most, and on each of them once: told apart by the event's id.
    assert eventually(lambda: min(len(floor_wide.said), len(of_tenant.said)) >= 2 * ROUNDS + ROUNDS // 2)
    wide, own = _told(floor_wide), _told(of_tenant)
    once = Counter(events)
    assert wide["noc:all"] == wide["noc:client-north"] == own["noc:client-north"] == own["tenant:demo"] == once
    assert wide["user:supervisor-0"] + own["user:supervisor-1"] == once
    assert set(wide) | set(own) == {
        "noc:all", "noc:client-north", "tenant:demo", "user:supervisor-0", "user:supervisor-1"
    }  # fmt: skip
    engine.dispose()


def _send_alert(settings: Settings, device: str) -> None:
    sender = CountingDevice(settings.mqtt_url, settings.topic_root, device)
    assert sender.send(kind=TopicClass.ALERT, alert_type="door_open", severity="critical", message=f"{device} is open")
    assert sender.wait_all_acknowledged()
    sender.close()


def _end_one(program: "subprocess.Popen[str]") -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    assert program.stdout.readline().strip() == "9", "ended by SIGKILL"


def _stored(engine: Engine) -> int:
    with read_transaction(engine) as connection:
        return len(connection.execute(select(alerts.c.id)).all())


def _untold(engine: Engine) -> int:
    with read_transaction(engine) as connection:
        return len(connection.execute(select(alert_events.c.id).where(alert_events.c.broadcast_at.is_(None))).all())


def _told(listener: SdkListener) -> dict[str, Counter[str]]:
    """Return how often each event was heard of, by channel."""
    told: dict[str, Counter[str]] = {}
    for said in listener.said:
        told.setdefault(said.channel, Counter())[said.data["data"]["event_id"]] += 1
    return told
