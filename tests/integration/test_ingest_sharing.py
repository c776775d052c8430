"""Several ingest actors at real brokers: each message stored once, also while their number changes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest
from ingest_parts import Ingest, StoppableService, eventually, make_engine, own_broker, own_mosquitto
from sqlalchemy import Engine

from ingest.device_mqtt import DeviceConnection
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.session_store import SessionStore
from ingest.sharing import Sharing
from ingest.topics import TopicClass, TopicTree

pytestmark = [pytest.mark.mqtt, pytest.mark.redis]

ROOT = "sharing"
TENANTS = ("acme", "beta")


class Floor:
    """Ingest actors of one floor, as threads of this process, and a device that talks for all tenants."""

    def __init__(self, broker: StoppableService, redis_url: str, engine: Engine) -> None:
        self.broker = broker
        self.redis_url = redis_url
        self.engine = engine
        self.sessions = SessionStore(engine)
        self.running: list[Ingest] = []
        self.seq = 0
        self.device: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(broker.url), "sharing-device")
        self.device.start()
        assert self.device.wait_connected(20.0)

    def run(self, actors: int, tenants: tuple[str, ...] = ()) -> None:
        """Start over with so many actors."""
        self.stop()
        settings = IngestSettings(tick_s=0.1, directory_s=0.2, actors=actors, tenants=tenants)
        for index in range(actors):
            ingest = Ingest(self.broker.url, self.redis_url, self.engine, root=ROOT, settings=settings, index=index)
            ingest.start(wait=False)
            self.running.append(ingest)

    def is_settled(self) -> bool:
        """Say whether every actor is subscribed and nobody else has a session."""
        found = {one.client_id: one.is_settled for one in self.sessions.all()}
        return found == {f"ingest-{ROOT}-{index}": True for index in range(len(self.running))}

    def send(self, count: int) -> None:
        """Publish readings of all tenants in turn."""
        for _ in range(count):
            tenant = (*TENANTS, "unlisted")[self.seq % 3]
            topic = TopicTree(ROOT).build(TopicClass.TELEMETRY, tenant, "pump")
            document = {"boot_id": "b", "seq": self.seq, "values": {"n": self.seq}}
            assert self.device.publish(topic, orjson.dumps(document), self.seq, 10.0)
            self.seq += 1
        assert eventually(lambda: self.device.num_open() == 0)

    def stored(self) -> list[int]:
        """Return the numbers in the stream, repetitions included."""
        (stream,) = {ingest.stream for ingest in self.running[:1]}
        return sorted(entry.reading.seq or 0 for entry in stream.history(100_000))

    def has_all(self) -> bool:
        """Say whether every reading that was accepted is stored, each once."""
        return self.stored() == list(range(self.seq))

    def shares(self) -> list[int]:
        """Return how many readings each actor has stored."""
        return [ingest.service._observer.readings_stored for ingest in self.running if ingest.service is not None]

    def stop(self) -> None:
        """Stop the actors."""
        for ingest in self.running:
            ingest.stop()
            ingest.stream.close()
        self.running = []


@pytest.fixture
def make_floor(tmp_path: Path, redis_url: str) -> Iterator[Callable[[StoppableService], Floor]]:
    with ExitStack() as ending:

        def make(broker: StoppableService) -> Floor:
            broker.start()
            ending.callback(broker.stop)
            engine = make_engine(tmp_path)
            ending.callback(engine.dispose)
            floor = Floor(broker, redis_url, engine)
            ending.callback(floor.device.stop)
            ending.callback(floor.stop)
            return floor

        yield make


@pytest.mark.mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_shares_deals_out_and_scaling_down_loses_nothing(
    tmp_path: Path, make_floor: Callable[[StoppableService], Floor], version: str
) -> None:
    """One actor, then two, then one: what the broker held for the second is stored before its session ends."""
    floor = make_floor(own_mosquitto(tmp_path / "b", version))
    floor.run(1)
    assert eventually(floor.is_settled)
    floor.send(60)
    assert eventually(floor.has_all)

    floor.run(2)
    assert eventually(floor.is_settled)
    floor.send(300)
    assert eventually(floor.has_all)
    assert min(floor.shares()) > 0

    for ingest in floor.running:
        ingest.stop()
    floor.send(300)
    floor.run(1)
    assert eventually(floor.has_all, 30.0)
    assert eventually(floor.is_settled, 30.0)
    floor.send(30)
    assert eventually(floor.has_all)


def test_without_shared_subscriptions_tenants_are_dealt_out(
    tmp_path: Path, make_floor: Callable[[StoppableService], Floor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-server: a tenant of its own for the second actor, all others for the first; up, another list, and down."""
    # The broker of this test repeats after a second; twelve would only be waiting.
    monkeypatch.setattr("ingest.drain.PLAIN_QUIET_S", 4.0)
    floor = make_floor(own_broker(tmp_path / "b", ack_wait_s=1))
    floor.run(1)
    assert eventually(floor.is_settled)
    floor.send(30)
    floor.run(2, TENANTS)
    assert eventually(floor.is_settled)
    assert eventually(lambda: first_sharing(floor)._elsewhere == {"acme"})
    before = floor.shares()[1]
    floor.send(90)
    assert eventually(floor.has_all)
    assert floor.shares()[1] - before == 30

    # From here on only the second actor's session has them: the first one has acknowledged its copies.
    for actors, tenants in ((2, TENANTS[::-1]), (1, ())):
        assert eventually(lambda: len(first_sharing(floor)._elsewhere) == 1)
        floor.running[1].stop()
        floor.send(90)
        assert eventually(lambda: floor.running[0].status().window == 0)
        assert not floor.has_all()
        floor.run(actors, tenants)
        assert eventually(floor.has_all, 40.0)
        assert eventually(floor.is_settled, 40.0)
        floor.send(30)
        assert eventually(floor.has_all)


def first_sharing(floor: Floor) -> Sharing:
    """Return the first actor's view of the others."""
    first = floor.running[0].service
    assert first is not None
    return first._sharing


def test_without_a_list_one_actor_does_the_work_of_two(
    tmp_path: Path, make_floor: Callable[[StoppableService], Floor]
) -> None:
    """nats-server grants a shared filter and delivers nothing on it; that is found out, and nothing is lost."""
    floor = make_floor(own_broker(tmp_path / "b"))
    floor.run(2)
    assert eventually(floor.is_settled)
    floor.send(60)

    assert eventually(floor.has_all)
    assert floor.shares() == [60, 0]
