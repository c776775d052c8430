"""One MQTT PUBLISH packet, taken apart: topic, payload, and the few properties that are asked for.

Pure. paho's own decoder builds a table of all MQTT 5 properties for every message, 40 us where
the rest of the way costs as much; here properties stay bytes until somebody wants one.
Invariant: the only exception it raises is ``MalformedPublishError``.
"""

from dataclasses import dataclass

NOT_UTF8 = "(not UTF-8)"
"""Stands for a topic that is none; no template matches it."""

PUBLISH = 3
"""Type of the packet: the upper half of its first byte."""
CONTENT_TYPE = 0x03
CORRELATION = 0x09
USER_PROPERTY = 0x26
_FIXED_BYTES = {0x01: 1, 0x02: 4, 0x23: 2}
"""Payload format, message expiry, topic alias."""
_LENGTH_IN_FRONT = frozenset({CONTENT_TYPE, 0x08, CORRELATION})
"""Content type, response topic, correlation data: two bytes of length, then so many."""
_SUBSCRIPTION_ID = 0x0B
MAX_VARINT_BYTES = 4


class MalformedPublishError(ValueError):
    """The bytes are no PUBLISH packet; the connection cannot be used any more."""


@dataclass(slots=True)
class PublishPacket:
    """One message as it came from the broker."""

    topic: str
    payload: bytes
    mid: int
    """Packet id; 0 for QoS 0."""
    qos: int
    is_dup: bool
    is_retained: bool
    properties: bytes
    """MQTT 5 properties without their length; see ``read_properties``."""


@dataclass(frozen=True, slots=True)
class PublishProperties:
    """The properties that ingest may want."""

    content_type: str = ""
    user: tuple[tuple[str, str], ...] = ()
    """In their order; a name may occur again."""
    correlation: bytes = b""


def decode_publish(command: int, body: bytes | bytearray, *, is_v5: bool) -> PublishPacket:
    """Take a packet apart.

    Args:
        command: first byte of the fixed header.
        body: what follows the fixed header.
        is_v5: whether the connection speaks MQTT 5.

    Raises:
        MalformedPublishError: it ends too early, or names a QoS that does not exist.
    """
    qos = (command >> 1) & 3
    topic_end = 2 + int.from_bytes(body[:2], "big")
    start = topic_end + 2 if qos else topic_end
    if qos == 3 or len(body) < max(start, 2):
        raise MalformedPublishError(f"{len(body)} bytes, QoS {qos}")
    try:
        topic = body[2:topic_end].decode()
    except UnicodeDecodeError:
        topic = NOT_UTF8
    properties = b""
    if is_v5:
        length, start = _varint(body, start)
        properties = bytes(body[start : start + length])
        start += length
        if len(body) < start:
            raise MalformedPublishError("properties end too early")
    return PublishPacket(
        topic,
        bytes(body[start:]),
        int.from_bytes(body[topic_end : topic_end + 2], "big") if qos else 0,
        qos,
        bool(command & 8),
        bool(command & 1),
        properties,
    )


def whole_publish(data: bytes, at: int) -> slice | None:
    """Return where the body of the packet that begins at ``at`` lies; None: no PUBLISH, or not all of it is here."""
    if data[at] >> 4 != PUBLISH:
        return None
    try:
        length, start = _varint(data, at + 1)
    except MalformedPublishError:
        return None
    return slice(start, start + length) if start + length <= len(data) else None


def read_properties(data: bytes) -> PublishProperties:
    """Return the properties of a packet.

    Raises:
        MalformedPublishError: the bytes are no properties of a PUBLISH.
    """
    content_type, correlation = "", b""
    user: list[tuple[str, str]] = []
    at = 0
    while at < len(data):
        identifier, at = _varint(data, at)
        if identifier in _FIXED_BYTES:
            at += _FIXED_BYTES[identifier]
        elif identifier == _SUBSCRIPTION_ID:
            _, at = _varint(data, at)
        elif identifier == USER_PROPERTY:
            name, at = _bytes(data, at)
            value, at = _bytes(data, at)
            user.append((_shown(name), _shown(value)))
        elif identifier in _LENGTH_IN_FRONT:
            value, at = _bytes(data, at)
            if identifier == CONTENT_TYPE:
                content_type = _shown(value)
            elif identifier == CORRELATION:
                correlation = value
        else:
            raise MalformedPublishError(f"property {identifier}")
    if at > len(data):
        raise MalformedPublishError("a property ends too early")
    return PublishProperties(content_type, tuple(user), correlation)


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if len(data) < max(end, at + 2):
        raise MalformedPublishError("a property ends too early")
    return data[at + 2 : end], end


def _shown(text: bytes) -> str:
    # What is no UTF-8 matches nothing that anybody looks for.
    return text.decode("utf-8", "replace")


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = 0
    for place in range(MAX_VARINT_BYTES):
        if at + place >= len(data):
            raise MalformedPublishError("a length ends too early")
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise MalformedPublishError("a length of more than four bytes")
