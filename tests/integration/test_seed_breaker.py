"""The seed's third test, with real parts: the breaker around publishing to a broker that is stopped.

Publishing runs as tasks in the ``external`` lane; whether the circuit is open is asked from
this process, which makes none of the calls.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import ray
from local_ray import local_ray

from cluster import names
from cluster.breaker import Breaker
from cluster.breaker_redis import RedisSharing
from cluster.circuit import BreakerSettings, CircuitState
from cluster.embedded import Credentials, EmbeddedService, EmbeddedSettings, mqtt_service
from cluster.errors import CircuitOpenError
from cluster.ports import free_port
from cluster.process import Child
from ingest.commands import publish_mqtt_task
from ingest.errors import BrokerUnavailableError
from ingest.mqtt_address import MqttAddress

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.mqtt, pytest.mark.timeout(180)]

SERVICE = "mqtt_broker"
TOPIC = "wf/demo/pump-1/cmd"
OPEN_S = 8.0
"""Instead of 300 s, so that nobody waits five minutes; the state machine is tested with both."""


class Broker:
    """A real broker that can be stopped and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self.service: EmbeddedService = mqtt_service(
            folder, free_port(), Credentials.load_or_create(folder), EmbeddedSettings()
        )
        self.child: Child | None = None

    def start(self) -> None:
        self.child = self.service.start()
        self.service.wait_ready(self.child, 20)

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def observer(redis_url: str) -> Iterator[Breaker]:
    """The circuits as a process sees them that makes no call."""
    breaker = Breaker(BreakerSettings(open_s=OPEN_S))
    sharing = RedisSharing(redis_url, breaker, 0.2)
    breaker.share(sharing)
    yield breaker
    sharing.close()


def eventually(check: Callable[[], bool], within_s: float = 20.0) -> bool:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        if check():
            return True
        time.sleep(0.05)
    return check()


def device(url: str, received: list[bytes], subscribed: threading.Event) -> paho.Client:
    """A device that listens for its commands and comes back by itself after an outage."""
    address = MqttAddress.parse(url)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="pump-1", clean_session=False)
    client.username_pw_set(address.username, address.password)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda connected, *_: connected.subscribe(TOPIC, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: received.append(message.payload)
    client.connect(address.host, address.port)
    client.loop_start()
    return client


def test_breaker_opens_after_five_failed_publishes_and_closes_after_the_broker_is_back(
    broker: Broker, redis_url: str, observer: Breaker
) -> None:
    """Broker stopped: five failures open the circuit everywhere; broker back: the next probe closes it."""
    received: list[bytes] = []
    subscribed = threading.Event()
    env = {"MQTT_URL": broker.service.url, "REDIS_URL": redis_url, "WATCHFLOOR_BREAKER_OPEN_S": str(OPEN_S)}
    with local_ray(env=env) as head:
        ray.init(address=head.address, namespace=names.NAMESPACE, log_to_driver=False)
        client = device(broker.service.url, received, subscribed)
        try:
            assert subscribed.wait(20)
            publish_mqtt_task.submit(TOPIC, b"before").result(60)
            assert eventually(lambda: received == [b"before"])
            assert not observer.is_open(SERVICE)

            broker.stop()
            for number in range(5):
                assert not observer.is_open(SERVICE), f"open after {number} failures"
                with pytest.raises((BrokerUnavailableError, TimeoutError)):
                    publish_mqtt_task.submit(TOPIC, b"lost", timeout_s=2.0).result(60)
            assert eventually(lambda: observer.is_open(SERVICE), 2)
            with pytest.raises(CircuitOpenError):
                publish_mqtt_task.submit(TOPIC, b"refused").result(60)

            broker.start()
            subscribed.clear()
            assert subscribed.wait(20)
            assert eventually(lambda: not observer.is_open(SERVICE), OPEN_S + 2)
            publish_mqtt_task.submit(TOPIC, b"after").result(60)

            assert eventually(lambda: received == [b"before", b"after"])
            assert eventually(lambda: observer.snapshot()[0].state is CircuitState.CLOSED)
        finally:
            client.disconnect()
            client.loop_stop()
            ray.shutdown()
