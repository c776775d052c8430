"""One MQTT message as it arrived: on which connection, with which packet id, when.

Data only. A payload above the limit is cut when it arrives (its length and SHA-256 stay), so
what waits in memory is bounded by the number of deliveries times the limit.
"""

import hashlib
from dataclasses import dataclass

from ingest.dead_letter import KEPT_BYTES

MAX_PAYLOAD_BYTES = 256 * 1024
"""Largest payload that is used; what is larger becomes a dead letter."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One arrival of one message; a redelivery is another one.

    Mutable in one place: the receive window marks it as settled.
    """

    epoch: int
    """Connection on which it arrived; an acknowledgement is worth nothing on any other."""
    mid: int
    """Packet id; 0 for QoS 0, which is never acknowledged."""
    topic: str
    payload: bytes
    qos: int
    is_dup: bool
    is_retained: bool
    received_at: float
    """Seconds since the epoch."""
    payload_bytes: int
    """Length before any cut."""
    sha256: str | None = None
    """Of the whole payload, in hex; only where the payload was cut."""
    correlation: bytes = b""
    """MQTT 5's correlation data: which request a message answers."""
    content_type: str = ""
    """As the device named it (MQTT 5)."""
    user_properties: tuple[tuple[str, str], ...] = ()
    """Those that somebody here reads (MQTT 5)."""
    client_id: str = ""
    """Whose session it came through; there it is acknowledged."""
    is_settled: bool = False

    @property
    def kept_bytes(self) -> int:
        """What it holds of the memory that is bounded; a topic may be as long as 64 KiB."""
        return len(self.payload) + len(self.topic)

    @property
    def is_oversize(self) -> bool:
        """Say whether the payload was above the limit, and is therefore cut."""
        return self.sha256 is not None


def cut_payload(payload: bytes) -> tuple[bytes, str | None]:
    """Return the payload as it is kept, and the SHA-256 of the whole where that is less."""
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload, None
    return payload[:KEPT_BYTES], hashlib.sha256(payload).hexdigest()
