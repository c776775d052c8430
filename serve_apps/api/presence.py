"""Who is where, over HTTP: members of channels, channels with members, gateway replicas.

All of it is what the replicas last reported to the hub. Invariant: who may not listen to a
channel learns neither who is in it nor that it has members.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from realtime.presence import GatewayFigures, PresenceReply
from serve_apps import frames
from serve_apps.api.history import ClientInfo, readable, reading_refusal
from serve_apps.api.server_answer import Answer, ServerRequest, error_answer, hub_asked, json_response, responds
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import may_meet, require
from serve_apps.codes import ErrorCode
from serve_apps.deps import deps_of
from serve_apps.namespaces import namespace_of
from serve_apps.session import VERSION
from serve_apps.websocket import connections_of

router = APIRouter()

MAX_CHANNELS = 10_000
"""Channels that the hub names in one answer."""

Reader = Annotated[Identity, Depends(require(Role.VIEWER))]
Operator = Annotated[Identity, Depends(require(Role.OPERATOR))]


class PresenceRequest(ServerRequest):
    """Whose members to name."""

    channel: str


class ChannelsRequest(ServerRequest):
    """Which channels to name."""

    pattern: str = Field(default="", max_length=256)
    """As in file names: ``*``, ``?``, ``[...]``; empty: all."""


class InfoRequest(ServerRequest):
    """Nothing has to be said."""


class PresenceResult(BaseModel):
    """Connection id -> who it is."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(BaseModel):
    """How many there are."""

    num_clients: int
    num_users: int


class ChannelInfo(BaseModel):
    """One channel with members."""

    num_clients: int


class ChannelsResult(BaseModel):
    """Channel -> how many are in it."""

    channels: dict[str, ChannelInfo]


class Node(BaseModel):
    """One gateway replica."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    uptime: int
    """Seconds."""


class InfoResult(BaseModel):
    """Every gateway replica of the floor."""

    nodes: list[Node]


@router.post("/api/presence", responses=responds(PresenceResult))
async def presence(body: PresenceRequest, request: Request, identity: Reader) -> Response:
    """Return who is in a channel now."""
    return json_response(await read_presence(request, identity, body))


@router.post("/api/presence_stats", responses=responds(PresenceStatsResult))
async def presence_stats(body: PresenceRequest, request: Request, identity: Reader) -> Response:
    """Return how many connections and users are in a channel now."""
    return json_response(await read_presence_stats(request, identity, body))


@router.post("/api/channels", responses=responds(ChannelsResult))
async def channels(body: ChannelsRequest, request: Request, identity: Reader) -> Response:
    """Return the channels that have members, of those the caller may look into."""
    return json_response(await read_channels(request, identity, body))


@router.post("/api/info", responses=responds(InfoResult))
async def info(request: Request, identity: Operator, body: InfoRequest | None = None) -> Response:
    """Describe every gateway replica, the answering one as it is now and the others as they last reported."""
    return json_response(await read_info(request, identity, body or InfoRequest()))


async def read_presence(request: Request, identity: Identity, body: PresenceRequest) -> Answer:
    """Return the members of a channel."""
    return await _presence(request, identity, body, stats_only=False)


async def read_presence_stats(request: Request, identity: Identity, body: PresenceRequest) -> Answer:
    """Return the number of members of a channel."""
    return await _presence(request, identity, body, stats_only=True)


async def read_channels(request: Request, identity: Identity, body: ChannelsRequest) -> Answer:
    """Return the channels with members that the caller may look into."""
    with hub_asked():
        found = await deps_of(request).hub.present_channels(body.pattern, MAX_CHANNELS)
    seen = await readable(request, identity, found)
    named = {name: {"num_clients": found[name]} for name in seen if may_meet(identity, name)}
    return {"result": {"channels": named}}


async def read_info(request: Request, _identity: Identity, _body: InfoRequest) -> Answer:
    """Return all gateway replicas."""
    with hub_asked():
        reported = await deps_of(request).hub.gateways()
    own = connections_of(request).figures()
    replicas = [own, *(figures for figures in reported if figures.uid != own.uid)]
    return {"result": {"nodes": [_node(figures, request.app.version) for figures in replicas]}}


async def _presence(request: Request, identity: Identity, body: PresenceRequest, *, stats_only: bool) -> Answer:
    refusal = await reading_refusal(request, identity, body.channel)
    if refusal is None and not may_meet(identity, body.channel):
        refusal = ErrorCode.PERMISSION_DENIED
    if refusal is None and not namespace_of(body.channel).presence:
        refusal = ErrorCode.NOT_AVAILABLE
    if refusal is not None:
        return error_answer(refusal)
    with hub_asked():
        limit = 0 if stats_only else namespace_of(body.channel).presence_limit
        found: PresenceReply = await deps_of(request).hub.presence(body.channel, limit)
    return {"result": frames.presence_stats(found) if stats_only else frames.presence(found)}


def _node(figures: GatewayFigures, version: str) -> dict[str, str | int]:
    return {
        "uid": figures.uid,
        "name": VERSION,
        "version": version,
        "num_clients": figures.num_clients,
        "num_users": figures.num_users,
        "num_channels": figures.num_channels,
        "uptime": figures.uptime_s,
    }
