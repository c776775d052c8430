"""Taking PUBLISH packets apart: as paho makes them, and as nobody should."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.publish_packet import (
    NOT_UTF8,
    MalformedPublishError,
    PublishPacket,
    PublishProperties,
    decode_publish,
    read_properties,
    whole_publish,
)


def packet(topic: bytes, payload: bytes, mid: int | None, properties: bytes | None = None) -> bytes:
    """Return the body of a packet; ``properties`` with their length in front, for MQTT 5."""
    head = len(topic).to_bytes(2, "big") + topic + (b"" if mid is None else mid.to_bytes(2, "big"))
    return head + (properties or b"") + payload


def test_a_packet_of_mqtt_3() -> None:
    """Topic, packet id, flags, payload."""
    assert decode_publish(0x3B, packet(b"a/b", b"hello", 513), is_v5=False) == PublishPacket(
        "a/b", b"hello", 513, 1, is_dup=True, is_retained=True, properties=b""
    )


def test_qos_0_has_no_packet_id() -> None:
    """The payload begins right behind the topic."""
    decoded = decode_publish(0x30, packet(b"t", b"xy", None), is_v5=False)

    assert (decoded.mid, decoded.qos, decoded.payload) == (0, 0, b"xy")


def test_a_topic_that_is_no_text_matches_no_template() -> None:
    """It is set aside, and the connection goes on."""
    assert decode_publish(0x32, packet(b"\xff\xfe", b"x", 1), is_v5=False).topic == NOT_UTF8


def test_properties_are_read_when_asked_for() -> None:
    """Content type, correlation data and user properties; all others are stepped over."""
    encoded = (
        b"\x01\x01" + b"\x02\x00\x00\x00\x09" + b"\x08\x00\x01r" + b"\x09\x00\x02\xff\xfe" + b"\x0b\x80\x01"
        + b"\x26\x00\x01a\x00\x01b" + b"\x03\x00\x04json" + b"\x26\x00\x01a\x00\x01c"
    )  # fmt: skip
    decoded = decode_publish(0x32, packet(b"t", b"x", 1, bytes([len(encoded)]) + encoded), is_v5=True)

    assert decoded.payload == b"x"
    assert read_properties(decoded.properties) == PublishProperties("json", (("a", "b"), ("a", "c")), b"\xff\xfe")


@pytest.mark.parametrize(
    ("command", "body", "is_v5"),
    [
        pytest.param(0x32, b"", False, id="empty"),
        pytest.param(0x32, b"\x00", False, id="half-a-length"),
        pytest.param(0x32, b"\x00\x05abc", False, id="topic-cut"),
        pytest.param(0x32, b"\x00\x01t\x01", False, id="packet-id-cut"),
        pytest.param(0x36, packet(b"t", b"x", 1), False, id="qos-3"),
        pytest.param(0x32, packet(b"t", b"", 1), True, id="no-properties-length"),
        pytest.param(0x32, packet(b"t", b"", 1, b"\x05a"), True, id="properties-cut"),
        pytest.param(0x32, packet(b"t", b"", 1, b"\xff\xff\xff\xff\x01"), True, id="length-of-five-bytes"),
    ],
)
def test_what_is_no_packet_is_refused(command: int, body: bytes, is_v5: bool) -> None:
    """The connection ends with a protocol error, as the standard asks."""
    with pytest.raises(MalformedPublishError):
        decode_publish(command, body, is_v5=is_v5)


@settings(max_examples=100)
@given(data=st.binary(max_size=60), command=st.integers(0x30, 0x3F), is_v5=st.booleans())
def test_any_bytes_are_a_packet_or_refused(data: bytes, command: int, is_v5: bool) -> None:
    """Nothing else leaves the decoder, nor the reader of properties."""
    try:
        read_properties(decode_publish(command, data, is_v5=is_v5).properties)
    except MalformedPublishError:
        return


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\x32\x03abc", slice(2, 5), id="whole"),
        pytest.param(b"\x3d\x03abc\x32\x01", slice(2, 5), id="another-behind-it"),
        pytest.param(b"\x32\x80\x01" + bytes(128), slice(3, 131), id="long-length"),
        pytest.param(b"\x32\x03ab", None, id="cut"),
        pytest.param(b"\x32", None, id="no-length"),
        pytest.param(b"\x32\x80", None, id="cut-length"),
        pytest.param(b"\x32\xff\xff\xff\xff\x01" + bytes(300), None, id="length-of-five-bytes"),
        pytest.param(b"\x90\x03abc", None, id="suback"),
    ],
)
def test_a_whole_publish_is_found(data: bytes, expected: slice | None) -> None:
    """Only a packet that is a PUBLISH and here to its last byte is taken past paho."""
    assert whole_publish(data, 0) == expected
