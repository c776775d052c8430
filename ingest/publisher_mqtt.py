"""Publishing to the broker, confirmed: returns when the PUBACK is here, or says that it is not.

Network file. One connection per process, made at the first message and again after a
failure. Invariants: no call outlives its deadline; after a failure nothing of the message
stays queued here, so a command cannot go out minutes later (the broker may have got it
already: whether it was delivered is then unknown).
"""

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.errors import BrokerRefusedError, BrokerUnavailableError
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client

KEEPALIVE_S = 15
WAIT_STEP_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What makes a message a request in MQTT 5; with 3.1.1 it has no effect."""

    response_topic: str
    correlation: bytes
    expiry_s: int
    """The broker drops the message if it could not deliver it within so many seconds."""


class MqttPublisher:
    """Confirmed publishing over one connection; safe for threads."""

    def __init__(self, address: MqttAddress) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._client: paho.Client | None = None
        self._refusals: dict[int, str] = {}

    def publish(self, topic: str, payload: bytes, timeout_s: float, request: Request | None = None) -> None:
        """Publish with QoS 1 and wait for the PUBACK.

        Raises:
            BrokerRefusedError: MQTT 5: the broker answered that it will not take it.
            BrokerUnavailableError: the broker refused the connection, or it failed.
            TimeoutError: no PUBACK within ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise TimeoutError(f"another message kept the connection to {self._address} for {timeout_s:g} s")
        try:
            client = self._connected(deadline_s)
            self._send(client, topic, payload, deadline_s, self._properties(request))
        except BrokerRefusedError:
            raise  # it answered: the connection is fine
        except BaseException:
            self._drop()
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()

    def _connected(self, deadline_s: float) -> paho.Client:
        if self._client is not None and self._client.is_connected():
            return self._client
        self._drop()
        timeout_s = max(0.1, deadline_s - time.monotonic())
        client = new_client(
            self._address, f"command-{uuid.uuid4().hex[:12]}", has_session=False, connect_timeout_s=timeout_s
        )
        answered = threading.Event()
        refusals: list[str] = []

        def on_connect(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
            if code.is_failure:
                refusals.append(str(code))
            answered.set()

        def on_publish(_client: Any, _data: Any, mid: int, code: Any, _properties: Any) -> None:
            if code.is_failure:
                self._refusals[mid] = str(code)

        client.on_connect = on_connect
        client.on_publish = on_publish
        self._client = client
        try:
            connect(client, self._address, keepalive_s=KEEPALIVE_S, has_session=False)
        except TimeoutError as error:
            raise TimeoutError(f"no connection to {self._address} in {timeout_s:.1f} s") from error
        except OSError as error:
            raise BrokerUnavailableError(str(self._address), str(error)) from error
        client.loop_start()
        if not answered.wait(max(0.0, deadline_s - time.monotonic())):
            raise TimeoutError(f"{self._address} accepted a connection and did not answer")
        if refusals:
            raise BrokerUnavailableError(str(self._address), f"refused: {refusals[0]}")
        return client

    def _properties(self, request: Request | None) -> Properties | None:
        if request is None or self._address.version != "5":
            return None
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = request.response_topic
        properties.CorrelationData = request.correlation
        properties.MessageExpiryInterval = request.expiry_s
        return properties  # type: ignore[no-any-return]

    def _send(
        self, client: paho.Client, topic: str, payload: bytes, deadline_s: float, properties: Properties | None
    ) -> None:
        info = client.publish(topic, payload, qos=1, properties=properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise BrokerUnavailableError(str(self._address), paho.error_string(info.rc))
        while not info.is_published():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no PUBACK from {self._address} in time")
            if not client.is_connected():
                raise BrokerUnavailableError(str(self._address), "the connection was lost before the PUBACK")
            info.wait_for_publish(min(left_s, WAIT_STEP_S))
        # paho calls on_publish before it marks the message as published.
        refusal = self._refusals.pop(info.mid, None)
        if refusal is not None:
            raise BrokerRefusedError(str(self._address), refusal)

    def _drop(self) -> None:
        client, self._client = self._client, None
        self._refusals.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()
