"""The floor's own signing keys: which one signs, and which ones still count.

Reads no file. Invariant: every key has at least 32 bytes, and the first one signs.
"""

import hashlib

MIN_KEY_BYTES = 32
MAX_KEYS = 4
"""The one that signs, and older ones whose tokens have not ended yet."""


def parse_keys(content: bytes) -> tuple[bytes, ...]:
    """Return the keys in a secret file: one a line, the first signs; what is no such list is one key.

    A file of random bytes may hold a line break by chance, so lines count as keys only where
    all of them are printable and long enough.

    Raises:
        ValueError: the key is too short, or there are more than ``MAX_KEYS``.
    """
    lines = [line.strip() for line in content.strip().splitlines()]
    if len(lines) > 1 and all(len(line) >= MIN_KEY_BYTES and line.isascii() and _is_text(line) for line in lines):
        if len(lines) > MAX_KEYS:
            raise ValueError(f"the secret file may hold at most {MAX_KEYS} keys, got {len(lines)}")
        return tuple(lines)
    return (usable(content.strip()),)


def usable(key: bytes) -> bytes:
    """Return ``key`` if it is long enough.

    Raises:
        ValueError: it could be guessed.
    """
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"the secret must hold at least {MIN_KEY_BYTES} bytes, got {len(key)}")
    return key


def key_id(key: bytes) -> str:
    """Return the name of a key that its tokens carry (``kid``); it tells nothing of the key."""
    return hashlib.sha256(b"watchfloor key id\0" + key).hexdigest()[:16]


def _is_text(line: bytes) -> bool:
    return line.decode("ascii").isprintable()
