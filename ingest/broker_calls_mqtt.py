"""Short visits to the broker: does it share subscriptions, speak a marker, end a session.

Network file. Each call connects, does one thing and leaves. Invariant: no call outlives its
time, and what goes wrong is an ``OSError``, as of any connection.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import paho.mqtt.client as paho

from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client
from ingest.topics import TopicClass, TopicTree

TIMEOUT_S = 5.0
SHARED_WAIT_S = 1.5
"""A broker that shares delivers at once; one that does not never does."""
KEEPALIVE_S = 10

Result = TypeVar("Result")


def has_shared_subscriptions(address: MqttAddress, tree: TopicTree) -> bool:
    """Say whether the broker deals messages out by ``$share``.

    Asked by trying: nats-server grants such a filter and never delivers anything on it, and
    MQTT 3.1.1 has no word for it although mosquitto shares there too.

    Raises:
        OSError: the broker cannot be reached, or refuses.
    """
    topic = marker_topic(tree, "-")
    arrived = threading.Event()

    def visit(client: paho.Client, deadline_s: float) -> bool:
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda *_: arrived.set()
        client.subscribe(f"$share/probe-{uuid.uuid4().hex}/{topic}", qos=1)
        if not subscribed.wait(max(0.0, deadline_s - time.monotonic())):
            raise TimeoutError("no answer to a subscription")
        client.publish(topic, b"", qos=1).wait_for_publish(max(0.1, deadline_s - time.monotonic()))
        return arrived.wait(SHARED_WAIT_S)

    return _visit(address, f"probe-{uuid.uuid4().hex[:12]}", visit)


def publish_marker(address: MqttAddress, topic: str) -> None:
    """Publish an empty message; whoever receives it has received what was accepted before it.

    Raises:
        OSError: the broker cannot be reached, or did not take it.
    """

    def visit(client: paho.Client, deadline_s: float) -> None:
        sent = client.publish(topic, b"", qos=1)
        sent.wait_for_publish(max(0.1, deadline_s - time.monotonic()))
        if not sent.is_published():
            raise TimeoutError("the broker did not take a marker")

    _visit(address, f"marker-{uuid.uuid4().hex[:12]}", visit)


def end_session(address: MqttAddress, client_id: str) -> None:
    """Make the broker forget a session and all that it keeps for it.

    Raises:
        OSError: the broker cannot be reached, or refuses.
    """
    # A connection without a session replaces the one with, in every version.
    _visit(address, client_id, lambda _client, _deadline_s: None)


def marker_topic(tree: TopicTree, tenant: str) -> str:
    """Return a topic for one marker; of a class that nobody stores, for a device that does not exist."""
    return tree.build(TopicClass.COMMAND, tenant, f"marker-{uuid.uuid4().hex}")


def _visit(address: MqttAddress, client_id: str, act: Callable[[paho.Client, float], Result]) -> Result:
    deadline_s = time.monotonic() + TIMEOUT_S
    client = new_client(address.speaking("3.1.1"), client_id, has_session=False, connect_timeout_s=TIMEOUT_S)
    answered = threading.Event()
    refusals: list[str] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            refusals.append(str(code))
        answered.set()

    client.on_connect = on_connect
    connect(client, address.speaking("3.1.1"), keepalive_s=KEEPALIVE_S, has_session=False)
    client.loop_start()
    try:
        if not answered.wait(TIMEOUT_S):
            raise TimeoutError(f"{address} accepted a connection and did not answer")
        if refusals:
            raise ConnectionError(f"{address} refused: {refusals[0]}")
        try:
            return act(client, deadline_s)
        except (RuntimeError, ValueError) as error:  # paho's words for a connection that went away
            raise ConnectionError(f"{address}: {error}") from error
    finally:
        client.disconnect()
        client.loop_stop()
