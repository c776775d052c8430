"""Several calls of the HTTP API in one request, in the shape of Centrifugo's ``batch``.

Invariant: each command is answered in its place, with what it would have got alone; what
one of them is refused changes nothing about the others.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_apps.api.history import HistoryRequest, read_history
from serve_apps.api.publish import BroadcastRequest, PublishRequest, error_answer, json_response, publish_to
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.codes import ErrorCode

router = APIRouter()

MAX_COMMANDS = 256

Publisher = Annotated[Identity, Depends(require(Role.VIEWER))]


class Command(BaseModel):
    """One call: exactly one of the fields."""

    model_config = ConfigDict(extra="forbid")

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    history: HistoryRequest | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Command":
        if len(self.model_fields_set) != 1:
            raise ValueError("a command is exactly one of publish, broadcast, history")
        return self


class BatchRequest(BaseModel):
    """Commands, carried out in their order."""

    model_config = ConfigDict(extra="ignore")

    commands: list[Command] = Field(min_length=1, max_length=MAX_COMMANDS)


@router.post("/api/batch")
async def batch(body: BatchRequest, request: Request, identity: Publisher) -> Response:
    """Carry out commands one after another; ``replies`` holds one answer for each, in order."""
    return json_response({"replies": [await _reply(request, identity, command) for command in body.commands]})


async def _reply(request: Request, identity: Identity, command: Command) -> dict[str, Any]:
    (method,) = command.model_fields_set
    answer = await _answer(request, identity, command)
    return {method: answer["result"]} if "result" in answer else answer


async def _answer(request: Request, identity: Identity, command: Command) -> dict[str, Any]:
    if command.history is not None:
        return await read_history(request, identity, command.history)
    if not identity.has(Role.ENGINEER):
        return error_answer(ErrorCode.PERMISSION_DENIED)
    if command.publish is not None:
        return (await publish_to(request, identity, command.publish, [command.publish.channel]))[0]
    assert command.broadcast is not None
    responses = await publish_to(request, identity, command.broadcast, command.broadcast.channels)
    return {"result": {"responses": responses}}
