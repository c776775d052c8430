"""Commands to devices over HTTP: published with QoS 1 behind the breaker, once per request id.

``ingest.commands`` does the publishing, in the lane of external calls. Invariants: 202
means that the broker has the command; the same ``request_id`` sends it once, and a device
that gets it twice all the same can tell by its ``id``.
"""

import asyncio
import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from redis.exceptions import RedisError

from cluster.errors import ServiceUnavailableError
from cluster.ids import new_id
from ingest.commands import command_topic, publish_mqtt_task
from ingest.directory import DeviceDirectory
from serve_apps.api.border import ApiRoute, Body, JsonObject, Level, RequestId, tenant_of
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import require
from serve_apps.deps import GatewayDeps, deps_of

router = APIRouter(prefix="/api/v1/commands", route_class=ApiRoute)

BROKER_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 25.0
"""For the broker and for a slot and a process of the lane; a cold worker takes some seconds."""
REMEMBERED_S = 3600
SENT_KEY = "wf:command:{user}:{request_id}"


class CommandBody(Body):
    """A command to one device."""

    tenant: Level
    device: Level
    payload: JsonObject
    request_id: RequestId | None = None


@router.post("", status_code=202)
async def send_command(
    request: Request, identity: Annotated[Identity, Depends(require(Role.OPERATOR))], body: CommandBody
) -> dict[str, Any]:
    """Publish a command on ``{root}/{tenant}/{device}/cmd``; its ``id`` is in the answer."""
    deps = deps_of(request)
    own = tenant_of(identity)
    is_foreign = own is not None and own != body.tenant
    if is_foreign or await asyncio.to_thread(DeviceDirectory(deps.engine).get, body.tenant, body.device) is None:
        raise HTTPException(404, f"there is no device {body.tenant}/{body.device}")
    command_id = body.request_id or new_id()
    answer = {"id": command_id, "topic": command_topic(body.tenant, body.device)}
    key = SENT_KEY.format(user=identity.user_id, request_id=command_id)
    if not await _is_first(deps, key, _digest(body)):
        return answer
    try:
        await _publish(answer["topic"], {"id": command_id} | body.payload)
    except BaseException:
        # Not known to be sent: the same request may be made again.
        await deps.redis.delete(key)
        raise
    return answer


async def _publish(topic: str, payload: dict[str, Any]) -> None:
    try:
        handle = await asyncio.to_thread(publish_mqtt_task.submit, topic, payload, BROKER_TIMEOUT_S)
        await handle.aresult(ANSWER_TIMEOUT_S)
    except ValueError as error:
        raise HTTPException(422, f"payload: {error}") from error
    except TimeoutError as error:
        raise ServiceUnavailableError("mqtt_broker", "MQTT_URL", "no confirmation in time") from error


async def _is_first(deps: GatewayDeps, key: str, digest: str) -> bool:
    """Tell whether this request is new; refuse another one under the same id."""
    try:
        if await deps.redis.set(key, digest, nx=True, ex=REMEMBERED_S):
            return True
        known = await deps.redis.get(key)
    except RedisError as error:
        raise ServiceUnavailableError("valkey", "REDIS_URL", str(error) or type(error).__name__) from error
    if known is not None and _text(known) != digest:
        raise HTTPException(409, "this request_id was used for another command")
    return False


def _digest(body: CommandBody) -> str:
    content = json.dumps([body.tenant, body.device, body.payload], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
