"""Ids that sort by the time they were made.

Not secret and not a proof of anything: they name rows. Invariant: within one process ids
strictly increase, also when the clock stands still or steps back.
"""

import random
import secrets
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that is read as a digit."""

TIME_CHARS = 10
RANDOM_BITS = 80
LENGTH = 26

STEP_BITS = 24
"""Of the step between two ids of one millisecond, so that nobody's next id is the one before plus one."""

_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)
_SHIFTS = tuple(range(5 * LENGTH - 10, -1, -10))
TAIL_CHARS = 10
"""The last characters; those before them are the same for as good as all ids of a millisecond."""
_TAIL_BITS = 5 * TAIL_CHARS
_TAIL_MASK = (1 << _TAIL_BITS) - 1
_lock = threading.Lock()
_last = 0
_last_ms = 0
_head_value, _head = -1, ""


def new_id() -> str:
    """Return a new id of 26 characters (a ULID: 48 bits of milliseconds, 80 random bits).

    Within one millisecond the random part counts on by a random step, as a ULID's may: the kernel
    is asked for random bits once a millisecond and not once an id.
    """
    global _last, _last_ms, _head_value, _head
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms = now_ms
            _last = max(now_ms << RANDOM_BITS | secrets.randbits(RANDOM_BITS), _last + 1)
        else:
            _last += 1 + random.getrandbits(STEP_BITS)
        if _last >> _TAIL_BITS != _head_value:
            _head_value = _last >> _TAIL_BITS
            _head = _encode(_head_value, LENGTH - TAIL_CHARS)
        return _head + _encode(_last & _TAIL_MASK, TAIL_CHARS)


def first_id_at(time_s: float) -> str:
    """Return what sorts before every id made at ``time_s`` (seconds since the epoch) or later."""
    return _encode(max(0, int(time_s * 1000)) << RANDOM_BITS, LENGTH)


def _encode(value: int, num_chars: int) -> str:
    # Two characters at a time: an alert is given several ids.
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS[-num_chars // 2 :]])
