"""Answers to what a session asks of the floor: publishing, presence and ``rpc``.

Decides no rights: the session has. Invariant: every question gets an answer within
``hub_timeout_s``, which is below the SDKs' own patience; a hub that is away is the
temporary error 100.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from realtime.errors import InvalidMessageError, RealtimeError
from realtime.hub_client import HubClient
from realtime.publication import Draft
from serve_apps import frames
from serve_apps.auth import Identity
from serve_apps.codes import ErrorCode
from serve_apps.effects import Call, Publish, Question, ReadPresence

logger = logging.getLogger(__name__)


Work = Callable[[], Coroutine[None, None, object]]
AtEnd = Callable[[str, Work], None]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a method."""

    identity: Identity
    channels: tuple[str, ...]
    """Channels that the connection is subscribed to."""
    data: Any
    """What the caller sent along; hostile."""
    client_id: str = ""
    """The connection's own name."""
    at_end: AtEnd = lambda _name, _work: None
    """Has something done once the connection is over; what is named anew takes the place of the older."""


RpcMethod = Callable[[Caller], Awaitable[Any]]
"""Returns what JSON can say, or an ``ErrorCode``."""


class Answers:
    """What the connections of one replica may ask."""

    def __init__(self, hub: HubClient, methods: Mapping[str, RpcMethod], timeout_s: float) -> None:
        self._hub = hub
        self._methods = methods
        self._timeout_s = timeout_s

    async def to(
        self,
        question: Question,
        identity: Identity,
        channels: tuple[str, ...],
        client_id: str = "",
        at_end: AtEnd = lambda _name, _work: None,
    ) -> Mapping[str, Any] | ErrorCode:
        """Return the result of a command of a connection, or why there is none (see ``Caller``)."""
        try:
            async with asyncio.timeout(self._timeout_s):
                match question:
                    case Publish(command, info):
                        draft = Draft(command.channel, command.data, info=info)
                        await self._hub.publish([draft], self._timeout_s)
                        return {}
                    case ReadPresence(command, limit):
                        return await self._presence(command, limit)
                    case Call(command):
                        method = self._methods.get(command.method)
                        if method is None:
                            return ErrorCode.METHOD_NOT_FOUND
                        answer = await method(Caller(identity, channels, command.data, client_id, at_end))
                        return answer if isinstance(answer, ErrorCode) else {"data": answer}
        except InvalidMessageError:
            return ErrorCode.LIMIT_EXCEEDED
        except (RealtimeError, TimeoutError) as error:
            logger.info("a client's %s was not answered: %r", type(question).__name__, error)
            return ErrorCode.INTERNAL
        except Exception:
            # A method's defect is its caller's error, not the end of the connection.
            logger.exception("a client's %s failed", type(question).__name__)
            return ErrorCode.INTERNAL

    async def _presence(self, command: frames.Presence, limit: int) -> Mapping[str, Any]:
        found = await self._hub.presence(command.channel, limit)
        return frames.presence_stats(found) if command.stats_only else frames.presence(found)
