"""The shape of every answer of the server API, which is Centrifugo's: a result or an error, at status 200.

Invariant: an ``error`` inside an answer of status 200 means that this request was refused
and changed nothing; a 503 means that nobody knows, and that a repetition is safe where the
request carries a key or is harmless by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from cluster.errors import ServiceUnavailableError
from realtime.errors import HubUnavailableError
from serve_apps.codes import ErrorCode
from serve_apps.errors import FeedUnavailableError

Answer = dict[str, Any]
"""``{"result": ...}`` or ``{"error": {"code", "message"}}``."""

T = TypeVar("T")


class ServerRequest(BaseModel):
    """A request's body; fields that only Centrifugo knows are passed over."""

    model_config = ConfigDict(extra="ignore")


class Refusal(BaseModel):
    """Why a request was refused: a code of the protocol and its text."""

    code: int
    message: str


class AnswerModel(BaseModel, Generic[T]):
    """Exactly one of the two."""

    result: T | None = None
    error: Refusal | None = None


class Nothing(BaseModel):
    """The result of what only has to happen."""


def responds(model: Any) -> dict[int | str, dict[str, Any]]:
    """Return what a route says about its answers: the schema of a result."""
    return {200: {"model": AnswerModel[model], "description": "The result, or the error why there is none."}}


def json_response(answer: Answer) -> Response:
    """Return an answer that may hold payloads as they came, without parsing them."""
    return Response(orjson.dumps(answer), media_type="application/json")


def error_answer(code: ErrorCode, detail: str = "") -> Answer:
    """Return a refusal."""
    return {"error": {"code": int(code), "message": f"{code.reason}: {detail}" if detail else code.reason}}


@contextmanager
def hub_asked() -> Iterator[None]:
    """Turn a hub that does not answer into a 503.

    Raises:
        ServiceUnavailableError: nobody knows what became of the request.
    """
    try:
        yield
    except (HubUnavailableError, FeedUnavailableError) as error:
        raise ServiceUnavailableError("hub", "its actor", str(error)) from error
