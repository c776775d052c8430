"""How often something may happen: token buckets, one or one for each key.

No clock: the caller passes the time. Invariant: over any span of ``t`` seconds at most
``burst + t * per_s`` are let through, of each key that is remembered.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable


class TokenBucket:
    """Lets ``burst`` through at once and ``per_s`` a second on average."""

    __slots__ = ("_burst", "_per_s", "_tokens", "_updated_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._updated_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one token; False when there is none."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def wait_s(self) -> int:
        """Whole seconds until a token that was refused may be there, at least 1."""
        return max(1, math.ceil((1 - self._tokens) / self._per_s))


class KeyedBuckets:
    """A bucket for each key, made at its first use.

    Bounded: with more keys than ``max_keys`` the one that was used longest ago is forgotten,
    and comes back with a full bucket.
    """

    def __init__(self, per_s: float, burst: float, max_keys: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, now_s: float) -> int:
        """Take one token of ``key``; 0 when there was one, else whole seconds until there may be."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._per_s, self._burst, now_s)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return 0 if bucket.take(now_s) else bucket.wait_s
