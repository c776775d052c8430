"""Memory of what was published under which key, bounded in time and in number.

Pure state; the owner passes the time in. Invariant: within the bounds, a key yields the
position of its first use, and only that.
"""

from collections import deque
from collections.abc import Hashable

from realtime.publication import StreamPosition


class IdempotencyWindow:
    """Positions by key; the oldest keys leave first."""

    def __init__(self, size: int, ttl_s: float) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._positions: dict[Hashable, tuple[float, StreamPosition]] = {}
        # Apart from the dictionary, whose first key is the slower to find the more have left before it.
        self._order: deque[tuple[float, Hashable]] = deque()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, key: Hashable, now_s: float) -> StreamPosition | None:
        """Return where ``key`` was published, or None if it was not, or is forgotten."""
        found = self._positions.get(key)
        return found[1] if found is not None and found[0] > now_s else None

    def put(self, key: Hashable, position: StreamPosition, now_s: float) -> None:
        """Remember ``key``, forgetting others that are too old or too many."""
        until_s = now_s + self._ttl_s
        self._positions[key] = (until_s, position)
        self._order.append((until_s, key))
        while len(self._order) > self._size or self._order[0][0] <= now_s:
            until_s, oldest = self._order.popleft()
            found = self._positions.get(oldest)
            if found is not None and found[0] == until_s:  # else it was used again, and has a younger place
                del self._positions[oldest]
