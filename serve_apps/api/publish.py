"""HTTP API for publishers, in the shape that PyPI's ``cent`` and Centrifugo's tools speak.

Publishes through the hub and stores nothing. Invariant: an answer with a ``result`` means
the hub has confirmed; after a 503 a repetition with the same ``idempotency_key`` is safe.
"""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from realtime.errors import InvalidChannelError, InvalidMessageError
from realtime.publication import MAX_PUBLICATION_BYTES, Draft, Priority
from serve_apps.api.server_answer import (
    Answer,
    AnswerModel,
    ServerRequest,
    error_answer,
    hub_asked,
    json_response,
    responds,
)
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_publish, require
from serve_apps.codes import ErrorCode
from serve_apps.deps import deps_of

router = APIRouter()

MAX_CHANNELS = 512
PUBLISH_TIMEOUT_S = 4.0

Publisher = Annotated[Identity, Depends(require(Role.ENGINEER))]


class _Message(ServerRequest):
    # Centrifugo's further fields (tags, skip_history, delta) are ignored as its own older versions do.
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


class Position(BaseModel):
    """A place in a channel's stream."""

    offset: int
    epoch: str


class Responses(BaseModel):
    """One answer for each channel, in their order."""

    responses: list[AnswerModel[Position]]


@router.post("/api/publish", responses=responds(Position))
async def publish(body: PublishRequest, request: Request, identity: Publisher) -> Response:
    """Publish one message; the answer carries its position."""
    return json_response(await publish_one(request, identity, body))


@router.post("/api/broadcast", responses=responds(Responses))
async def broadcast(body: BroadcastRequest, request: Request, identity: Publisher) -> Response:
    """Publish one message to several channels; the answer carries one response for each, in order."""
    return json_response(await publish_all(request, identity, body))


async def publish_one(request: Request, identity: Identity, body: PublishRequest) -> Answer:
    """Publish one message.

    Raises:
        ServiceUnavailableError: nobody knows whether it was published.
    """
    return (await _publish(request, identity, body, [body.channel]))[0]


async def publish_all(request: Request, identity: Identity, body: BroadcastRequest) -> Answer:
    """Publish one message to several channels.

    Raises:
        ServiceUnavailableError: nobody knows whether it was published.
    """
    return {"result": {"responses": await _publish(request, identity, body, body.channels)}}


async def _publish(request: Request, identity: Identity, message: _Message, channels: list[str]) -> list[Answer]:
    try:
        data = orjson.dumps(message.data)
    except TypeError:  # Python's parser lets through what JSON cannot say again: a lone surrogate, a nest without end
        return [error_answer(ErrorCode.BAD_REQUEST, "data cannot be written as JSON") for _ in channels]
    answers: list[Answer] = []
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
        with hub_asked():
            positions = await deps_of(request).hub.publish([draft for _, draft in drafts], PUBLISH_TIMEOUT_S)
        for (place, _), position in zip(drafts, positions, strict=True):
            answers[place] = {"result": {"offset": position.offset, "epoch": position.epoch}}
    return answers


def _draft(channel: str, data: bytes, message: _Message) -> Draft:
    key = message.idempotency_key
    return Draft(channel, data, message.priority, key, message.coalesce_key)
