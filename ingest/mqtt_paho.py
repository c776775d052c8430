"""Making a paho client from an address, in the one way the floor uses it.

Used by the inbox, the command publisher and the simulated devices. Invariant: always
callback version 2 (paho 2.2 defaults to 1 again).
"""

import ssl
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ingest.mqtt_address import MqttAddress


def new_client(
    address: MqttAddress,
    client_id: str,
    *,
    has_session: bool,
    manual_ack: bool = False,
    reconnects: bool = False,
    connect_timeout_s: float = 5.0,
) -> paho.Client:
    """Return a client that is not connected yet.

    Args:
        reconnects: let paho itself reconnect; it has no jitter, so the floor's own
            connections do it themselves and only devices leave it to paho.
    """
    is_v5 = address.version == "5"
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if is_v5 else not has_session,
        protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
        reconnect_on_failure=reconnects,
        manual_ack=manual_ack,
    )
    client.connect_timeout = connect_timeout_s
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.has_tls:
        client.tls_set(ca_certs=address.ca_path, cert_reqs=ssl.CERT_REQUIRED)
    return client


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
