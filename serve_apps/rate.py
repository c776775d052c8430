"""How often something may happen: a token bucket.

No clock: the caller passes the time. Invariant: over any span of ``t`` seconds at most
``burst + t * per_s`` are let through.
"""


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
