"""Requests and replies as they cross the hub's Unix socket.

A frame is a length (4 bytes, big endian) and one MessagePack value: a request
``(id, operation, arguments)``, or a reply ``(id, value)``, or ``(id, None, reason)`` where the
socket cannot answer and the hub's actor shall be asked. Values are those of ``realtime.wire``.
Pure functions and one buffer: no socket, no clock. Invariant: whatever bytes come in, they
become frames or a ``HubFrameError``, and no more than one frame's worth of them is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from realtime.errors import HubFrameError

LENGTH_BYTES = 4
MAX_GREETING_BYTES = 512
"""Largest frame of a peer that has not proved itself."""
MAX_REQUEST_BYTES = 1_048_576
MAX_REPLY_BYTES = 4_194_304

Request = tuple[int, str, tuple[Any, ...]]
Reply = tuple[int, Any, str | None]
"""Number of the request, value, and why there is none."""


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """Where a hub's socket is, and what proves that one may use it."""

    path: str
    secret: bytes = field(repr=False)


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        """Largest frame that is taken."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes, without their lengths.

        Raises:
            HubFrameError: a frame is larger than allowed; nothing after it can be read.
        """
        buffer = self._buffer
        buffer += data
        frames, at = [], 0
        while len(buffer) - at >= LENGTH_BYTES:
            begin = at + LENGTH_BYTES
            size = int.from_bytes(buffer[at:begin], "big")
            if size > self.max_bytes:
                raise HubFrameError(f"a frame of {size} bytes; allowed are {self.max_bytes}")
            if len(buffer) - begin < size:
                break
            at = begin + size
            frames.append(bytes(buffer[begin:at]))
        del buffer[:at]
        return frames


def write_request(number: int, operation: str, arguments: Sequence[Any]) -> bytes:
    """Return a request's frame.

    Raises:
        HubFrameError: it is larger than the hub takes.
    """
    return _framed((number, operation, arguments), MAX_REQUEST_BYTES)


def read_request(frame: bytes) -> Request:
    """Return what a frame from a client asks for.

    Raises:
        HubFrameError: it is no request.
    """
    match _unpacked(frame):
        case (int(number), str(operation), tuple(arguments)):
            return number, operation, arguments
    raise HubFrameError("a frame that is no request")


def write_reply(number: int, value: Any) -> bytes:
    """Return a reply's frame.

    Raises:
        HubFrameError: it is larger than a client takes.
    """
    return _framed((number, value), MAX_REPLY_BYTES)


def write_refusal(number: int, reason: str) -> bytes:
    """Return the frame that sends a client to the actor."""
    return _framed((number, None, reason), MAX_REPLY_BYTES)


def read_reply(frame: bytes) -> Reply:
    """Return what a frame from the hub says.

    Raises:
        HubFrameError: it is no reply.
    """
    match _unpacked(frame):
        case (int(number), value):
            return number, value, None
        case (int(number), None, str(reason)):
            return number, None, reason
    raise HubFrameError("a frame that is no reply")


def _framed(content: Any, max_bytes: int) -> bytes:
    packed: bytes = msgpack.packb(content)
    if len(packed) > max_bytes:
        raise HubFrameError(f"a frame of {len(packed)} bytes; allowed are {max_bytes}")
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def _unpacked(frame: bytes) -> Any:
    try:
        return msgpack.unpackb(frame, use_list=False)
    except Exception as error:
        # The library has a dozen ways of saying that bytes are not its own, not all of one tree.
        raise HubFrameError("a frame that is not MessagePack") from error
