"""The hub's Unix socket: the same operations as its actor, without the actor's call.

Serves ``HubService`` on the event loop that the actor lives on; decides nothing about
channels. Who connects must first show the secret of this life of the hub, which only the
actor hands out. Invariants: bytes that are wrong end the connection that they came on and
nothing else; and each connection holds bounded memory here, whether its peer floods or
never reads. An operation that fails here is refused, and the client asks the actor.
"""

import asyncio
import hmac
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from realtime import wire
from realtime.errors import HubFrameError
from realtime.hub_frames import (
    MAX_GREETING_BYTES,
    MAX_REQUEST_BYTES,
    FrameReader,
    SocketAddress,
    read_request,
    write_refusal,
    write_reply,
)
from realtime.hub_service import HubService
from realtime.publication import StreamPosition
from realtime.replies import Cursor

logger = logging.getLogger(__name__)

SECRET_BYTES = 32
GREETING_S = 5.0
"""Time in which a peer must have shown the secret."""
MAX_CONNECTIONS = 1_024
"""Processes of one node at a time; further ones use the actor."""
MAX_UNDER_WAY = 64
"""Requests of one connection that wait for an answer; the next ones are not read."""
MAX_BATCH_NAME = 128
HELD_BYTES = 262_144
"""Replies that a peer has not read; above it nothing more is read from it."""
TURN_BYTES = 1_048_576
"""Replies of one connection in one turn of the loop, so that others have theirs."""


class HubSocket:
    """One life of the hub's socket and the connections on it."""

    def __init__(
        self,
        service: HubService,
        folder: Path,
        max_connections: int = MAX_CONNECTIONS,
        greeting_s: float = GREETING_S,
    ) -> None:
        self.service = service
        self.address = SocketAddress(
            str(folder / f"hub-{secrets.token_hex(4)}.sock"), secrets.token_bytes(SECRET_BYTES)
        )
        self.max_connections = max_connections
        self.greeting_s = greeting_s
        self.peers: set[_Peer] = set()
        self.calls_total = 0
        self.closed: Counter[str] = Counter()
        """Connections that this side ended, by reason."""
        self.is_closed = False
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to listen; the sockets of dead hubs in the folder are removed.

        Raises:
            OSError: it cannot listen there.
        """
        await asyncio.to_thread(_remove_stale, Path(self.address.path).parent)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Peer(self), self.address.path)

    async def close(self) -> None:
        """Stop listening and end all connections, those included that were just taken and are not made yet."""
        self.is_closed = True
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.end("closed")
        if self._server is not None:
            await self._server.wait_closed()
        await asyncio.to_thread(Path(self.address.path).unlink, missing_ok=True)


def _remove_stale(folder: Path) -> None:
    for path in folder.glob("hub-*.sock"):
        path.unlink(missing_ok=True)


class _Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, hub: HubSocket) -> None:
        self._hub = hub
        self._reader = FrameReader(MAX_GREETING_BYTES)
        self._frames: deque[bytes] = deque()
        self._is_known = False
        self._is_ended = False
        self._is_peer_slow = False
        self._is_paused = False
        self._is_turn_due = False
        self._under_way = 0
        self._polls: dict[object, Callable[[], None]] = {}
        self._turn_bytes = 0
        self._operations: dict[str, Callable[..., None]] = {
            "publish": self._publish,
            "poll": self._poll,
            "history": self._history,
            "positions": self._positions,
        }

    # -- what asyncio calls ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HELD_BYTES)
        self._hub.peers.add(self)
        self._greeting = asyncio.get_running_loop().call_later(self._hub.greeting_s, self.end, "silent")
        if self._hub.is_closed:
            self.end("closed")
        elif len(self._hub.peers) > self._hub.max_connections:
            self.end("too_many")

    def data_received(self, data: bytes) -> None:
        try:
            self._frames += self._reader.feed(data)
            self._work()
        except HubFrameError as error:
            logger.warning("a connection of the hub is ended: %s", error)
            self.end("bad_frame")

    def pause_writing(self) -> None:
        self._is_peer_slow = True

    def resume_writing(self) -> None:
        self._is_peer_slow = False
        self._work_soon()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._is_ended = True
        self._greeting.cancel()
        self._hub.peers.discard(self)
        for give_up in self._polls.values():
            give_up()
        self._polls.clear()
        self._frames.clear()

    # -- what comes in -----------------------------------------------------------------

    def end(self, reason: str) -> None:
        """End the connection at once; what was not written is dropped."""
        if not self._is_ended:
            self._is_ended = True
            self._hub.closed[reason] += 1
            self._transport.abort()

    def _work(self) -> None:
        self._turn_bytes = 0
        while self._frames and not self._is_ended:
            if self._is_peer_slow or self._under_way >= MAX_UNDER_WAY:
                break
            if self._turn_bytes > TURN_BYTES:
                self._work_soon()
                break
            self._take(self._frames.popleft())
        if bool(self._frames) != self._is_paused and not self._is_ended:
            self._is_paused = not self._is_paused
            (self._transport.pause_reading if self._is_paused else self._transport.resume_reading)()

    def _work_soon(self) -> None:
        if self._frames and not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_turn_due = False
        try:
            self._work()
        except HubFrameError as error:
            logger.warning("a connection of the hub is ended: %s", error)
            self.end("bad_frame")

    def _take(self, frame: bytes) -> None:
        number, operation, arguments = read_request(frame)
        if not self._is_known:
            self._greet(number, operation, arguments)
            return
        perform = self._operations.get(operation)
        if perform is None:
            self._write(write_refusal(number, "no such operation"))
            return
        self._hub.calls_total += 1
        self._under_way += 1
        try:
            perform(number, *arguments)
        except Exception as error:
            # Whatever is wrong with one request, the actor says it in full.
            self._settle(write_refusal(number, type(error).__name__))

    def _greet(self, number: int, operation: str, arguments: tuple[Any, ...]) -> None:
        match operation, arguments:
            case "hello", (bytes(secret),) if hmac.compare_digest(secret, self._hub.address.secret):
                self._is_known = True
                self._reader.max_bytes = MAX_REQUEST_BYTES
                self._greeting.cancel()
                self._write(write_reply(number, None))
            case _:
                logger.warning("a connection of the hub is ended: it did not show the secret")
                self.end("no_secret")

    # -- operations --------------------------------------------------------------------

    def _publish(self, number: int, batch: str, drafts: tuple[wire.WireDraft, ...]) -> None:
        if not isinstance(batch, str) or len(batch) > MAX_BATCH_NAME:
            raise TypeError("the name of a batch is short text")
        self._hub.service.publish_then(wire.read_drafts(drafts), batch, partial(self._on_published, number))

    def _on_published(self, number: int, positions: list[StreamPosition]) -> None:
        self._answer(number, wire.write_positions(positions))

    def _poll(
        self, number: int, place: tuple[str, int] | None, timeout_s: float, wish: wire.WireWish | None = None
    ) -> None:
        key = object()
        is_answered = False

        def answer(reply: Any) -> None:
            nonlocal is_answered
            is_answered = True
            self._polls.pop(key, None)
            self._answer(number, wire.write_poll(reply))

        if not timeout_s >= 0.0:  # nor NaN, which would put the loop's timers out of order
            raise ValueError("the time of a poll is not negative")
        cursor = None if place is None else Cursor(*place)
        give_up = self._hub.service.poll_then(cursor, timeout_s, answer, wire.read_wish(wish))
        if not is_answered:
            self._polls[key] = give_up

    def _history(
        self,
        number: int,
        channel: str,
        since: tuple[str, int] | None,
        limit: int,
        asker: wire.WireAsker | None = None,
    ) -> None:
        position = None if since is None else StreamPosition(*since)
        reply = self._hub.service.history(channel, position, int(limit), wire.read_asker(asker))
        self._answer(number, wire.write_history(reply))

    def _positions(self, number: int, channels: tuple[str, ...], asker: wire.WireAsker | None = None) -> None:
        found = self._hub.service.positions(channels, wire.read_asker(asker))
        self._answer(number, {channel: wire.write_position(position) for channel, position in found.items()})

    # -- what goes out -----------------------------------------------------------------

    def _answer(self, number: int, value: Any) -> None:
        try:
            frame = write_reply(number, value)
        except HubFrameError as error:
            frame = write_refusal(number, error.reason)
        except Exception as error:
            # The hub's own tasks call this: a value that cannot be written must not end them.
            logger.exception("an answer of the hub cannot be written")
            frame = write_refusal(number, type(error).__name__)
        self._settle(frame)

    def _settle(self, frame: bytes) -> None:
        self._under_way -= 1
        self._write(frame)
        self._work_soon()

    def _write(self, frame: bytes) -> None:
        if not self._is_ended:
            self._turn_bytes += len(frame)
            self._transport.write(frame)
