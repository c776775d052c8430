"""A device's side of MQTT: birth, last will, QoS 1 until the broker has accepted, answers to commands.

Used by the simulator, the generator and tests; the floor itself never publishes telemetry.
One thread publishes; one of paho's receives, and reconnects. Invariant: a key is in
``acknowledged`` if and only if the broker's PUBACK for it reached this process; a connection
that is to live for days only counts them.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import orjson
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.device_commands import CarryOut, DeviceCommands
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, correlation_of, new_client
from ingest.topics import TopicClass, TopicTree

logger = logging.getLogger(__name__)

KEEPALIVE_S = 10
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 4
SESSION_S = 3600
"""How long an MQTT 5 broker keeps commands for a device that is away; 3.1.1 leaves that to the broker."""
ONLINE = orjson.dumps({"online": True})
OFFLINE = orjson.dumps({"online": False})

Key = TypeVar("Key")


class DeviceConnection(Generic[Key]):
    """One connection; publishes for one device, or as a gateway for many (then without a last will)."""

    def __init__(
        self,
        address: MqttAddress,
        client_id: str,
        *,
        in_flight: int = 50,
        state_topic: str | None = None,
        keeps_keys: bool = True,
        command_topics: tuple[str, str] | None = None,
        carry_out: CarryOut | None = None,
    ) -> None:
        """Prepare the connection.

        Args:
            in_flight: messages without PUBACK at once.
            state_topic: retained birth and last will go there; None: neither.
            keeps_keys: whether ``acknowledged`` is wanted; it grows with every message.
            command_topics: commands come on the first, answers go to the second; the broker then keeps a session.
            carry_out: does what a command says, on the thread that receives.
        """
        self._address = address
        self._state_topic = state_topic
        self._command_topics = command_topics
        self._commands = DeviceCommands(carry_out) if carry_out is not None else None
        self._client = new_client(address, client_id, has_session=command_topics is not None, reconnects=True)
        self._client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._client.max_inflight_messages_set(in_flight + 1)
        if state_topic is not None:
            self._client.will_set(state_topic, OFFLINE, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._in_flight = in_flight
        self._progress = threading.Event()
        self._open: dict[int, Key] = {}
        self._acknowledged_mids: deque[int] = deque()
        self._keeps_keys = keeps_keys
        self._acknowledged: set[Key] = set()
        self._num_acknowledged = 0
        self._connected = threading.Event()

    @classmethod
    def for_device(
        cls, address: MqttAddress, tree: TopicTree, tenant: str, device: str, carry_out: CarryOut | None = None
    ) -> "DeviceConnection[Key]":
        """Return the lasting connection of one device, with birth and last will, and commands if it can do any."""
        state, command, ack = (
            tree.build(kind, tenant, device) for kind in (TopicClass.STATE, TopicClass.COMMAND, TopicClass.COMMAND_ACK)
        )
        return cls(
            address,
            f"{tenant}-{device}",
            state_topic=state,
            keeps_keys=False,
            command_topics=None if carry_out is None else (command, ack),
            carry_out=carry_out,
        )

    def start(self) -> None:
        """Connect, and stay connected until ``stop``."""
        connect(
            self._client,
            self._address,
            keepalive_s=KEEPALIVE_S,
            has_session=self._command_topics is not None,
            session_expiry_s=SESSION_S,
            in_background=True,
        )
        self._client.loop_start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker, and until it keeps commands for the device; False when time ran out."""
        return self._connected.wait(timeout_s)

    def publish(self, topic: str, payload: bytes, key: Key, timeout_s: float = 0.0) -> bool:
        """Send with QoS 1; False when too many stayed open for ``timeout_s``. One thread only."""
        deadline_s = time.monotonic() + timeout_s
        while self.num_open() >= self._in_flight:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._progress.wait(left_s)
        # While disconnected paho keeps the message and sends it after the reconnect.
        self._open[self._client.publish(topic, payload, qos=1).mid] = key
        return True

    def acknowledged(self) -> set[Key]:
        """Return the keys whose PUBACK arrived. The publishing thread only."""
        self._collect()
        return self._acknowledged

    def num_acknowledged(self) -> int:
        """Number of messages whose PUBACK arrived. The publishing thread only."""
        self._collect()
        return self._num_acknowledged

    def num_open(self) -> int:
        """Number of messages without PUBACK. The publishing thread only."""
        self._collect()
        return len(self._open)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Wait for outstanding PUBACKs, say goodbye as a device does, disconnect."""
        deadline_s = time.monotonic() + timeout_s
        while self.num_open() and (left_s := deadline_s - time.monotonic()) > 0:
            self._progress.wait(left_s)
        if self._state_topic is not None and self._connected.is_set():
            with contextlib.suppress(RuntimeError, ValueError):  # the connection is going away this moment
                self._client.publish(self._state_topic, OFFLINE, qos=1, retain=True).wait_for_publish(1.0)
        self._client.disconnect()
        self._client.loop_stop()
        self._collect()

    def abandon(self) -> None:
        """End as a device does whose power fails: the broker speaks the last will."""
        connection = self._client.socket()
        self._client.reconnect_delay_set(3600, 3600)
        if connection is not None:
            connection.close()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            logger.warning("device refused by %s: %s", self._address, code)
            return
        if self._state_topic is not None:
            self._client.publish(self._state_topic, ONLINE, qos=1, retain=True)
        if self._command_topics is None:
            self._connected.set()
            return
        # Every time: a broker that was killed may have the session and not the subscription.
        self._client.subscribe(self._command_topics[0], qos=1)

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: Sequence[Any], _properties: Any) -> None:
        for code in codes:
            if code.is_failure:
                logger.warning("device gets no commands from %s: %s", self._address, code)
        self._connected.set()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        if self._commands is None or self._command_topics is None:
            return
        try:
            for answer in self._commands.receive(bytes(message.payload), time.time()):
                # Before paho acknowledges the command: of a device that dies here the broker sends it again.
                self._client.publish(self._command_topics[1], answer, qos=1, properties=_correlated(message))
        except Exception:  # one command's mistake must not end the thread on which all others come
            logger.exception("a command could not be answered")

    def _on_disconnect(self, *_: Any) -> None:
        self._connected.clear()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _code: Any, _properties: Any) -> None:
        # paho holds a lock here that publish() takes too: nothing but lock-free work.
        self._acknowledged_mids.append(mid)
        self._progress.set()

    def _collect(self) -> None:
        """Book the PUBACKs that arrived; on the publishing thread, so every packet id is known by then."""
        self._progress.clear()
        while self._acknowledged_mids:
            mid = self._acknowledged_mids.popleft()
            if mid in self._open:
                key = self._open.pop(mid)
                self._num_acknowledged += 1
                if self._keeps_keys:
                    self._acknowledged.add(key)


def _correlated(message: paho.MQTTMessage) -> Properties | None:
    """Return what MQTT 5 says beside an answer; None for a request that asked for nothing."""
    correlation = correlation_of(message)
    if not correlation:
        return None
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation
    return properties  # type: ignore[no-any-return]
