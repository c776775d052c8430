"""Commands over a real broker: confirmed, within their time, through outages."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ingest_parts import StoppableService, eventually, own_broker

from ingest.errors import BrokerUnavailableError
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client
from ingest.publisher_mqtt import MqttPublisher

pytestmark = pytest.mark.mqtt

TOPIC = "wf/acme/pump-7/cmd"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[StoppableService]:
    broker = own_broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def publisher(broker: StoppableService) -> Iterator[MqttPublisher]:
    publisher = MqttPublisher(MqttAddress.parse(broker.url))
    yield publisher
    publisher.close()


@pytest.fixture
def received(broker: StoppableService) -> Iterator[Callable[[], list[bytes]]]:
    """What a device on the topic got."""
    payloads: list[bytes] = []
    subscribed = threading.Event()
    address = MqttAddress.parse(broker.url)
    client = new_client(address, "pump-7", has_session=True, reconnects=True)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda connected, *_: connected.subscribe(TOPIC, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: payloads.append(message.payload)
    connect(client, address, keepalive_s=5, has_session=True)
    client.loop_start()
    assert subscribed.wait(10.0)
    yield lambda: payloads
    client.disconnect()
    client.loop_stop()


def test_a_command_reaches_its_device(publisher: MqttPublisher, received: Callable[[], list[bytes]]) -> None:
    """Several over one connection, each confirmed, in order."""
    for number in range(20):
        publisher.publish(TOPIC, b"%d" % number, timeout_s=5.0)

    assert eventually(lambda: received() == [b"%d" % number for number in range(20)])


def test_a_stopped_broker_costs_no_more_than_the_deadline(broker: StoppableService, publisher: MqttPublisher) -> None:
    """It accepts bytes and answers nothing: the caller hears of it in time, on an old and on a new connection."""
    publisher.publish(TOPIC, b"before", timeout_s=5.0)
    broker.pause()
    for _ in range(2):
        started_s = time.monotonic()
        with pytest.raises(TimeoutError):
            publisher.publish(TOPIC, b"lost", timeout_s=1.0)
        assert time.monotonic() - started_s < 2.5
    broker.resume()
    publisher.publish(TOPIC, b"after", timeout_s=5.0)


def test_a_killed_broker_is_named_and_the_next_command_after_its_return_goes_out(
    broker: StoppableService, publisher: MqttPublisher, received: Callable[[], list[bytes]]
) -> None:
    """And a command that failed is not sent later behind the caller's back."""
    publisher.publish(TOPIC, b"before", timeout_s=5.0)
    assert eventually(lambda: received() == [b"before"])
    broker.kill()
    for _ in range(3):
        with pytest.raises((BrokerUnavailableError, TimeoutError)):
            publisher.publish(TOPIC, b"lost", timeout_s=1.0)
    broker.start()

    publisher.publish(TOPIC, b"after", timeout_s=5.0)
    assert eventually(lambda: b"after" in received())
    assert received()[-2:] == [b"before", b"after"]


def test_a_wrong_password_is_a_refusal(broker: StoppableService) -> None:
    """Not a time-out: the text says what the broker said."""
    address = MqttAddress.parse(broker.url.replace("watchfloor:", "watchfloor:wrong"))
    publisher = MqttPublisher(address)
    with pytest.raises((BrokerUnavailableError, TimeoutError)):
        publisher.publish(TOPIC, b"x", timeout_s=3.0)
    publisher.close()


def test_several_threads_share_the_connection(publisher: MqttPublisher, received: Callable[[], list[bytes]]) -> None:
    """Each call returns with its own PUBACK."""
    threads = [threading.Thread(target=publisher.publish, args=(TOPIC, b"%d" % number, 10.0)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert eventually(lambda: sorted(received()) == sorted(b"%d" % number for number in range(16)))
