"""Methods of the protocol's ``rpc`` command: what the HTTP API answers, over the open socket.

Rights stand in ``authorisation.RPC``, whose names are these. Invariant: a method that has the
name of an HTTP route answers its caller exactly what that would.
"""

import dataclasses
import logging
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from pydantic import ValidationError

from cluster.errors import ServiceUnavailableError
from serve_apps.answers import Caller, RpcMethod
from serve_apps.api.labels import SessionBody, session_key
from serve_apps.api.status import describe_caller, floor_status
from serve_apps.codes import ErrorCode
from serve_apps.namespaces import namespace_of
from training.labelling.label_client import LabelQueueClient

logger = logging.getLogger(__name__)


def methods(app: FastAPI) -> dict[str, RpcMethod]:
    """Return every method by its name, for one replica's application."""

    async def status(caller: Caller) -> Any:
        return jsonable_encoder(await floor_status(app, caller.identity))

    async def hold_labels(caller: Caller) -> Any:
        return hold_until_the_end(app.state.deps.labels, caller)

    return {"channels": channels, "config": config, "hold_labels": hold_labels, "status": status}


def hold_until_the_end(labels: LabelQueueClient, caller: Caller) -> dict[str, str] | ErrorCode:
    """Tie the questions that a session leases to the caller's connection: they are free at once when it is over.

    Args:
        labels: the floor's queue.
        caller: who calls, with ``{"session": name}`` as it is told to ``POST /api/v1/labels/lease``; without one
            the connection's own name is the session's.
    """
    try:
        session = SessionBody.model_validate(caller.data or {"session": caller.client_id}).session
    except ValidationError:
        return ErrorCode.BAD_REQUEST

    async def release() -> None:
        try:
            await labels.arelease(session_key(caller.identity, session))
        except ServiceUnavailableError as error:
            logger.info("the leases of a closed connection end by their time: %s", error)

    caller.at_end("labels", release)
    return {"session": session}


async def channels(caller: Caller) -> dict[str, Any]:
    """Return the connection's channels with the options of each."""
    return {channel: dataclasses.asdict(namespace_of(channel)) for channel in caller.channels}


async def config(caller: Caller) -> Any:
    """Return who is connected and what they may do, as ``GET /api/v1/config``."""
    return jsonable_encoder(describe_caller(caller.identity))
