"""Calls that act on connections, wherever they are: disconnect, subscribe, unsubscribe.

Published to all gateway replicas and performed there within a poll of the hub. Invariant:
an answer with a ``result`` means that every replica will hear of it; a repeated
``idempotency_key`` is told once; a tenant's caller reaches its own tenant's connections only.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, model_validator

from realtime import notices
from realtime.channels import GATEWAY_ALL, is_channel
from realtime.publication import Draft, Priority
from serve_apps.api.publish import PUBLISH_TIMEOUT_S
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
from serve_apps.authorisation import require
from serve_apps.codes import CloseCode, ErrorCode
from serve_apps.deps import deps_of

router = APIRouter()

Admin = Annotated[Identity, Depends(require(Role.ADMIN))]
MAX_SPARED = 128


class _ConnectionsRequest(ServerRequest):
    user: str = Field(max_length=128)
    client: str = Field(default="", max_length=64)
    """Only this connection; empty: all of the user's."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)

    @model_validator(mode="after")
    def _means_somebody(self) -> "_ConnectionsRequest":
        if not self.user and not self.client:
            raise ValueError("user or client must be named")
        return self


class CloseReason(BaseModel):
    """What the clients are told; the reason is the code's own."""

    code: int = int(CloseCode.FORCE_DISCONNECT)


class DisconnectRequest(_ConnectionsRequest):
    """Whose connections to close."""

    whitelist: list[str] = Field(default=[], max_length=MAX_SPARED)
    """Connections that stay."""
    disconnect: CloseReason | None = None
    """None: 3503, after which the SDKs do not come back."""


class SubscribeRequest(_ConnectionsRequest):
    """Whose connections to subscribe to which channel."""

    channel: str


class UnsubscribeRequest(_ConnectionsRequest):
    """Whose subscriptions to which channel to end."""

    channel: str


@router.post("/api/disconnect", responses=responds(Nothing))
async def disconnect(body: DisconnectRequest, request: Request, identity: Admin) -> Response:
    """Close the connections of a user on all replicas."""
    return json_response(await disconnect_user(request, identity, body))


@router.post("/api/subscribe", responses=responds(Nothing))
async def subscribe(body: SubscribeRequest, request: Request, identity: Admin) -> Response:
    """Subscribe the connections of a user to a channel that the user may listen to."""
    return json_response(await subscribe_user(request, identity, body))


@router.post("/api/unsubscribe", responses=responds(Nothing))
async def unsubscribe(body: UnsubscribeRequest, request: Request, identity: Admin) -> Response:
    """End the subscriptions of a user to a channel."""
    return json_response(await unsubscribe_user(request, identity, body))


async def disconnect_user(request: Request, identity: Identity, body: DisconnectRequest) -> Answer:
    """Tell all replicas to close connections."""
    code = body.disconnect.code if body.disconnect is not None else int(CloseCode.FORCE_DISCONNECT)
    if CloseCode.numbered(code) is None:
        return error_answer(ErrorCode.BAD_REQUEST, "no code of this protocol")
    notice = notices.Disconnect(audience=_audience(identity, body), code=code, spared=tuple(body.whitelist))
    return await _tell(request, identity, body, notice)


async def subscribe_user(request: Request, identity: Identity, body: SubscribeRequest) -> Answer:
    """Tell all replicas to subscribe connections."""
    if not is_channel(body.channel):
        return error_answer(ErrorCode.UNKNOWN_CHANNEL)
    notice = notices.Subscribe(audience=_audience(identity, body), channel=body.channel)
    return await _tell(request, identity, body, notice)


async def unsubscribe_user(request: Request, identity: Identity, body: UnsubscribeRequest) -> Answer:
    """Tell all replicas to end subscriptions."""
    if not is_channel(body.channel):
        return error_answer(ErrorCode.UNKNOWN_CHANNEL)
    notice = notices.Unsubscribe(audience=_audience(identity, body), channel=body.channel)
    return await _tell(request, identity, body, notice)


def _audience(identity: Identity, body: _ConnectionsRequest) -> notices.Audience:
    return notices.Audience(user=body.user, client=body.client, tenant=identity.tenant)


async def _tell(request: Request, identity: Identity, body: _ConnectionsRequest, notice: notices.Command) -> Answer:
    # The keys of all callers and calls share one channel: each has its own part of them.
    key = body.idempotency_key and f"{type(notice).__name__}:{identity.user_id}:{body.idempotency_key}"
    draft = Draft(GATEWAY_ALL, notices.write(notice), Priority.CRITICAL, key)
    with hub_asked():
        await deps_of(request).hub.publish([draft], PUBLISH_TIMEOUT_S)
    return {"result": {}}
