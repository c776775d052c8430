"""One process's connections to the hub's socket: a few for its threads, one for each event loop.

Opens and keeps them; what is said on them is the client's. Invariant: who asks for a
connection gets one that can be used, or None at once while the socket is out of reach.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from realtime.errors import HubRefusedError
from realtime.hub_connection_socket import AsyncConnection, BlockingConnection
from realtime.hub_frames import SocketAddress
from realtime.hub_route import Route

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 1.0
MAX_IDLE_CONNECTIONS = 4
"""Connections kept for threads; more are opened while more threads publish at once."""

Found = tuple[str, bytes] | None
"""What the hub's actor says of its socket: path and secret, or that there is none."""


class HubPool:
    """All of them; for threads ``borrow``, for event loops ``of_loop``."""

    def __init__(self, find: Callable[[float], Found], afind: Callable[[], Awaitable[Found]]) -> None:
        """Keep how to ask the actor, with a time-out in seconds or on a loop; their errors go to who asked."""
        self._find = find
        self._afind = afind
        self._route = Route()
        self._idle: list[BlockingConnection] = []
        self._links: dict[asyncio.AbstractEventLoop, _Link] = {}

    def borrow(self, timeout_s: float) -> BlockingConnection | None:
        """Return a connection for the calling thread, which gives it back or closes it."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_open:
                return connection
            connection.close()
        if not self._route.may_try(time.monotonic()):
            return None
        address = self._route.address or _address(self._find(timeout_s))
        opened = None
        if address is not None:
            try:
                opened = BlockingConnection(address, CONNECT_TIMEOUT_S)
            except (OSError, HubRefusedError) as error:
                logger.debug("the hub's socket cannot be used: %s", error)
        self._note(address, is_reached=opened is not None)
        return opened

    def give_back(self, connection: BlockingConnection) -> None:
        """Take a borrowed connection back, in whatever state it is."""
        if not connection.is_open:
            self._route.lost(connection.address)
        elif len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
            return
        connection.close()

    async def of_loop(self) -> AsyncConnection | None:
        """Return the running loop's connection."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            self._forget_closed_loops()
            link = self._links[loop] = _Link()
        if link.connection is not None:
            if link.connection.is_open:
                return link.connection
            self._route.lost(link.connection.address)
            link.connection = None
        if link.opening is None or link.opening.done():
            if not self._route.may_try(time.monotonic()):
                return None
            link.opening = asyncio.create_task(self._open(link), name="hub-connect")
            link.opening.add_done_callback(_heard)
        await asyncio.shield(link.opening)
        return link.connection

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in tuple(self._links) if loop.is_closed()]:
            link = self._links.pop(loop, None)
            if link is not None and link.connection is not None:
                link.connection.close()

    async def _open(self, link: "_Link") -> None:
        address = self._route.address or _address(await self._afind())
        if address is not None:
            try:
                link.connection = await AsyncConnection.open(address, CONNECT_TIMEOUT_S)
            except (OSError, HubRefusedError) as error:
                logger.debug("the hub's socket cannot be used: %s", error)
        self._note(address, is_reached=link.connection is not None)

    def _note(self, address: SocketAddress | None, *, is_reached: bool) -> None:
        if address is not None and is_reached:
            self._route.reached(address)
        else:
            self._route.unreachable(time.monotonic())


class _Link:
    """One event loop's connection, or the making of it."""

    def __init__(self) -> None:
        self.connection: AsyncConnection | None = None
        self.opening: asyncio.Task[None] | None = None


def _address(found: Found) -> SocketAddress | None:
    return None if found is None else SocketAddress(*found)


def _heard(opening: "asyncio.Task[None]") -> None:
    # Whoever waited may have been cancelled; an error that nobody asks for is logged as a defect.
    if not opening.cancelled():
        opening.exception()
