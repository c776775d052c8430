"""Which web pages may talk to the floor: its own, and those on the list.

Reads headers, whose names are in lower case, and nothing else. A caller that sends neither
Origin nor Sec-Fetch-Site is no browser, so nobody can have lent it a cookie against its
user's will. Invariant: an answer that another origin's page may read names that one
origin, never ``*``.
"""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

READABLE_PATHS = ("/api/", "/connection/")
"""Where pages of listed origins may call; the page itself and its files are for the floor's own."""
MAX_AGE_S = 600

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")


class Origins:
    """The floor's own origin and the listed ones."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._listed = frozenset(listed)

    def trusts(self, headers: Mapping[str, str]) -> bool:
        """Tell whether no page, our own page or a listed one made this request."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}
        return origin in self._listed or (bool(origin) and urlsplit(origin).netloc == headers.get("host"))

    def cors_headers(self, path: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return what lets a listed origin's page read the answer to a request."""
        if not self._listed or not path.startswith(READABLE_PATHS):
            return {}
        origin = headers.get("origin")
        if origin not in self._listed:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
            # The guard's same-origin would have a browser drop what the line above allows.
            "Cross-Origin-Resource-Policy": "cross-origin",
        }

    def preflight_headers(self, path: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return the answer to a browser that asks before a call; None: this is no such question of a listed origin."""
        cors = self.cors_headers(path, headers)
        if "access-control-request-method" not in headers or "Access-Control-Allow-Origin" not in cors:
            return None
        return {
            **cors,
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type, x-api-key",
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }


def check_origin(origin: str) -> None:
    """Refuse what is no origin as browsers send it.

    Raises:
        ValueError: a wildcard, a path, a missing scheme, or upper case letters.
    """
    if not _ORIGIN.fullmatch(origin) or origin != origin.lower():
        raise ValueError(f"an origin is scheme://host[:port] in lower case, without a path, got {origin!r}")
