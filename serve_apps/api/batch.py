"""Several calls of the HTTP API in one request, in the shape of Centrifugo's ``batch``.

Invariant: each command is answered in its place, with what it would have got alone; what
one of them is refused changes nothing about the others.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_apps.api import control, history, presence, publish
from serve_apps.api.control import DisconnectRequest, SubscribeRequest, UnsubscribeRequest
from serve_apps.api.history import HistoryRemoveRequest, HistoryRequest
from serve_apps.api.presence import ChannelsRequest, InfoRequest, PresenceRequest
from serve_apps.api.publish import BroadcastRequest, PublishRequest
from serve_apps.api.server_answer import Answer, ServerRequest, error_answer, json_response
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import ROUTES, require
from serve_apps.codes import ErrorCode

router = APIRouter()

MAX_COMMANDS = 256

Caller = Annotated[Identity, Depends(require(Role.VIEWER))]

METHODS: Mapping[str, Callable[[Request, Identity, Any], Awaitable[Answer]]] = {
    "publish": publish.publish_one,
    "broadcast": publish.publish_all,
    "history": history.read_history,
    "history_remove": history.remove_history,
    "presence": presence.read_presence,
    "presence_stats": presence.read_presence_stats,
    "channels": presence.read_channels,
    "info": presence.read_info,
    "disconnect": control.disconnect_user,
    "subscribe": control.subscribe_user,
    "unsubscribe": control.unsubscribe_user,
}
"""Name of a call -> what performs it; its least role is that of its route."""


class Command(BaseModel):
    """One call: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    history: HistoryRequest | None = None
    history_remove: HistoryRemoveRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceRequest | None = None
    channels: ChannelsRequest | None = None
    info: InfoRequest | None = None
    disconnect: DisconnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Command":
        if len(self.model_fields_set) != 1 or getattr(self, next(iter(self.model_fields_set))) is None:
            raise ValueError(f"a command is exactly one of {', '.join(METHODS)}")
        return self


class BatchRequest(ServerRequest):
    """Commands, carried out in their order."""

    commands: list[Command] = Field(min_length=1, max_length=MAX_COMMANDS)


class BatchResult(BaseModel):
    """One answer for each command, in order: the result under the command's name, or ``error``."""

    replies: list[dict[str, Any]]


@router.post("/api/batch", responses={200: {"model": BatchResult, "description": "One reply for each command."}})
async def batch(body: BatchRequest, request: Request, identity: Caller) -> Response:
    """Carry out commands one after another; ``replies`` holds one answer for each, in order."""
    return json_response({"replies": [await _reply(request, identity, command) for command in body.commands]})


async def _reply(request: Request, identity: Identity, command: Command) -> dict[str, Any]:
    (name,) = command.model_fields_set
    role = ROUTES["POST", f"/api/{name}"]
    if not isinstance(role, Role) or not identity.has(role):
        return error_answer(ErrorCode.PERMISSION_DENIED)
    answer = await METHODS[name](request, identity, getattr(command, name))
    return {name: answer["result"]} if "result" in answer else answer
