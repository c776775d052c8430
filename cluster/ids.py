"""Ids that sort by the time they were made.

Not secret and not a proof of anything: they name rows. Invariant: within one process ids
strictly increase, also when the clock stands still or steps back.
"""

import secrets
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that is read as a digit."""

TIME_CHARS = 10
RANDOM_BITS = 80
LENGTH = 26

_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
_SHIFTS = tuple(range(5 * LENGTH - 10, -1, -10))
_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a new id of 26 characters (a ULID: 48 bits of milliseconds, 80 random bits)."""
    global _last
    with _lock:
        candidate = (time.time_ns() // 1_000_000) << RANDOM_BITS | secrets.randbits(RANDOM_BITS)
        _last = max(candidate, _last + 1)
        return _encode(_last)


def first_id_at(time_s: float) -> str:
    """Return what sorts before every id made at ``time_s`` (seconds since the epoch) or later."""
    return _encode(max(0, int(time_s * 1000)) << RANDOM_BITS)


def _encode(value: int) -> str:
    # Two characters at a time: an alert is given several ids.
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
