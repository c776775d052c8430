"""HTTP API for publishers, in the shape that PyPI's ``cent`` and Centrifugo's tools speak.

Publishes through the hub and stores nothing. Invariant: an answer with a ``result`` means
the hub has confirmed; an ``error`` inside an answer of status 200 means that this request
was refused; a 503 means that nobody knows, and that a repetition with the same
``idempotency_key`` is safe.
"""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import ServiceUnavailableError
from realtime.errors import HubUnavailableError, InvalidChannelError, InvalidMessageError
from realtime.publication import MAX_PUBLICATION_BYTES, Draft, Priority, StreamPosition
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_publish, require
from serve_apps.codes import ErrorCode
from serve_apps.deps import deps_of
from serve_apps.session import VERSION
from serve_apps.websocket import connections_of

router = APIRouter()

MAX_CHANNELS = 512
PUBLISH_TIMEOUT_S = 4.0

Publisher = Annotated[Identity, Depends(require(Role.ENGINEER))]
Operator = Annotated[Identity, Depends(require(Role.OPERATOR))]


class _Message(BaseModel):
    # Centrifugo's further fields (tags, skip_history, delta) are ignored as its own older versions do.
    model_config = ConfigDict(extra="ignore")

    data: Any
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    priority: Priority = Priority.NORMAL
    coalesce_key: str | None = Field(default=None, min_length=1, max_length=256)


class PublishRequest(_Message):
    """One message for one channel."""

    channel: str


class BroadcastRequest(_Message):
    """One message for several channels."""

    channels: list[str] = Field(min_length=1, max_length=MAX_CHANNELS)


@router.post("/api/publish")
async def publish(body: PublishRequest, request: Request, identity: Publisher) -> Response:
    """Publish one message; the answer carries its position."""
    answer = (await publish_to(request, identity, body, [body.channel]))[0]
    return json_response(answer)


@router.post("/api/broadcast")
async def broadcast(body: BroadcastRequest, request: Request, identity: Publisher) -> Response:
    """Publish one message to several channels; the answer carries one response for each, in order."""
    return json_response({"result": {"responses": await publish_to(request, identity, body, body.channels)}})


@router.post("/api/info")
async def info(request: Request, _identity: Operator) -> Response:
    """Describe this gateway replica."""
    register = connections_of(request)
    node = {
        "uid": request.app.state.node_id,
        "name": VERSION,
        "version": request.app.version,
        "num_clients": len(register),
        "num_users": register.num_users,
        "num_channels": register.feed.num_channels,
    }
    return json_response({"result": {"nodes": [node]}})


async def publish_to(
    request: Request, identity: Identity, message: _Message, channels: list[str]
) -> list[dict[str, Any]]:
    """Publish one message to several channels and return an answer for each, in their order.

    Raises:
        ServiceUnavailableError: nobody knows whether it was published.
    """
    data = orjson.dumps(message.data)
    answers: list[dict[str, Any]] = []
    drafts: list[tuple[int, Draft]] = []
    for place, channel in enumerate(channels):
        answers.append(error_answer(ErrorCode.PERMISSION_DENIED))
        if may_publish(identity, channel):
            try:
                drafts.append((place, _draft(channel, data, message)))
            except InvalidChannelError:
                answers[place] = error_answer(ErrorCode.UNKNOWN_CHANNEL)
            except InvalidMessageError:
                answers[place] = error_answer(ErrorCode.LIMIT_EXCEEDED, f"data is over {MAX_PUBLICATION_BYTES} bytes")
    if drafts:
        try:
            positions = await deps_of(request).hub.publish([draft for _, draft in drafts], PUBLISH_TIMEOUT_S)
        except HubUnavailableError as error:
            raise ServiceUnavailableError("hub", "its actor", str(error)) from error
        for (place, _), position in zip(drafts, positions, strict=True):
            answers[place] = {"result": _position(position)}
    return answers


def _draft(channel: str, data: bytes, message: _Message) -> Draft:
    key = message.idempotency_key
    return Draft(channel, data, message.priority, key, message.coalesce_key)


def _position(position: StreamPosition) -> dict[str, Any]:
    return {"offset": position.offset, "epoch": position.epoch}


def json_response(answer: dict[str, Any]) -> Response:
    """Return an answer that may hold payloads as they came, without parsing them."""
    return Response(orjson.dumps(answer), media_type="application/json")


def error_answer(code: ErrorCode, detail: str = "") -> dict[str, Any]:
    """Return a refusal as Centrifugo's API says it, inside an answer of status 200."""
    return {"error": {"code": int(code), "message": f"{code.reason}: {detail}" if detail else code.reason}}
