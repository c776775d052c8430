"""A channel's recent publications over HTTP, in the shape of Centrifugo's ``history``.

Invariant: who may not listen to a channel cannot read its history either.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import ServiceUnavailableError
from realtime.channels import kind_of
from realtime.errors import InvalidChannelError
from realtime.publication import StreamPosition
from serve_apps import frames
from serve_apps.api.publish import error_answer, json_response
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_read_history, require
from serve_apps.codes import ErrorCode
from serve_apps.errors import FeedUnavailableError
from serve_apps.websocket import connections_of

router = APIRouter()

Reader = Annotated[Identity, Depends(require(Role.VIEWER))]


class Since(BaseModel):
    """A position that an earlier answer or publication gave."""

    offset: int = Field(ge=0)
    epoch: str = Field(default="", max_length=256)


class HistoryRequest(BaseModel):
    """What to read of one channel."""

    model_config = ConfigDict(extra="ignore")

    channel: str
    limit: int | None = None
    """None or 0: only the position; negative: as many as the server gives."""
    since: Since | None = None
    reverse: bool | None = None


@router.post("/api/history")
async def history(body: HistoryRequest, request: Request, identity: Reader) -> Response:
    """Return publications of a channel and the top of its stream."""
    return json_response(await read_history(request, identity, body))


async def read_history(request: Request, identity: Identity, body: HistoryRequest) -> dict[str, Any]:
    """Return the answer to one history request.

    Raises:
        ServiceUnavailableError: the hub did not answer in time.
    """
    try:
        kind_of(body.channel)
    except InvalidChannelError:
        return error_answer(ErrorCode.UNKNOWN_CHANNEL)
    if not may_read_history(identity, body.channel):
        return error_answer(ErrorCode.PERMISSION_DENIED)
    since = None if body.since is None else StreamPosition(body.since.epoch, body.since.offset)
    command = frames.History(id=0, channel=body.channel, limit=body.limit or 0, since=since, reverse=bool(body.reverse))
    try:
        position, items = await connections_of(request).feed.history(command)
    except FeedUnavailableError as error:
        raise ServiceUnavailableError("hub", "its actor", str(error)) from error
    if items is None:
        return error_answer(ErrorCode.UNRECOVERABLE_POSITION)
    publications = frames.publications(items)
    return {"result": {"publications": publications, "offset": position.offset, "epoch": position.epoch}}
