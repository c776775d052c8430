"""Values of the broadcast path: what goes in, what comes out, and where it stands.

No behaviour beyond the checks at the door. Invariant: a publication is identified by
(channel, epoch, offset), and the hub never gives that triple to two of them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from realtime.channels import kind_of
from realtime.errors import InvalidMessageError

MAX_PUBLICATION_BYTES = 65_536
"""Largest payload of one publication; what clients may send is bounded by the same figure."""


class Priority(StrEnum):
    """Class of a publication, most urgent first; decides what waits and what is dropped."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    PROGRESS = "progress"


PRIORITIES: dict[str, Priority] = {str(priority): priority for priority in Priority}
"""The classes by name; looked up twice for each message, which the enum itself does in Python."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message on its way to the hub.

    Raises:
        InvalidChannelError: nobody could subscribe to the channel.
        InvalidMessageError: the payload is empty or too large.
    """

    channel: str
    data: bytes
    """The payload: one JSON value without a line break."""
    priority: Priority = Priority.NORMAL
    key: str | None = None
    """Idempotency key: a second draft with the same channel and key is not published again."""
    coalesce_key: str | None = None
    """Latest-only: a newer draft of the same channel and key takes the place of this one."""
    info: bytes = b""
    """The client that published it, as one JSON object; empty: a service did."""

    def __post_init__(self) -> None:
        kind_of(self.channel)
        if not 0 < len(self.data) <= MAX_PUBLICATION_BYTES:
            raise InvalidMessageError("", f"has {len(self.data)} bytes; allowed are 1 to {MAX_PUBLICATION_BYTES}")


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """A place in a channel's stream; offset 0 is before the first publication."""

    epoch: str
    """Life of the stream. Offsets of two epochs must not be compared."""
    offset: int


class Publication(NamedTuple):
    """A message of a channel at its place in the stream.

    A tuple, because one is made for each message in the hub and in each replica: a frozen
    dataclass of eight fields takes four times as long to make.

    Offsets of one channel and epoch strictly increase. They may skip: a coalesced
    publication leaves its offset unused for those who come later, and a restarted hub
    begins above everything that it may have used.
    """

    channel: str
    offset: int
    data: bytes
    priority: Priority
    time_ms: int
    """When the hub took it, milliseconds since the Unix epoch."""
    epoch: str
    """Life of the stream; differs from the reader's: resynchronise that channel."""
    info: bytes = b""
    """The client that published it, as one JSON object; empty: a service did."""
    coalesce_key: str | None = None
    """Latest-only: whoever holds several of a key, not sent yet, sends only the newest."""

    @property
    def position(self) -> StreamPosition:
        """Position of a reader that has seen this publication."""
        return StreamPosition(self.epoch, self.offset)
