"""Signs a webhook as Standard Webhooks says: HMAC-SHA256 over id, time and body.

Pure. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
Invariant: ``verify`` accepts what ``sign`` made by one of its keys, unchanged and recent, and
nothing else; it compares in constant time.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
VERSION = "v1"
KEY_BYTES = range(24, 65)
TOLERANCE_S = 300.0
"""How far a receiver lets the clocks differ; what is older may be a replay."""

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


def parse_key(text: str) -> bytes:
    """Return the key that ``text`` (``whsec_`` and base64) stands for.

    Raises:
        ValueError: it is none; the text does not repeat it.
    """
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a webhook's secret must be whsec_ and base64") from None
    if len(key) not in KEY_BYTES:
        raise ValueError(f"a webhook's secret must have 24-64 bytes, got {len(key)}")
    return key


def sign(keys: Sequence[bytes], message_id: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message, with one signature per key.

    Args:
        keys: the newest first; a receiver needs one of them.
        message_id: the same at every try of a message.
        at: seconds since the epoch, of this try.
        body: as it is sent.
    """
    signatures = " ".join(f"{VERSION},{_digest(key, message_id, str(at), body)}" for key in keys)
    return {ID: message_id, TIMESTAMP: str(at), SIGNATURE: signatures}


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Tell whether a message is genuine: signed by one of ``keys``, and made within ``TOLERANCE_S`` of ``now``.

    Args:
        headers: with lower-case names.
    """
    message_id, at = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not message_id or not at.isdecimal() or abs(now - int(at)) > TOLERANCE_S:
        return False
    given = [part.partition(",")[2] for part in headers.get(SIGNATURE, "").split() if part.startswith(f"{VERSION},")]
    expected = [_digest(key, message_id, at, body) for key in keys]
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in given)


def _digest(key: bytes, message_id: str, at: str, body: bytes) -> str:
    signed = f"{message_id}.{at}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
