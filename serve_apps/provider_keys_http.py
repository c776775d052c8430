"""Public keys of an identity provider: fetched from its JWKS address, rotated without a restart.

Network file; a thread of its own fetches, callers only look up. Invariants: a key is used
with the algorithm that it was published for and no other (RFC 8725, section 3.1); tokens
with made-up key ids cause at most one fetch each ``min_refresh_s``; while the provider is
away the last keys go on.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt

from serve_apps.errors import AuthenticationError, KeysUnavailableError
from serve_apps.identity_provider import ALGORITHMS, IdentityProviderSettings

logger = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES = 1024 * 1024


class ProviderKeys:
    """The provider's keys as last fetched (see ``identity_provider.KeySource``). Safe for threads."""

    def __init__(self, settings: IdentityProviderSettings, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock_s = clock_s
        self._keys: Mapping[tuple[str | None, str], jwt.PyJWK] = {}
        self._fetched_at_s: float | None = None
        self._is_wanted = threading.Event()
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Fetch now and from time to time, in a thread."""
        self._thread = threading.Thread(target=self._fetch_forever, name="identity-provider-keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop fetching."""
        self._is_closing.set()
        self._is_wanted.set()
        if self._thread is not None:
            self._thread.join(self.settings.timeout_s)

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        """Return the key that a token names.

        Raises:
            KeysUnavailableError: it may be known in a moment: nothing was fetched yet, or the
                key is newer than the last fetch.
            AuthenticationError: no such key, or not for this algorithm.
        """
        if algorithm not in ALGORITHMS:
            raise AuthenticationError(f"algorithm {algorithm[:16]!r} is not taken")
        key = self._keys.get((key_id, algorithm))
        if key is not None:
            return key
        if self._fetched_at_s is None or self._clock_s() - self._fetched_at_s >= self.settings.min_refresh_s:
            self._is_wanted.set()
            raise KeysUnavailableError
        raise AuthenticationError("the token names a key that the identity provider does not publish")

    def fetch(self) -> None:
        """Replace the keys by those that the provider publishes now; on a failure the old ones stay."""
        try:
            published = jwt.PyJWKSet.from_dict(self._download()).keys
        except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
            logger.warning("the identity provider's keys could not be fetched: %s", error)
            return
        self._keys = {
            (key.key_id, key.algorithm_name): key
            for key in published
            if key.public_key_use in {None, "sig"} and key.algorithm_name in ALGORITHMS
        }
        self._fetched_at_s = self._clock_s()

    def _download(self) -> dict[str, Any]:
        with httpx.stream("GET", self.settings.jwks_url, timeout=self.settings.timeout_s) as answer:
            answer.raise_for_status()
            text = b""
            for part in answer.iter_bytes():
                text += part
                if len(text) > MAX_DOCUMENT_BYTES:
                    raise ValueError(f"the document is longer than {MAX_DOCUMENT_BYTES} bytes")
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("the document is no JSON object")  # noqa: TRY004 - its content, not its Python type
        return document

    def _fetch_forever(self) -> None:
        while not self._is_closing.is_set():
            self._is_wanted.clear()
            self.fetch()
            # Whatever is asked for, the provider is not asked more often than this.
            self._is_closing.wait(self.settings.min_refresh_s)
            self._is_wanted.wait(self.settings.refresh_s - self.settings.min_refresh_s)
