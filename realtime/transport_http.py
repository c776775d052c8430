"""Broadcasts by the floor's HTTP API, for programs outside its Ray cluster.

One request per message over a kept connection; the idempotency key of each is its place
in the batch, so that a repeated batch is published once.
"""

from collections.abc import Sequence

import httpx
import orjson

from realtime.errors import TransportError
from realtime.publication import Draft


class HttpTransport:
    """Transport over ``POST /api/publish``."""

    name = "http"
    never_blocks_when_idle = False

    def __init__(self, url: str, token: str) -> None:
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(base_url=url.rstrip("/"), headers=headers)

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        """See ``Transport.send``; confirmed when it returns."""
        for index, draft in enumerate(drafts):
            body = {
                "channel": draft.channel,
                "data": orjson.Fragment(draft.data),
                "idempotency_key": draft.key or f"{batch}-{index}",
                "priority": draft.priority.value,
            }
            if draft.coalesce_key is not None:
                body["coalesce_key"] = draft.coalesce_key
            self._post(orjson.dumps(body), timeout_s, index)
        return 1

    def fileno(self) -> int:
        raise AssertionError("nothing is awaited: send confirms")

    def confirm(self, timeout_s: float) -> int:  # noqa: ARG002 -- the Protocol's
        raise AssertionError("nothing is awaited: send confirms")

    def close(self) -> None:
        self._client.close()

    def _post(self, body: bytes, timeout_s: float, index: int) -> None:
        try:
            response = self._client.post("/api/publish", content=body, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise TransportError(self.name, "unreachable", False) from error
        if (
            response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            or response.status_code == httpx.codes.TOO_MANY_REQUESTS
        ):
            raise TransportError(self.name, "unreachable", False)
        if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise TransportError(self.name, "not_allowed", True, index)
        if response.is_error or _has_error(response):
            raise TransportError(self.name, "refused", True, index)


def _has_error(response: httpx.Response) -> bool:
    # The API answers as Centrifugo's: status 200, and an "error" beside or instead of "result".
    try:
        answer = response.json()
    except ValueError:
        return True
    return isinstance(answer, dict) and bool(answer.get("error"))
