"""Payloads of the hub's journal, encrypted with AES-GCM under keys that rotate.

Pure: bytes in, bytes out; keeps nothing and stores nothing. A sealed payload is a random
96-bit nonce and what AES-GCM made of the payload; the id of its key stands in the entry's
header. Invariant: what opens is what was sealed, at the same place of the same channel's
stream; anything else is an ``UnreadablePayloadError``, never another payload.
"""

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from realtime.errors import UnreadablePayloadError
from realtime.publication import Publication

NONCE_BYTES = 12
KEY_SIZES = frozenset({16, 24, 32})
_ID_FORM = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """One key of ``CHANNEL_KEYS``."""

    key_id: str
    key: bytes = field(repr=False)


def parse_keys(text: str) -> tuple[ChannelKey, ...]:
    """Return the keys of a comma-separated list of ``id:base64key``; none if it is empty.

    Raises:
        ValueError: an entry is no such pair; the text names its place and never the key.
    """
    keys: list[ChannelKey] = []
    for place, entry in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        key_id, colon, encoded = entry.partition(":")
        if not colon or not _ID_FORM.fullmatch(key_id):
            raise ValueError(f"key {place} must be id:base64key, with an id of 1-32 of [A-Za-z0-9_-]")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {key_id!r} is not base64") from None
        if len(key) not in KEY_SIZES:
            raise ValueError(f"key {key_id!r} has {len(key)} bytes; allowed are 16, 24 or 32")
        if any(key_id == other.key_id for other in keys):
            raise ValueError(f"key {key_id!r} is there twice")
        keys.append(ChannelKey(key_id, key))
    return tuple(keys)


class JournalCipher:
    """Seals under the first key, opens under any; without keys both leave payloads as they are."""

    def __init__(self, keys: Sequence[ChannelKey] = ()) -> None:
        self._ciphers = {key.key_id: AESGCM(key.key) for key in keys}
        self._first = keys[0].key_id if keys else ""

    def seal(self, publication: Publication) -> tuple[str, bytes]:
        """Return the key's id and the payload of ``publication`` as the journal shall store them.

        An empty id: there is no key, and the payload is as it was.
        """
        if not self._first:
            return "", publication.data
        nonce = os.urandom(NONCE_BYTES)
        return self._first, nonce + self._ciphers[self._first].encrypt(nonce, publication.data, _place(publication))

    def open(self, key_id: str, publication: Publication) -> bytes:
        """Return the payload of a stored ``publication``, whose ``data`` is as ``seal`` returned it.

        A plain payload is taken while no key is set only: with keys, whoever can write into
        the store must not be able to slip one in.

        Raises:
            UnreadablePayloadError: it is of an unknown key, altered, or at another place.
        """
        stored = publication.data
        if not key_id and not self._first:
            return stored
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnreadablePayloadError(key_id, "no such key is set" if key_id else "it is not encrypted")
        try:
            return cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], _place(publication))
        except (InvalidTag, ValueError):
            raise UnreadablePayloadError(key_id, "it was altered, or belongs elsewhere") from None


def _place(publication: Publication) -> bytes:
    # Neither a channel nor an epoch can hold a line break, so no two places are written alike.
    return f"{publication.channel}\n{publication.epoch}\n{publication.offset}".encode()
