"""Methods of the protocol's ``rpc`` command: what the HTTP API answers, over the open socket.

Rights stand in ``authorisation.RPC``, whose names are these. Invariant: a method answers
its caller exactly what the HTTP route of the same name would.
"""

import dataclasses
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder

from serve_apps.answers import Caller, RpcMethod
from serve_apps.api.status import describe_caller, floor_status
from serve_apps.namespaces import namespace_of


def methods(app: FastAPI) -> dict[str, RpcMethod]:
    """Return every method by its name, for one replica's application."""

    async def status(caller: Caller) -> Any:
        return jsonable_encoder(await floor_status(app, caller.identity))

    return {"channels": channels, "config": config, "status": status}


async def channels(caller: Caller) -> dict[str, Any]:
    """Return the connection's channels with the options of each."""
    return {channel: dataclasses.asdict(namespace_of(channel)) for channel in caller.channels}


async def config(caller: Caller) -> Any:
    """Return who is connected and what they may do, as ``GET /api/v1/config``."""
    return jsonable_encoder(describe_caller(caller.identity))
