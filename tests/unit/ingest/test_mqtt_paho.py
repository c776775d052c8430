"""The receiving client on a socket pair: packets cut anywhere, acknowledgements in batches."""

import socket
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest

from ingest.mqtt_address import MqttAddress
from ingest.mqtt_paho import ReceivingClient, new_receiving_client
from ingest.publish_packet import PublishPacket

Wire = tuple[ReceivingClient, socket.socket, list[PublishPacket]]


@pytest.fixture(params=["3.1.1", "5"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A client as it is once connected, the broker's end of its socket, and what it received."""
    address = MqttAddress.parse(f"mqtt://h?version={request.param}")
    client = new_receiving_client(address, "x", has_session=True, connect_timeout_s=1.0)
    ours, brokers = socket.socketpair()
    ours.setblocking(False)
    client._sock = ours
    received: list[PublishPacket] = []
    client.on_packet = received.append
    yield client, brokers, received
    client._sock = None
    ours.close()
    brokers.close()


def publish(client: paho.Client, mid: int, payload: bytes) -> bytes:
    """Return a whole PUBLISH packet of QoS 1."""
    properties = b"\x00" if client.protocol == paho.MQTTv5 else b""
    body = b"\x00\x03a/b" + mid.to_bytes(2, "big") + properties + payload
    length = len(body)
    return bytes([0x32]) + (bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])) + body


def test_packets_arrive_whole_however_they_are_cut(wire: Wire) -> None:
    """Byte by byte, several at once, and one larger than the rest together."""
    client, brokers, received = wire
    for byte in publish(client, 1, b"first"):
        brokers.sendall(bytes([byte]))
        client.loop_read()
    brokers.sendall(
        b"".join(publish(client, mid, b"x" * 20) for mid in range(2, 50)) + publish(client, 50, b"y" * 9000)
    )
    while True:
        before = len(received)
        client.loop_read()
        if len(received) == before and not client.has_unread():
            break

    assert [packet.mid for packet in received] == list(range(1, 51))
    assert (received[0].payload, received[-1].payload) == (b"first", b"y" * 9000)


def test_a_batch_of_acknowledgements_is_one_write(wire: Wire) -> None:
    """In their order, as the standard wants them."""
    client, brokers, _ = wire
    client.acknowledge([5, 3, 300])

    assert brokers.recv(100) == b"\x40\x02\x00\x05\x40\x02\x00\x03\x40\x02\x01\x2c"
    assert not client.want_write()


def test_a_full_socket_keeps_the_rest_and_nothing_comes_between(wire: Wire) -> None:
    """A ping that paho wants to send waits for an acknowledgement that was cut in two."""
    client, brokers, _ = wire
    ours = client.socket()
    assert ours is not None
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    mids = [1 + number % 60_000 for number in range(100_000)]
    client.acknowledge(mids)
    assert client.want_write()
    client._send_pingreq()

    sent = b""
    while client.want_write():
        sent += brokers.recv(1 << 20)
        client.loop_write()
    brokers.setblocking(False)
    sent += brokers.recv(1 << 20)

    # The ping may stand between two acknowledgements, never inside one.
    ping = next(at for at in range(0, len(sent), 2) if sent[at : at + 2] == b"\xc0\x00")
    assert ping % 4 == 0
    assert sent[:ping] + sent[ping + 2 :] == b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids)


def test_a_packet_that_is_none_ends_the_connection(wire: Wire) -> None:
    """As a protocol error and not as an exception on the network thread."""
    client, brokers, received = wire
    brokers.sendall(b"\x32\x03\x00\x09a")

    assert client.loop_read() == paho.MQTT_ERR_PROTOCOL
    assert received == []
