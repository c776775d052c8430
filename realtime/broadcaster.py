"""Broadcasts from any process: a call that never raises and hardly waits.

Encodes, waits for room as long as a call may, and says what it knows; what is taken leaves
by ``sending_thread.py``, to the hub or outside Ray to the HTTP API.
Invariant: taken = confirmed + waiting + coalesced + dropped by reason, at every moment.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.clock import Clock, SystemClock
from realtime.books import Book
from realtime.broadcast_calls import BroadcastCalls, Message
from realtime.broadcast_tally import BroadcastTally
from realtime.errors import InvalidChannelError, InvalidMessageError
from realtime.messages import encode
from realtime.publication import PRIORITIES, Draft, Priority
from realtime.sending_thread import SendingThread
from realtime.settings import BroadcastSettings
from realtime.transport import Transport

ASYNC_STEP_S = 0.005


@dataclass(frozen=True, slots=True)
class BroadcastHealth:
    """How the broadcasts of one process are doing."""

    is_ok: bool
    """False after a failed batch, until one is confirmed again."""
    transport: str
    """``socket`` or ``actor`` of the hub, ``http``, or ``none`` before the first batch and after a failed one."""
    waiting: int
    waiting_bytes: int
    taken_total: int
    """Messages that calls handed in, one for each channel: what follows, and what waits."""
    confirmed_total: int
    coalesced_total: int
    """Values of progress bars that a newer one replaced before they were sent."""
    dropped_by_reason: dict[str, int]
    last_error: str


class Broadcaster(BroadcastCalls):
    """Sends messages to groups, users, tenants and the NOC. Safe for threads.

    One per process is enough: see ``process_broadcaster.py``.
    """

    def __init__(
        self,
        settings: BroadcastSettings,
        open_transport: Callable[[], Transport],
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._tally = BroadcastTally(self._clock)
        self._way = SendingThread(settings, open_transport, self._clock, self._tally)

    def publish(
        self,
        channel: str,
        message_type: str,
        data: Mapping[str, Any],
        priority: str = Priority.NORMAL,
        key: str | None = None,
        coalesce_key: str | None = None,
    ) -> bool:
        """Send a message to one channel; False if it was dropped at once.

        Args:
            channel: see ``realtime.channels``.
            message_type: a ``MessageType`` or a name of the caller's own.
            data: what JSON can say.
            priority: decides what is dropped first when the buffer is full.
            key: idempotency key; the hub publishes a channel and key once.
            coalesce_key: latest-only; a newer message of the same channel and key replaces this one.
        """
        return self._broadcast(Message(lambda: [channel], message_type, data, priority, key, coalesce_key))

    async def apublish(
        self,
        channel: str,
        message_type: str,
        data: Mapping[str, Any],
        priority: str = Priority.NORMAL,
        key: str | None = None,
        coalesce_key: str | None = None,
    ) -> bool:
        """``publish`` for event loops."""
        return await self._abroadcast(Message(lambda: [channel], message_type, data, priority, key, coalesce_key))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far was confirmed or dropped; False if time ran out.

        For the end of a run: a worker that Ray kills has no other moment to send its last
        messages.
        """
        deadline_s = time.monotonic() + timeout_s
        way = self._way
        with way.lock:
            way.flushing += 1
            way.wake()
            try:
                while way.has_rest:
                    left_s = max(0.0, deadline_s - time.monotonic())
                    if not way.is_idle.wait(left_s) and time.monotonic() >= deadline_s:
                        return False
            finally:
                way.flushing -= 1
        return True

    def health(self) -> BroadcastHealth:
        """Return the state of this process's broadcasts; cheap."""
        way, tally = self._way, self._tally
        with way.lock:
            return BroadcastHealth(
                is_ok=way.is_ok,
                transport=way.sender.transport_name,
                waiting=len(way.buffer) + len(way.sender.messages),
                waiting_bytes=way.buffer.num_bytes,
                taken_total=tally.taken_total,
                confirmed_total=tally.confirmed_total,
                coalesced_total=tally.coalesced_total,
                dropped_by_reason=tally.dropped_by_reason,
                last_error=tally.last_error,
            )

    def book(self) -> Book:
        """Return the account of every message that was handed in; takes as long as what waits is long."""
        with self._way.lock:
            return self._tally.book(self._way.buffer, self._way.sender.messages)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, for at most ``timeout_s``, then stop; later calls are dropped."""
        self.flush(self._settings.exit_flush_s if timeout_s is None else timeout_s)
        self._way.close()

    def _broadcast(self, message: Message) -> bool:
        try:
            drafts = self._drafts(message)
            results = [self._take(draft, message.run_id) for draft in drafts]
        except Exception as error:
            # A broadcast must never fail the task that makes it, whatever it was given.
            self._refuse(message, error)
            return False
        self._tally.write_log()
        return bool(results) and all(results)

    async def _abroadcast(self, message: Message) -> bool:
        try:
            drafts = self._drafts(message)
            results = [await self._atake(draft, message.run_id) for draft in drafts]
        except Exception as error:
            # As above; a cancellation is not an Exception and goes through.
            self._refuse(message, error)
            return False
        self._tally.write_log()
        return bool(results) and all(results)

    def _drafts(self, message: Message) -> list[Draft]:
        data = encode(message.message_type, message.data, message.priority, self._clock)
        priority = PRIORITIES[message.priority]
        return [
            Draft(channel, data, priority, message.key, message.coalesce_key) for channel in message.name_channels()
        ]

    def _take(self, draft: Draft, run_id: str | None) -> bool:
        way = self._way
        with way.lock:
            self._tally.take(draft)
            if way.offer(draft, run_id):
                return True
            # Progress never waits, and nobody waits for a hub that does not answer.
            deadline_s = time.monotonic() + self._settings.block_s
            while self._may_wait(draft) and (left_s := deadline_s - time.monotonic()) > 0:
                way.has_room.wait(left_s)
                if way.offer(draft, run_id):
                    return True
            self._tally.drop(draft, self._full_reason(), run_id)
            return False

    async def _atake(self, draft: Draft, run_id: str | None) -> bool:
        way, deadline_s = self._way, time.monotonic() + self._settings.block_s
        with way.lock:
            self._tally.take(draft)
        while True:
            with way.lock:
                if way.offer(draft, run_id):
                    return True
                if not self._may_wait(draft) or time.monotonic() >= deadline_s:
                    self._tally.drop(draft, self._full_reason(), run_id)
                    return False
            await asyncio.sleep(ASYNC_STEP_S)

    def _may_wait(self, draft: Draft) -> bool:
        return self._way.is_ok and not self._way.is_closing and draft.priority is not Priority.PROGRESS

    def _full_reason(self) -> str:
        return "closed" if self._way.is_closing else "full"

    def _refuse(self, message: Message, error: Exception) -> None:
        known = isinstance(error, InvalidChannelError | InvalidMessageError)
        with self._way.lock:
            self._tally.refuse("invalid" if known else "internal", message.run_id, str(error))
        self._tally.write_log()
