"""Typed front of the hub: time-outs, retries and our errors instead of Ray's and the socket's.

A process on the hub's node talks to it over its Unix socket, whose address the actor gives;
any other process, and any call that the socket cannot carry, takes the actor. Holds one
handle for its life: a look-up by name blocks while the GCS is away, so it happens once, and
again only after the actor behind the handle has died for good.
Invariant: a publish is repeated under the batch name of its first try, so however often and
whichever way it is sent, the hub appends each draft once.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError

from cluster import names
from realtime import wire
from realtime.backoff import Backoff
from realtime.errors import HubNotFoundError, HubRefusedError, HubUnavailableError
from realtime.hub_connection_socket import BlockingConnection
from realtime.hub_pool import Found, HubPool
from realtime.interest import Asker, Wish
from realtime.presence import GatewayFigures, PresenceReply, Report
from realtime.publication import Draft, StreamPosition
from realtime.replies import Cursor, HistoryReply, HubStats, PollReply

logger = logging.getLogger(__name__)

ATTEMPT_TIMEOUT_S = 2.0
"""A lost reply is noticed after this; the same batch is then sent again."""
POLL_GRACE_S = 5.0
"""What a poll's reply may take beyond the time the hub was asked to wait."""

BY_SOCKET = frozenset({"publish", "poll", "history", "positions"})
AWAY = (RayActorError, ActorUnavailableError, GetTimeoutError, TimeoutError)
"""How a hub shows that it does not answer, by the actor or by the socket."""


class HubClient:
    """The cluster's hub, as seen by one process. Safe for threads and for event loops."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # A batch name must never be used twice, by this process or by another.
        self._batch_prefix = secrets.token_hex(8)
        self._batches = itertools.count()
        self._looking_up: asyncio.Task[None] | None = None
        self._pool = HubPool(self._find_socket, self._afind_socket)
        self.calls: Counter[str] = Counter()
        """Answered calls of this client by their way, ``socket`` or ``actor``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return HubClient, (self._handle,)

    @classmethod
    def connect(cls) -> "HubClient":
        """Return a client of the running hub. Blocks; call it from a thread if a loop runs.

        Raises:
            HubNotFoundError: no hub runs on this cluster.
        """
        return cls(_look_up())

    async def publish(self, drafts: Sequence[Draft], timeout_s: float = 5.0) -> list[StreamPosition]:
        """Append ``drafts`` in order; returns when the hub has confirmed them.

        Confirmed means in the journal too, as long as there is one. A draft whose
        (channel, key) is known gets the position of the first one.

        Raises:
            HubUnavailableError: not confirmed in time. The drafts may have been appended;
                to call again without doubling them, give them keys.
        """
        if not drafts:
            return []
        sent, batch = wire.write_drafts(drafts), self._next_batch()
        positions = await self._ask("publish", timeout_s, ATTEMPT_TIMEOUT_S, batch, sent)
        return [wire.read_position(position) for position in positions]

    def publish_sync(
        self, drafts: Sequence[Draft], timeout_s: float = 5.0, batch: str | None = None
    ) -> list[StreamPosition]:
        """``publish`` for threads without an event loop.

        Args:
            drafts: what to append, in order.
            timeout_s: time for all attempts together.
            batch: name of this list of drafts; a later call with the same list and name
                publishes only what the earlier one did not. None: a fresh name.
        """
        if not drafts:
            return []
        sent, batch = wire.write_drafts(drafts), batch or self._next_batch()
        deadline_s, backoff = time.monotonic() + timeout_s, Backoff()
        may_use_socket = True
        while True:
            try:
                if may_use_socket:
                    may_use_socket = False
                    with suppress(ConnectionError, HubRefusedError):
                        answer = self._publish_by_socket(batch, sent, deadline_s)
                        if answer is not None:
                            return [wire.read_position(position) for position in answer]
                ref = self._handle.publish.remote(batch, sent)
                answer = ray.get(ref, timeout=_attempt_s(deadline_s, ATTEMPT_TIMEOUT_S))
                self.calls["actor"] += 1
                return [wire.read_position(position) for position in answer]
            except AWAY as error:
                pause_s = backoff.next_pause_s()
                if time.monotonic() + pause_s >= deadline_s:
                    raise HubUnavailableError("publish", timeout_s, type(error).__name__) from error
                time.sleep(pause_s)
                if isinstance(error, ActorDiedError):
                    self._look_up_again()

    def open_pipe(self, timeout_s: float) -> BlockingConnection | None:
        """Return a connection of the caller's own, for publishes that do not wait for each other.

        None when there is no socket for this process. The caller closes it.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        try:
            return self._pool.borrow(timeout_s)
        except AWAY as error:
            raise HubUnavailableError("open_pipe", timeout_s, type(error).__name__) from error

    async def poll(
        self,
        cursor: Cursor | None,
        timeout_s: float = 25.0,
        hear: Callable[[PollReply], None] | None = None,
        wish: Wish | None = None,
    ) -> PollReply:
        """Return what any channel got since ``cursor``; waits up to ``timeout_s`` for news.

        Without a cursor the answer comes at once and is empty: it says where to begin.
        One call at a time per reader: what is published meanwhile comes with the next.

        Args:
            cursor: where the reader stands.
            timeout_s: longest wait for news.
            hear: called with the reply as soon as it is read, some turns of the loop before this returns;
                twice if the first answer came too late to be returned.
            wish: of a gateway, which channels it follows; None: all.

        Raises:
            HubUnavailableError: the hub did not answer; poll again with the same cursor.
        """
        place = None if cursor is None else (cursor.hub_epoch, cursor.seq)
        patience_s = timeout_s + POLL_GRACE_S
        heard: list[PollReply] = []

        def read(value: wire.WirePoll) -> None:
            heard[:] = [wire.read_poll(value)]
            if hear is not None:
                hear(heard[0])

        await self._ask("poll", patience_s, patience_s, place, timeout_s, wire.write_wish(wish), hear=read)
        return heard[0]

    async def history(
        self, channel: str, since: StreamPosition | None, limit: int = 300, asker: Asker | None = None
    ) -> HistoryReply:
        """Return the publications of ``channel`` after ``since`` and the top of its stream.

        Without ``since``: the newest ``limit`` of them, not recovered. With it: all of
        them, or none and not recovered if some are gone or there are more than ``limit``.
        From here on the polls of ``asker`` bring what the channel gets.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        place, who = None if since is None else wire.write_position(since), wire.write_asker(asker)
        return wire.read_history(await self._ask("history", 5.0, ATTEMPT_TIMEOUT_S, channel, place, limit, who))

    async def positions(self, channels: Sequence[str], asker: Asker | None = None) -> dict[str, StreamPosition]:
        """Return the top of each channel's stream; from here on the polls of ``asker`` bring what they get.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        found = await self._ask("positions", 5.0, ATTEMPT_TIMEOUT_S, list(channels), wire.write_asker(asker))
        return {channel: wire.read_position(position) for channel, position in found.items()}

    async def remove_history(self, channel: str) -> StreamPosition:
        """Drop what the hub keeps of ``channel``; returns the top of its stream.

        Raises:
            HubUnavailableError: the hub did not answer; to ask again changes nothing more.
        """
        return wire.read_position(await self._ask("remove_history", 5.0, ATTEMPT_TIMEOUT_S, channel))

    async def report(self, report: Report) -> bool:
        """Tell who joined and left on a gateway; False: the hub does not know it and wants to hear everything.

        Raises:
            HubUnavailableError: the hub did not answer; the same report may be sent again.
        """
        known: bool = await self._ask("report", 5.0, ATTEMPT_TIMEOUT_S, wire.write_report(report))
        return known

    async def presence(self, channel: str, limit: int) -> PresenceReply:
        """Return up to ``limit`` members of ``channel`` and how many there are.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        return wire.read_presence(await self._ask("presence", 5.0, ATTEMPT_TIMEOUT_S, channel, limit))

    async def present_channels(self, pattern: str, limit: int) -> dict[str, int]:
        """Return up to ``limit`` channels that have members, by a file-name pattern, and how many those are.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        found: dict[str, int] = await self._ask("present_channels", 5.0, ATTEMPT_TIMEOUT_S, pattern, limit)
        return found

    async def gateways(self) -> tuple[GatewayFigures, ...]:
        """Return the gateway replicas that report to the hub.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        return tuple(wire.read_figures(found) for found in await self._ask("gateways", 5.0, ATTEMPT_TIMEOUT_S))

    async def stats(self) -> HubStats:
        """Return the hub's figures.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        stats: HubStats = await self._ask("stats", 5.0, ATTEMPT_TIMEOUT_S)
        return stats

    async def _ask(
        self,
        operation: str,
        timeout_s: float,
        attempt_s: float,
        *args: Any,
        hear: Callable[[Any], None] | None = None,
    ) -> Any:
        # Every operation may be repeated: reads change nothing, publish names its batch, a report its number.
        deadline_s, backoff = time.monotonic() + timeout_s, Backoff()
        may_use_socket = operation in BY_SOCKET
        while True:
            try:
                if may_use_socket:
                    may_use_socket = False
                    with suppress(ConnectionError, HubRefusedError):
                        async with asyncio.timeout(_attempt_s(deadline_s, attempt_s)):
                            connection = await self._pool.of_loop()
                            if connection is not None:
                                answer = await connection.ask(operation, args, hear)
                                self.calls["socket"] += 1
                                return answer
                ref = getattr(self._handle, operation).remote(*args)
                answer = await asyncio.wait_for(_answer(ref), _attempt_s(deadline_s, attempt_s))
            except AWAY as error:
                pause_s = backoff.next_pause_s()
                if time.monotonic() + pause_s >= deadline_s:
                    raise HubUnavailableError(operation, timeout_s, type(error).__name__) from error
                await asyncio.sleep(pause_s)
                if isinstance(error, ActorDiedError):
                    await self._look_up_in_thread(deadline_s)
            else:
                self.calls["actor"] += 1
                if hear is not None:
                    hear(answer)
                return answer

    def _publish_by_socket(self, batch: str, sent: list[wire.WireDraft], deadline_s: float) -> Any:
        """Return the hub's answer; None when there is no socket for this process."""
        connection = self._pool.borrow(_attempt_s(deadline_s, ATTEMPT_TIMEOUT_S))
        if connection is None:
            return None
        try:
            answer = connection.ask("publish", (batch, sent), _attempt_s(deadline_s, ATTEMPT_TIMEOUT_S))
        finally:
            self._pool.give_back(connection)
        self.calls["socket"] += 1
        return answer

    def _find_socket(self, timeout_s: float) -> Found:
        ask = getattr(self._handle, "socket_address", None)
        found: Found = None if ask is None else ray.get(ask.remote(), timeout=timeout_s)
        return found

    async def _afind_socket(self) -> Found:
        ask = getattr(self._handle, "socket_address", None)
        found: Found = None if ask is None else await asyncio.wait_for(_answer(ask.remote()), ATTEMPT_TIMEOUT_S)
        return found

    async def _look_up_in_thread(self, deadline_s: float) -> None:
        # One look-up at a time, shared by all callers of this loop: while the GCS is away
        # each would hold a thread of the pool for a long time.
        if self._looking_up is None or self._looking_up.done():
            self._looking_up = asyncio.create_task(asyncio.to_thread(self._look_up_again), name="hub-look-up")
        await asyncio.wait({self._looking_up}, timeout=max(0.0, deadline_s - time.monotonic()))

    def _look_up_again(self) -> None:
        try:
            self._handle = _look_up()
        except HubNotFoundError:
            logger.debug("the hub is gone and has no successor yet")

    def _next_batch(self) -> str:
        return f"{self._batch_prefix}-{next(self._batches)}"


def _look_up() -> Any:
    try:
        return ray.get_actor(names.HUB, namespace=names.NAMESPACE)
    except ValueError as error:
        raise HubNotFoundError(names.NAMESPACE) from error


async def _answer(ref: Any) -> Any:
    return await ref


def _attempt_s(deadline_s: float, attempt_s: float) -> float:
    return max(0.001, min(attempt_s, deadline_s - time.monotonic()))
