"""The load generator's books against what a subscriber of the same broker received."""

import json
import threading
from typing import Any

import pytest
from ingest_parts import eventually

from ingest.generate import TENANT, generate
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client
from ingest.topics import TopicTree

pytestmark = pytest.mark.mqtt

NUM_DEVICES = 6


def test_what_the_generator_calls_accepted_was_received(mqtt_url: str) -> None:
    """Every accepted reading, each once, of every device, and none that the books do not have."""
    address, tree = MqttAddress.parse(mqtt_url), TopicTree("generate")
    received: list[tuple[str, str, int]] = []
    subscribed = threading.Event()
    client = new_client(address, "generate-listener", has_session=False, reconnects=False)
    client.on_connect = lambda connected, *_: connected.subscribe(f"generate/{TENANT}/+/telemetry", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        reading = json.loads(message.payload)
        received.append((message.topic.split("/")[2], reading["boot_id"], reading["seq"]))

    client.on_message = on_message
    connect(client, address, keepalive_s=5, has_session=False)
    client.loop_start()
    try:
        assert subscribed.wait(10.0)
        stop = threading.Event()
        # Ended by what was received and not by time: a busy machine takes as long as it takes.
        ending = threading.Thread(target=lambda: (eventually(lambda: len(received) >= 100, 60.0), stop.set()))
        ending.start()
        accepted = generate(
            address, tree, rate=500, seconds=0, num_devices=NUM_DEVICES, num_connections=2, seed=1, stop=stop
        )
        ending.join()
        assert eventually(lambda: len(received) >= len(accepted))
    finally:
        client.disconnect()
        client.loop_stop()

    assert len(accepted) >= 100
    assert sorted(received) == sorted(accepted)
    assert {device for device, _, _ in accepted} == {f"load-{number}" for number in range(NUM_DEVICES)}
