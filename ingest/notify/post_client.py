"""One POST to somebody else's server, with all that such a server may not do to us.

No redirect is followed: the operator chose the address, and a redirect would choose another
one, inside our network if it likes. No more of an answer is read than its first bytes, and
none for longer than the deadline, however slowly it drips. Invariant: ``post`` returns only
for an answer of 2xx; all else is one of three errors, and only outages count for the breaker.
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from ingest.errors import ReceiverRefusedError, ReceiverUnavailableError

MAX_ANSWER_BYTES = 16 * 1024
"""Of an answer; the rest is left unread and its connection closed."""
SHOWN_CHARS = 200
BUSY = frozenset({408, 425, 429})
"""Refusals that mean "later"."""
MAX_ASKED_S = 86_400.0


def open_client() -> httpx.AsyncClient:
    """Return a client for the life of one target."""
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30.0)
    return httpx.AsyncClient(follow_redirects=False, limits=limits, headers={"user-agent": "watchfloor"})


async def post(client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
    """Send ``body`` and wait for its acceptance, at most ``timeout_s`` in all.

    Raises:
        ReceiverRefusedError: an answer of 3xx or 4xx: the server lives and does not take this.
        ReceiverUnavailableError: an answer of 5xx, no HTTP, or no connection.
        TimeoutError: the time is over.
    """
    host = urlsplit(url).hostname or ""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream(
                "POST", url, content=body, headers={"content-type": "application/json", **headers}, timeout=timeout_s
            ) as answer,
        ):
            text = await _beginning(answer)
    except (httpx.TimeoutException, TimeoutError) as error:
        raise TimeoutError(f"{host} did not answer within {timeout_s:.1f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise ReceiverUnavailableError(host, f"{type(error).__name__}: {error}"[:SHOWN_CHARS]) from error
    if answer.is_success:
        return
    if answer.is_server_error:
        raise ReceiverUnavailableError(host, f"{answer.status_code} {text}".strip())
    what = "a redirect, which is not followed" if answer.is_redirect else text
    raise ReceiverRefusedError(host, answer.status_code, what, _asked_s(answer))


async def _beginning(answer: httpx.Response) -> str:
    # Raw: what a packed answer would unpack to is not bounded by what was read.
    read = bytearray()
    async for part in answer.aiter_raw():
        read += part
        if len(read) >= MAX_ANSWER_BYTES:
            break
    text = bytes(read[:SHOWN_CHARS]).decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _asked_s(answer: httpx.Response) -> float | None:
    after = answer.headers.get("retry-after", "")
    if answer.status_code not in BUSY or not after.isdecimal():
        return None
    return min(float(after[:6]), MAX_ASKED_S)
