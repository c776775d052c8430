"""Receiving from the MQTT broker: one connection, on one thread, acknowledging late.

Network file: everything that is paho's stays here. paho is driven by an outside loop of ours,
so it is used from a single thread, every turn of it can be watched, and an exception cannot
leave a dead thread behind a client that still says it is connected. It decides nothing about
messages. Invariants: a message is acknowledged only after ``settle``, only on the connection
on which it arrived, and in the order of arrival; what the queue refuses is not acknowledged,
so the broker keeps it and sends it again after the reconnect.
"""

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode

from ingest.delivery import Delivery, cut_payload
from ingest.inbox import Ending, Filters, InboxObserver, InboxStatus, MqttSettings, Subscription
from ingest.mqtt_address import MqttAddress, VersionChoice
from ingest.mqtt_paho import ReceivingClient, connect, new_receiving_client
from ingest.publish_packet import MalformedPublishError, PublishPacket, PublishProperties, read_properties
from ingest.receive_window import ReceiveWindow
from realtime.backoff import Backoff

logger = logging.getLogger(__name__)

TURN_S = 0.5
"""Longest sleep of the network thread; keep-alive is checked at this pace."""
PAUSED_TURN_S = 0.02
"""The same while the queue has no room; what makes room wakes the thread earlier."""
READS_PER_TURN = 256
"""Packets taken before acknowledgements are sent."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
STABLE_S = 5.0
"""A connection that lived for so long was a good one: after it the pauses begin anew."""
VERSION_REFUSED = "Unsupported protocol version"
"""How paho words the one refusal that another version may mend, for both versions."""
NO_PROPERTIES = PublishProperties()
UNREADABLE = PublishProperties(content_type="unreadable")
KEPT_TEXT = 256
KEPT_PROPERTIES = 8
STUCK_S = 30.0
"""Without a turn for so long the network thread is given up and replaced."""


class MqttInbox:
    """One connection to the broker that receives; reconnects until it is stopped."""

    def __init__(
        self,
        address: MqttAddress,
        subscription: Subscription,
        settings: MqttSettings,
        *,
        deliver: Callable[[Delivery], bool],
        has_room: Callable[[], bool],
        observer: InboxObserver,
    ) -> None:
        """Prepare the connection.

        Args:
            deliver: takes a message without waiting; False: its queue is full.
            has_room: whether the queue is far from full; without it nothing is read.
        """
        self._address = address
        # Users and times that a broker adds exist in MQTT 5 only: without them messages would be refused.
        self._read_properties = frozenset(filter(None, (settings.user_property, settings.time_property)))
        self._choice = VersionChoice("5" if self._read_properties else address.version)
        self._subscription = subscription
        self._settings = settings
        self._deliver = deliver
        self._has_room = has_room
        self._observer = observer
        self._stop = threading.Event()
        self._epoch = 0
        self._window = ReceiveWindow()
        self._settled: deque[Delivery] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._problem: str | None = "not connected yet"
        self._is_connected = False
        self._connected_since: float | None = None
        self._has_session = False
        self._subscribed = threading.Event()
        self.is_settled = False
        """The broker has confirmed the filters of this connection, and has no others of this session."""
        self._overrun = False
        self._paused_at_s: float | None = None
        self._arrived = False
        self._turn_at_s = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the network thread."""
        self._turn_at_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{self._subscription.client_id}", daemon=True)
        self._thread.start()

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Wait for the first subscription; before it the broker keeps nothing for us. False when time ran out."""
        return self._subscribed.wait(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect; what is not acknowledged stays with the broker."""
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._wake_writer.close()
        if self._thread is None or not self._thread.is_alive():
            self._wake_reader.close()

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Note that messages are stored or set aside; they are acknowledged in turn. Any thread."""
        self._settled.extend(deliveries)
        self._wake()

    def supervise(self) -> None:
        """Replace a network thread that ended or hangs; called once a second."""
        if self._thread is None:
            return
        silent_s = time.monotonic() - self._turn_at_s
        if (self._thread.is_alive() and silent_s < STUCK_S) or self._stop.is_set():
            return
        logger.error(
            "MQTT thread of %s ended, or hangs since %.0f s: replacing it", self._subscription.client_id, silent_s
        )
        self.start()

    def status(self) -> InboxStatus:
        """Return the connection's state. Any thread."""
        try:
            oldest = self._window.oldest
        except RuntimeError:  # the network thread changed the window in this moment
            oldest = None
        return InboxStatus(
            address=str(self._address),
            is_connected=self._is_connected,
            version=self._choice.version,
            epoch=self._epoch,
            window=len(self._window),
            oldest_received_at=oldest.received_at if oldest else None,
            problem=self._problem,
            connected_since=self._connected_since if self._is_connected else None,
        )

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        me = threading.current_thread()
        while not self._stop.is_set() and self._thread is me:
            self._turn_at_s = time.monotonic()
            if self._overrun and not self._has_room():
                self._stop.wait(TURN_S)
                continue
            self._overrun, self._paused_at_s = False, None
            epoch, began_s = self._epoch, time.monotonic()
            try:
                ending, reason = self._connection()
                if self._epoch == epoch and ending in (Ending.REFUSED, Ending.LOST):
                    self._choice.refused(is_explicit=ending is Ending.REFUSED and VERSION_REFUSED in reason)
            except OSError as error:
                ending, reason = Ending.UNREACHABLE, str(error) or type(error).__name__
            except Exception as error:  # whatever paho or a message made of this connection, the next one is new
                logger.exception("MQTT connection %s failed", self._subscription.client_id)
                ending, reason = Ending.FAILED, f"{type(error).__name__}: {error}"
            self._lost(ending, reason)
            # One that is lost at once is no reason to hurry: two owners of one client id end each other's for ever.
            is_good = ending is not Ending.LOST or time.monotonic() - began_s >= STABLE_S
            if self._epoch != epoch and is_good:
                backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
            self._stop.wait(backoff.next_pause_s())

    def _connection(self) -> tuple[Ending, str]:
        """Hold one connection for as long as it lives; return why it ended."""
        filters = self._subscription.filters()
        # A new client per connection: nothing of an old one, above all no queued
        # acknowledgement, can reach the new one.
        address = self._address.speaking(self._choice.version)
        client = new_receiving_client(
            address,
            self._subscription.client_id,
            has_session=self._subscription.has_session,
            connect_timeout_s=self._settings.connect_timeout_s,
        )
        refusals: list[str] = []
        client.on_connect = lambda _client, _data, flags, code, _properties: self._on_connect(
            client, flags, code, filters, refusals
        )
        client.on_subscribe = lambda _client, _data, _mid, codes, _properties: self._on_subscribe(
            client, codes, filters, refusals
        )
        client.on_unsubscribe = lambda *_: self._on_settled()
        client.on_packet = self._on_packet
        connect(
            client,
            address,
            keepalive_s=self._settings.keepalive_s,
            has_session=self._subscription.has_session,
            session_expiry_s=self._settings.session_expiry_s,
            window=self._settings.window,
        )
        me = threading.current_thread()
        try:
            while not self._stop.is_set() and self._thread is me:
                self._turn_at_s = time.monotonic()
                code = self._turn(client)
                if refusals:
                    return Ending.REFUSED, refusals[0]
                if self._overrun:
                    return Ending.OVERRUN, "more messages than the queue takes; reading stops until there is room"
                if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    return Ending.LOST, self._reason(code)
            client.disconnect()
            return Ending.STOPPED, "stopped"
        finally:
            connection = client.socket()
            if connection is not None:
                connection.close()

    def _turn(self, client: ReceivingClient) -> MQTTErrorCode:
        """Wait for something to do and do it."""
        connection = client.socket()
        if connection is None:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if not self._may_read():
            connections: list[Any] = [self._wake_reader]
            timeout_s = PAUSED_TURN_S
        else:
            connections = [connection, self._wake_reader]
            timeout_s = 0.0 if client.has_unread() else TURN_S
        writers = [connection] if client.want_write() else []
        readable, writable, _ = select.select(connections, writers, [], timeout_s)
        if self._wake_reader in readable:
            self._wake_reader.recv(4096)
        if connection in readable or timeout_s == 0.0:
            code = self._read(client)
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return code
        if connection in writable:
            code = client.loop_write()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return code
        code = self._acknowledge(client)
        return client.loop_misc() if code == MQTTErrorCode.MQTT_ERR_SUCCESS else code

    def _may_read(self) -> bool:
        """Say whether to read on. What is not read stays in the socket, and the broker waits."""
        if self._has_room():
            self._paused_at_s = None
            return True
        now_s = time.monotonic()
        if self._paused_at_s is None:
            self._paused_at_s = now_s
        # Pings are not read either, so a longer pause would end as a connection that seems dead.
        self._overrun = now_s - self._paused_at_s > self._settings.keepalive_s / 2
        return False

    def _read(self, client: ReceivingClient) -> MQTTErrorCode:
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        for _ in range(READS_PER_TURN):
            self._arrived = False
            code = client.loop_read()
            # paho does not say whether there was a whole packet; a message calls us back.
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or not self._arrived or self._overrun:
                break
        return code

    def _acknowledge(self, client: ReceivingClient) -> MQTTErrorCode:
        stale = 0
        while self._settled:
            delivery = self._settled.popleft()
            if delivery.qos == 0:
                continue
            if delivery.epoch == self._epoch:
                self._window.settle(delivery)
            else:
                # On this connection its packet id may belong to a message that nobody has stored yet.
                stale += 1
        if stale:
            self._observer.on_stale_acks(stale)
        oldest = self._window.oldest
        mids = self._window.release(time.monotonic())
        if mids and oldest is not None:
            self._observer.on_acknowledged(len(mids), time.time() - oldest.received_at)
        return client.acknowledge(mids)

    def _on_connect(self, client: paho.Client, flags: Any, code: Any, filters: Filters, refusals: list[str]) -> None:
        if code.is_failure:
            refusals.append(f"connection refused: {code}{self._version_advice()}")
            return
        self._choice.accepted()
        self._epoch += 1
        self._window = ReceiveWindow()
        # Always, session or not: a session may lack the filter (killed before the SUBACK, or an
        # older configuration), and asking again for what it has changes nothing.
        self._has_session = bool(flags.session_present)
        if filters.wanted:
            client.subscribe([(one, 1) for one in filters.wanted])
        else:
            self._on_subscribe(client, (), filters, refusals)

    def _on_subscribe(self, client: paho.Client, codes: Sequence[Any], filters: Filters, refusals: list[str]) -> None:
        refusals.extend(f"subscription refused: {code}" for code in codes if code.is_failure)
        if refusals:
            return
        if filters.obsolete:
            client.unsubscribe(list(filters.obsolete))
        else:
            self._on_settled()
        self._connected_since = time.time()
        self._is_connected = True
        self._problem = None
        self._subscribed.set()
        self._observer.on_connected(session_present=self._has_session)
        logger.info("MQTT %s connected to %s", self._subscription.client_id, self._address)

    def _on_settled(self) -> None:
        self.is_settled = True

    def _on_packet(self, packet: PublishPacket) -> None:
        self._arrived = True
        payload, sha256 = cut_payload(packet.payload)
        properties = NO_PROPERTIES
        if packet.properties:
            try:
                properties = read_properties(packet.properties)
            except MalformedPublishError:
                # No broker passes these on. Not acknowledging would bring the message back for ever.
                properties = UNREADABLE
        delivery = Delivery(
            epoch=self._epoch,
            mid=packet.mid,
            topic=packet.topic,
            payload=payload,
            qos=packet.qos,
            is_dup=packet.is_dup,
            is_retained=packet.is_retained,
            received_at=time.time(),
            payload_bytes=len(packet.payload),
            sha256=sha256,
            correlation=properties.correlation,
            client_id=self._subscription.client_id,
            content_type=properties.content_type[:KEPT_TEXT],
            # The others would be memory that nobody bounds.
            user_properties=tuple(
                (name, value[:KEPT_TEXT]) for name, value in properties.user if name in self._read_properties
            )[-KEPT_PROPERTIES:],
        )
        if delivery.qos and not self._window.admit(delivery, time.monotonic()):
            self._observer.on_repeat()
        elif not self._deliver(delivery):
            if delivery.qos:
                self._overrun = True
            else:
                self._observer.on_dropped()

    def _lost(self, ending: Ending, reason: str) -> None:
        was_connected, self._is_connected = self._is_connected, False
        self.is_settled = False
        self._observer.on_disconnected(ending)
        if reason == self._problem:
            return
        self._problem = reason
        if not self._stop.is_set():
            logger.warning(
                "MQTT %s %s %s: %s",
                self._subscription.client_id,
                "lost" if was_connected else "cannot use",
                self._address,
                reason,
            )

    def _reason(self, code: MQTTErrorCode) -> str:
        if self._is_connected:
            return paho.error_string(code)
        return f"closed before it answered{self._version_advice()}"

    def _version_advice(self) -> str:
        if self._choice.is_free or self._choice.version != "5":
            return ""
        if self._read_properties:
            return "; WATCHFLOOR_MQTT_USER_PROPERTY and WATCHFLOOR_MQTT_TIME_PROPERTY need a broker with MQTT 5"
        return "; if this broker speaks MQTT 3.1.1 only (the embedded one does), remove ?version=5 from MQTT_URL"

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"\0")
        except BlockingIOError:
            pass  # so many wake-ups are waiting that one more says nothing
        except OSError:
            logger.debug("wake-up of a closed MQTT inbox", exc_info=True)
