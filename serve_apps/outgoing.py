"""One outgoing frame, in whichever form its transport takes.

Knows no socket and no connection. Invariant: a form is made when it is first asked for and
then kept, so a frame that a thousand connections send is decoded and framed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TEXT_FRAME = 0x81
"""First byte of a whole text message: FIN and opcode 1 (RFC 6455, 5.2). Without RSV1 it is not
compressed, which is allowed whatever extensions were agreed on."""


@dataclass(frozen=True, slots=True)
class Part:
    """How much of one channel a frame carries, for the metrics."""

    kind: str
    num_lines: int
    oldest_ms: int
    """Time at which its first publication was published, epoch milliseconds."""


class Frame:
    """Lines that leave together."""

    __slots__ = ("_text", "_websocket", "data", "num_bytes", "parts")

    def __init__(self, data: bytes, parts: tuple[Part, ...] = ()) -> None:
        self.data = data
        self.num_bytes = len(data)
        self.parts = parts
        self._text: str | None = None
        self._websocket: bytes | None = None

    @classmethod
    def joined(cls, frames: Sequence["Frame"]) -> "Frame":
        """Return one frame with the lines of all; one alone is itself, so what it has made is kept."""
        if len(frames) == 1:
            return frames[0]
        return cls(
            b"\n".join([frame.data for frame in frames]), tuple(part for frame in frames for part in frame.parts)
        )

    @property
    def text(self) -> str:
        """The lines as text."""
        if self._text is None:
            self._text = self.data.decode()
        return self._text

    @property
    def websocket(self) -> bytes:
        """The bytes of a WebSocket text frame from a server."""
        if self._websocket is None:
            self._websocket = _header(self.num_bytes) + self.data
        return self._websocket


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((TEXT_FRAME, size))
    if size < 1 << 16:
        return bytes((TEXT_FRAME, 126)) + size.to_bytes(2, "big")
    return bytes((TEXT_FRAME, 127)) + size.to_bytes(8, "big")
