"""Which bytes become a document how: the table of payload formats, by MQTT 5 content type.

Pure. Another format is one more row: a function that returns the outer object with plain
values, and one that refuses what the first let pass. What the fields mean is
``decoder.py``'s, whatever the format. Invariant: only ``PayloadError`` leaves a codec.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.payload import PayloadError, Reason
from ingest.strict_json import load_object, reject_duplicate_keys


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload format."""

    load: Callable[[bytes], dict[str, Any]]
    """Bytes to the outer object."""
    check: Callable[[bytes, int], None]
    """Called with the bytes and the number of keys and texts that were used of them; refuses what was hidden."""


JSON = Codec(load_object, reject_duplicate_keys)

CODECS: Mapping[str, Codec] = {
    # MQTT 3.1.1 has no content types, and most MQTT 5 devices name none.
    "": JSON,
    "application/json": JSON,
}
"""Content type, without parameters and in lower case -> its format."""


def codec_of(content_type: str) -> Codec:
    """Return the format of a content type.

    Raises:
        PayloadError: nobody here reads it.
    """
    codec = CODECS.get(content_type)
    if codec is None:
        codec = CODECS.get(content_type.partition(";")[0].strip().lower())
    if codec is None:
        known = ", ".join(name for name in CODECS if name)
        raise PayloadError(Reason.UNKNOWN_CODEC, f"a content type besides {known}")
    return codec
