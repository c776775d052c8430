"""Publishing to the broker: ``publish_mqtt``, checked at the door and guarded by a circuit breaker.

A topic or payload that cannot be sent is the caller's mistake (ValueError) and says nothing
about the broker; a broker that does not confirm in time counts against it. Invariant: when
``publish_mqtt`` returns, the broker has accepted the message.
"""

import threading
from typing import Any

import orjson

from cluster.breaker import get_breaker
from cluster.settings import Settings
from cluster.task import task
from ingest.delivery import MAX_PAYLOAD_BYTES
from ingest.mqtt_address import MqttAddress
from ingest.publisher_mqtt import MqttPublisher, Request
from ingest.topics import is_level

SERVICE = "mqtt_broker"
DEFAULT_TIMEOUT_S = 10.0
MAX_TOPIC_CHARS = 255
MAX_TOPIC_LEVELS = 7

Payload = bytes | str | dict[str, Any] | list[Any]

_publishers: dict[str, MqttPublisher] = {}
_publishers_lock = threading.Lock()


def publish_mqtt(
    topic: str, payload: Payload, timeout_s: float = DEFAULT_TIMEOUT_S, request: Request | None = None
) -> None:
    """Publish one message with QoS 1 and return when the broker has accepted it.

    Args:
        topic: levels of [A-Za-z0-9_-], at most 7; no wildcards.
        payload: bytes and text go as they are; anything else as JSON. At most 256 KiB.
        timeout_s: for connecting, sending and the PUBACK together.
        request: what MQTT 5 says beside a request; None: it is none.

    Raises:
        ValueError: the topic or the payload cannot be sent; nothing was tried.
        CircuitOpenError: the broker failed too often a moment ago; nothing was tried.
        BrokerRefusedError: MQTT 5: the broker will not take this message.
        BrokerUnavailableError: it refused the connection or went away; delivery is unknown.
        TimeoutError: no PUBACK in time; delivery is unknown.
    """
    check_topic(topic)
    data = encode_payload(payload)
    if timeout_s <= 0:
        raise ValueError(f"timeout_s must be positive, got {timeout_s}")
    publisher = _publisher(Settings.load().mqtt_url)
    with get_breaker().call(SERVICE, timeout_s=timeout_s) as deadline:
        publisher.publish(topic, data, deadline.remaining_s(), request)


@task(lane="external")
def publish_mqtt_task(topic: str, payload: Payload, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """``publish_mqtt`` in the lane for calls of external services."""
    publish_mqtt(topic, payload, timeout_s)


def check_topic(topic: str) -> None:
    """Raise ValueError unless every broker of ours takes a message on ``topic``."""
    levels = topic.split("/")
    if len(topic) > MAX_TOPIC_CHARS or len(levels) > MAX_TOPIC_LEVELS:
        raise ValueError(f"a topic has at most {MAX_TOPIC_CHARS} characters and {MAX_TOPIC_LEVELS} levels")
    if not all(is_level(level) for level in levels):
        # A space or a dot makes nats-server drop the connection, which would look like an outage.
        raise ValueError("every level of a topic must be 1-64 of [A-Za-z0-9_-]")


def encode_payload(payload: Payload, reserved_bytes: int = 0) -> bytes:
    """Return the bytes of a payload that leaves ``reserved_bytes`` of the limit free.

    Raises:
        ValueError: it is too large, or no JSON can say it.
    """
    if isinstance(payload, bytes):
        data = payload
    elif isinstance(payload, str):
        data = payload.encode()
    else:
        try:
            data = orjson.dumps(payload)
        except orjson.JSONEncodeError as error:
            raise ValueError(f"the payload is no JSON: {error}") from error
    limit = MAX_PAYLOAD_BYTES - reserved_bytes
    if len(data) > limit:
        raise ValueError(f"a payload has at most {limit} bytes, got {len(data)}")
    return data


def _publisher(url: str) -> MqttPublisher:
    with _publishers_lock:
        if url not in _publishers:
            _publishers[url] = MqttPublisher(MqttAddress.parse(url))
        return _publishers[url]
