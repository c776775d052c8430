"""Notices that a full disk has room again, for programs that do not notice it themselves.

nats-server does not write to a stream again after one write failed (2.15: "critical write
error"), so publishers are refused until it is started anew; what it accepted is all there.
Invariant: each time the disk was full is told once, and only when there is room.
"""

from collections.abc import Callable

MIB = 1024 * 1024
FULL_BYTES = 16 * MIB
"""Free bytes below which a write may have failed: more than the largest message."""
ROOM_BYTES = 64 * MIB
"""Free bytes from which on it is worth starting anew."""


class FullDisk:
    """Remembers whether one disk was full."""

    def __init__(
        self, free_bytes: Callable[[], int], *, full_bytes: int = FULL_BYTES, room_bytes: int = ROOM_BYTES
    ) -> None:
        self._free_bytes = free_bytes
        self._full_bytes = full_bytes
        self._room_bytes = room_bytes
        self._was_full = False

    def has_ended(self) -> bool:
        """Look once; True when the disk was full before and has room now."""
        free_bytes = self._free_bytes()
        if free_bytes < self._full_bytes:
            self._was_full = True
        elif self._was_full and free_bytes >= self._room_bytes:
            self._was_full = False
            return True
        return False
