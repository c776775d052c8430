"""Making a paho client from an address, in the one way the floor uses it, and one that receives fast.

Used by the inbox, the command publisher and the simulated devices. Invariant: always
callback version 2 (paho 2.2 defaults to 1 again).
"""

import ssl
from collections.abc import Callable, Iterable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.mqtt_address import MqttAddress
from ingest.publish_packet import MalformedPublishError, PublishPacket, decode_publish, whole_publish

READ_BYTES = 65_536
PUBACK = b"\x40\x02"
"""Fixed header of an acknowledgement; the packet id follows, and in MQTT 5 success may be left out."""


class ReceivingClient(paho.Client):
    """A paho client for one thread, with what it does per message done by ourselves.

    paho reads a message with four system calls, builds a table of all MQTT 5 properties for it, and
    acknowledges it with another system call; each call lets go of the interpreter, which the
    other threads of ingest want too. Here many messages share one call each way.
    ``_sock_recv``, ``_handle_publish`` and ``_in_packet`` are paho's own names: with a version
    without the last two no message arrives, and every test of the inbox fails.
    """

    on_packet: Callable[[PublishPacket], None]
    """Gets every message; must not raise."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._acks = b""
        self._is_ack_cut = False
        self._read = b""
        self._read_at = 0

    def has_unread(self) -> bool:
        """Say whether bytes are here that the socket no longer tells of."""
        connection = self.socket()
        return self._read_at < len(self._read) or (isinstance(connection, ssl.SSLSocket) and connection.pending() > 0)

    def acknowledge(self, mids: Iterable[int]) -> MQTTErrorCode:
        """Send the acknowledgements of QoS 1 messages, in this order, as far as the socket takes them."""
        self._acks += b"".join([PUBACK + mid.to_bytes(2, "big") for mid in mids])
        return self.loop_write() if self._acks else MQTTErrorCode.MQTT_ERR_SUCCESS

    def want_write(self) -> bool:
        """Say whether something waits for the socket."""
        return bool(self._acks) or super().want_write()

    def loop_write(self) -> MQTTErrorCode:
        """Write what waits. An acknowledgement that was cut in two goes on before anything else does."""
        if not self._is_ack_cut:
            code = super().loop_write()
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS or super().want_write():
                return code
        connection = self.socket()
        if connection is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            sent = connection.send(self._acks) if self._acks else 0
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # TLS wants the same bytes again, so nothing else may come between.
            self._is_ack_cut = isinstance(connection, ssl.SSLSocket) or self._is_ack_cut
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self._acks = self._acks[sent:]
        self._is_ack_cut = len(self._acks) % 4 != 0
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read one packet. A PUBLISH that is here as a whole never sees paho, which takes it apart byte by byte."""
        if self._read_at < len(self._read) and not self._in_packet["command"]:
            body = whole_publish(self._read, self._read_at)
            if body is not None:
                command, self._read_at = self._read[self._read_at], body.stop
                return self._take(command, self._read[body])
        return super().loop_read(max_packets)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._read_at == len(self._read):
            self._read = super()._sock_recv(READ_BYTES)
            self._read_at = 0
        data = self._read[self._read_at : self._read_at + bufsize]
        self._read_at += len(data)
        return data

    def _handle_publish(self) -> MQTTErrorCode:
        return self._take(self._in_packet["command"], self._in_packet["packet"])

    def _take(self, command: int, body: bytes | bytearray) -> MQTTErrorCode:
        try:
            packet = decode_publish(command, body, is_v5=self.protocol == paho.MQTTv5)
        except MalformedPublishError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.on_packet(packet)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def new_client(
    address: MqttAddress,
    client_id: str,
    *,
    has_session: bool,
    reconnects: bool = False,
    connect_timeout_s: float = 5.0,
) -> paho.Client:
    """Return a client that is not connected yet.

    Args:
        reconnects: let paho itself reconnect; it has no jitter, so the floor's own
            connections do it themselves and only devices leave it to paho.
    """
    client = paho.Client(**_options(address, client_id, has_session), reconnect_on_failure=reconnects)
    _prepare(client, address, connect_timeout_s)
    return client


def new_receiving_client(
    address: MqttAddress, client_id: str, *, has_session: bool, connect_timeout_s: float
) -> ReceivingClient:
    """Return one that receives, and acknowledges when it is told to; not connected yet."""
    options = _options(address, client_id, has_session)
    client = ReceivingClient(**options, reconnect_on_failure=False, manual_ack=True)
    _prepare(client, address, connect_timeout_s)
    return client


def _options(address: MqttAddress, client_id: str, has_session: bool) -> dict[str, Any]:
    is_v5 = address.version == "5"
    return {
        "callback_api_version": CallbackAPIVersion.VERSION2,
        "client_id": client_id,
        "clean_session": None if is_v5 else not has_session,
        "protocol": paho.MQTTv5 if is_v5 else paho.MQTTv311,
    }


def _prepare(client: paho.Client, address: MqttAddress, connect_timeout_s: float) -> None:
    client.connect_timeout = connect_timeout_s
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.has_tls:
        client.tls_set(ca_certs=address.ca_path, cert_reqs=ssl.CERT_REQUIRED)


def connect(
    client: paho.Client,
    address: MqttAddress,
    *,
    keepalive_s: int,
    has_session: bool,
    session_expiry_s: int = 0,
    window: int = 1024,
    in_background: bool = False,
) -> None:
    """Open the connection and send CONNECT; the answer comes to ``on_connect``.

    Args:
        in_background: leave it to the thread of ``loop_start``, however long it takes.
        session_expiry_s: MQTT 5: how long the broker keeps the session; 3.1.1 has no such word.
        window: MQTT 5: unacknowledged messages wanted at once.

    Raises:
        OSError: the broker cannot be reached.
    """
    connect_now = client.connect_async if in_background else client.connect
    if address.version != "5":
        connect_now(address.host, address.port, keepalive=keepalive_s)
        return
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = window
    properties.SessionExpiryInterval = session_expiry_s if has_session else 0
    connect_now(address.host, address.port, keepalive=keepalive_s, clean_start=not has_session, properties=properties)


def correlation_of(message: paho.MQTTMessage) -> bytes:
    """Return the correlation data of a message; empty where it has none, as with MQTT 3.1.1."""
    properties = message.properties
    return b"" if properties is None else bytes(getattr(properties, "CorrelationData", b""))
