"""A channel's recent publications over HTTP, in the shape of Centrifugo's ``history`` calls.

Invariant: who may not listen to a channel cannot read its history either.
"""

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from cluster.errors import ServiceUnavailableError
from realtime.channels import is_channel
from realtime.publication import StreamPosition
from serve_apps import frames
from serve_apps.api.server_answer import (
    Answer,
    Nothing,
    ServerRequest,
    error_answer,
    hub_asked,
    json_response,
    responds,
)
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_read_history, require
from serve_apps.codes import ErrorCode
from serve_apps.deps import deps_of
from serve_apps.errors import RunLookupError
from serve_apps.namespaces import namespace_of
from serve_apps.websocket import connections_of

router = APIRouter()

Reader = Annotated[Identity, Depends(require(Role.VIEWER))]
Remover = Annotated[Identity, Depends(require(Role.ADMIN))]


class Since(BaseModel):
    """A position that an earlier answer or publication gave."""

    offset: int = Field(ge=0, strict=True)
    epoch: str = Field(default="", max_length=256)


class HistoryRequest(ServerRequest):
    """What to read of one channel."""

    channel: str
    limit: int | None = None
    """None or 0: only the position; negative: as many as the server gives."""
    since: Since | None = None
    reverse: bool | None = None


class HistoryRemoveRequest(ServerRequest):
    """Whose history to drop."""

    channel: str


class ClientInfo(BaseModel):
    """A connection, as others see it."""

    user: str
    client: str


class PublicationModel(BaseModel):
    """One message at its place."""

    data: Any
    offset: int
    time: int
    """Milliseconds since 1970."""
    info: ClientInfo | None = None
    """The client that published it; absent: a service did."""


class HistoryResult(BaseModel):
    """Publications in ascending order, or descending where asked for, and the top of the stream."""

    publications: list[PublicationModel]
    offset: int
    epoch: str


@router.post("/api/history", responses=responds(HistoryResult))
async def history(body: HistoryRequest, request: Request, identity: Reader) -> Response:
    """Return publications of a channel and the top of its stream."""
    return json_response(await read_history(request, identity, body))


@router.post("/api/history_remove", responses=responds(Nothing))
async def history_remove(body: HistoryRemoveRequest, request: Request, identity: Remover) -> Response:
    """Drop what the hub keeps of a channel; doing it again changes nothing."""
    return json_response(await remove_history(request, identity, body))


async def read_history(request: Request, identity: Identity, body: HistoryRequest) -> Answer:
    """Return the answer to one history request.

    Raises:
        ServiceUnavailableError: the hub did not answer in time.
    """
    refusal = await reading_refusal(request, identity, body.channel)
    if refusal is None and not namespace_of(body.channel).history:
        refusal = ErrorCode.NOT_AVAILABLE
    if refusal is not None:
        return error_answer(refusal)
    since = None if body.since is None else StreamPosition(body.since.epoch, body.since.offset)
    command = frames.History(id=0, channel=body.channel, limit=body.limit or 0, since=since, reverse=bool(body.reverse))
    with hub_asked():
        position, items = await connections_of(request).feed.history(command)
    if items is None:
        return error_answer(ErrorCode.UNRECOVERABLE_POSITION)
    publications = frames.publications(items)
    return {"result": {"publications": publications, "offset": position.offset, "epoch": position.epoch}}


async def remove_history(request: Request, identity: Identity, body: HistoryRemoveRequest) -> Answer:
    """Drop a channel's history.

    Raises:
        ServiceUnavailableError: the hub did not answer in time.
    """
    refusal = await reading_refusal(request, identity, body.channel)
    if refusal is not None:
        return error_answer(refusal)
    with hub_asked():
        await deps_of(request).hub.remove_history(body.channel)
    return {"result": {}}


async def reading_refusal(request: Request, identity: Identity, channel: str) -> ErrorCode | None:
    """Return why ``identity`` may not look into ``channel``; None: it may.

    Raises:
        ServiceUnavailableError: it is a run's, and nobody could tell whose run it is.
    """
    if not is_channel(channel):
        return ErrorCode.UNKNOWN_CHANNEL
    return None if await readable(request, identity, [channel]) else ErrorCode.PERMISSION_DENIED


async def readable(request: Request, identity: Identity, channels: Collection[str]) -> list[str]:
    """Return those of ``channels`` that ``identity`` may look into.

    Raises:
        ServiceUnavailableError: there is a run's among them, and nobody could tell whose run it is.
    """
    runs = connections_of(request).runs
    try:
        await runs.learn(identity.tenant, channels)
    except RunLookupError as error:
        raise ServiceUnavailableError("sql", "DATABASE_URL", str(error)) from error
    return [channel for channel in channels if may_read_history(identity, channel, runs.known)]
