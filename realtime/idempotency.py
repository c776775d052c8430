"""Memory of what was published under which key, bounded in time and in number.

Pure state; the owner passes the time in. Invariant: within the bounds, a key yields the
position of its first use, and only that.
"""

from collections import OrderedDict
from collections.abc import Hashable

from realtime.publication import StreamPosition


class IdempotencyWindow:
    """Positions by key; the oldest keys leave first."""

    def __init__(self, size: int, ttl_s: float) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._positions: OrderedDict[Hashable, tuple[float, StreamPosition]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, key: Hashable, now_s: float) -> StreamPosition | None:
        """Return where ``key`` was published, or None if it was not, or is forgotten."""
        found = self._positions.get(key)
        return found[1] if found is not None and found[0] > now_s else None

    def put(self, key: Hashable, position: StreamPosition, now_s: float) -> None:
        """Remember ``key``, forgetting others that are too old or too many."""
        self._positions.pop(key, None)
        self._positions[key] = (now_s + self._ttl_s, position)
        while len(self._positions) > self._size or next(iter(self._positions.values()))[0] <= now_s:
            self._positions.popitem(last=False)
