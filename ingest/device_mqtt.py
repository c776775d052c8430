"""A device's side of MQTT: birth, last will, QoS 1 until the broker has accepted.

Used by the simulator, the generator and tests; the floor itself never publishes telemetry.
One thread publishes, one of paho's receives, one reconnects. Invariant: a key is in
``acknowledged`` if and only if the broker's PUBACK for it reached this process.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import orjson

from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import connect, new_client
from ingest.topics import TopicClass, TopicTree
from realtime.backoff import Backoff

logger = logging.getLogger(__name__)

KEEPALIVE_S = 10
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
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
    ) -> None:
        """Prepare the connection.

        Args:
            in_flight: messages without PUBACK at once.
            state_topic: retained birth and last will go there; None: neither.
        """
        self._address = address
        self._state_topic = state_topic
        self._client = new_client(address, client_id, has_session=False)
        self._client.max_inflight_messages_set(in_flight + 1)
        if state_topic is not None:
            self._client.will_set(state_topic, OFFLINE, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._slots = threading.BoundedSemaphore(in_flight)
        self._open: dict[int, Key] = {}
        self._acknowledged_mids: deque[int] = deque()
        self._acknowledged: set[Key] = set()
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"device-{client_id}", daemon=True)

    @classmethod
    def for_device(cls, address: MqttAddress, tree: TopicTree, tenant: str, device: str) -> "DeviceConnection[Key]":
        """Return the connection of one device, with birth and last will."""
        return cls(address, f"{tenant}-{device}", state_topic=tree.build(TopicClass.STATE, tenant, device))

    def start(self) -> None:
        """Connect, and stay connected until ``stop``."""
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker; False when time ran out."""
        return self._connected.wait(timeout_s)

    def publish(self, topic: str, payload: bytes, key: Key, timeout_s: float = 0.0) -> bool:
        """Send with QoS 1; False when all slots stayed taken for ``timeout_s``. One thread only."""
        self._collect()
        if not self._slots.acquire(timeout=timeout_s) if timeout_s > 0 else not self._slots.acquire(blocking=False):
            return False
        # While disconnected paho keeps the message and sends it after the reconnect.
        self._open[self._client.publish(topic, payload, qos=1).mid] = key
        return True

    def acknowledged(self) -> set[Key]:
        """Return the keys whose PUBACK arrived. The publishing thread only."""
        self._collect()
        return self._acknowledged

    def num_open(self) -> int:
        """Number of messages without PUBACK. The publishing thread only."""
        self._collect()
        return len(self._open)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Wait for outstanding PUBACKs, say goodbye as a device does, disconnect."""
        waited = threading.Event()
        rounds = int(timeout_s / 0.02)
        while self.num_open() and rounds > 0:
            waited.wait(0.02)
            rounds -= 1
        if self._state_topic is not None and self._connected.is_set():
            self._client.publish(self._state_topic, OFFLINE, qos=1, retain=True).wait_for_publish(1.0)
        self._stop.set()
        self._lost.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._collect()

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        opened: Callable[[], Any] = self._open_first
        while not self._stop.is_set():
            self._lost.clear()
            try:
                opened()
            except OSError as error:
                logger.debug("device cannot reach %s: %s", self._address, error)
                self._stop.wait(backoff.next_pause_s())
                continue
            # From now on the client knows the address; reconnect() also marks what was open as repeated.
            opened = self._client.reconnect
            self._client.loop_start()
            self._lost.wait()
            if self._connected.is_set():
                backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
            self._connected.clear()
            self._client.disconnect()
            self._client.loop_stop()
            if not self._stop.is_set():
                self._stop.wait(backoff.next_pause_s())

    def _open_first(self) -> None:
        connect(self._client, self._address, keepalive_s=KEEPALIVE_S, has_session=False)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            logger.warning("device refused by %s: %s", self._address, code)
            self._lost.set()
            return
        if self._state_topic is not None:
            self._client.publish(self._state_topic, ONLINE, qos=1, retain=True)
        self._connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self._lost.set()

    def _on_publish(self, _client: Any, _data: Any, mid: int, _code: Any, _properties: Any) -> None:
        # paho holds a lock here that publish() takes too: nothing but lock-free work.
        self._acknowledged_mids.append(mid)

    def _collect(self) -> None:
        """Book the PUBACKs that arrived; on the publishing thread, so every packet id is known by then."""
        while self._acknowledged_mids:
            mid = self._acknowledged_mids.popleft()
            if mid in self._open:
                self._acknowledged.add(self._open.pop(mid))
                self._slots.release()
