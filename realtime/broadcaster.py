"""Broadcasts from any process: a call that never raises and hardly waits.

The caller's thread encodes and buffers, and sends a message that comes alone; all others
are sent by a thread of this module, in batches, to the hub or outside Ray to the HTTP API.
That thread also counts what became of every message.
Invariant: taken = confirmed + waiting + coalesced + dropped by reason, at every moment.
"""

import asyncio
import contextlib
import logging
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster import metrics
from cluster.clock import Clock, SystemClock
from realtime.batch_sender import BatchSender
from realtime.books import Book, Label, label_of
from realtime.broadcast_calls import BroadcastCalls, Message
from realtime.errors import InvalidChannelError, InvalidMessageError, TransportError
from realtime.failure_log import FailureLog
from realtime.messages import encode
from realtime.publication import Draft, Priority
from realtime.send_buffer import SendBuffer, Waiting
from realtime.settings import BroadcastSettings
from realtime.transport import Transport

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 1.0
CONFIRM_STEP_S = 1.0
BELL_BYTES = 4_096
ALONE_S = 0.002
"""Pause after which a call may send its message itself; of many in a row each would pay for waking the hub."""
DIRECT_MAX_BYTES = 16_384
"""Largest payload that leaves from the caller's thread; with all before it confirmed, the socket has room for it."""
ASYNC_STEP_S = 0.005
INVALID: Label = ("invalid", "invalid")
"""What is counted for a message whose channel or class nobody can tell."""


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
        self._sender = BatchSender(settings, open_transport, self._clock, self)
        self._buffer = SendBuffer(settings)
        # Re-entrant: a signal handler that broadcasts may interrupt a call of the same thread.
        self._lock = threading.RLock()
        self._has_work = threading.Condition(self._lock)
        self._has_room = threading.Condition(self._lock)
        self._is_idle = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._is_thread_away = False  # it has left the lock, and the sender is its own
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._last_call_s = 0.0
        self._poll_s = CONFIRM_STEP_S
        self._is_bell_needed = False  # it waits for the hub, and would not hear of work
        self._is_closing = False
        self._stop = threading.Event()
        self._is_ok = True
        self._flushing = 0  # callers that wait until all is sent: progress keeps no pace then
        self._taken: Counter[Label] = Counter()
        self._confirmed: Counter[Label] = Counter()
        self._coalesced: Counter[Label] = Counter()
        self._dropped: Counter[tuple[str, str, str]] = Counter()  # by kind, class and reason
        self._last_error = ""
        self._failure_log = FailureLog(self._clock)

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
        with self._is_idle:
            self._flushing += 1
            self._wake_thread()
            try:
                while self._buffer or not self._sender.is_idle:
                    left_s = max(0.0, deadline_s - time.monotonic())
                    if not self._is_idle.wait(left_s) and time.monotonic() >= deadline_s:
                        return False
            finally:
                self._flushing -= 1
        return True

    def health(self) -> BroadcastHealth:
        """Return the state of this process's broadcasts; cheap."""
        with self._lock:
            dropped: Counter[str] = Counter()
            for (_, _, reason), count in self._dropped.items():
                dropped[reason] += count
            return BroadcastHealth(
                is_ok=self._is_ok,
                transport=self._sender.transport_name,
                waiting=len(self._buffer) + len(self._sender.messages),
                waiting_bytes=self._buffer.num_bytes,
                taken_total=self._taken.total(),
                confirmed_total=self._confirmed.total(),
                coalesced_total=self._coalesced.total(),
                dropped_by_reason=dict(dropped),
                last_error=self._last_error,
            )

    def book(self) -> Book:
        """Return the account of every message that was handed in; takes as long as what waits is long."""
        with self._lock:
            waiting = Counter((*label_of(one.draft), "waiting") for one in self._buffer)
            waiting.update((*label_of(one.draft), "in flight") for one in self._sender.messages)
            settled: Counter[tuple[str, str, str, str]] = Counter()
            for outcome, counts in (("delivered", self._confirmed), ("coalesced", self._coalesced)):
                settled.update({(*label, outcome, ""): count for label, count in counts.items()})
            settled.update({(kind, cls, "dropped", why): count for (kind, cls, why), count in self._dropped.items()})
            return Book(taken=dict(self._taken), settled=settled, open=waiting)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, for at most ``timeout_s``, then stop; later calls are dropped."""
        self.flush(self._settings.exit_flush_s if timeout_s is None else timeout_s)
        with self._lock:
            self._is_closing = True
            self._sender.gives_up_soon = True
            self._wake_thread()
            self._has_room.notify_all()
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._settings.exit_flush_s)
        self._drop_rest()

    # -- the caller's side -------------------------------------------------------------

    def _broadcast(self, message: Message) -> bool:
        try:
            drafts = self._drafts(message)
            results = [self._take(draft, message.run_id) for draft in drafts]
        except Exception as error:
            # A broadcast must never fail the task that makes it, whatever it was given.
            self._refuse(message, error)
            return False
        self._failure_log.write()
        return bool(results) and all(results)

    async def _abroadcast(self, message: Message) -> bool:
        try:
            drafts = self._drafts(message)
            results = [await self._atake(draft, message.run_id) for draft in drafts]
        except Exception as error:
            # As above; a cancellation is not an Exception and goes through.
            self._refuse(message, error)
            return False
        self._failure_log.write()
        return bool(results) and all(results)

    def _drafts(self, message: Message) -> list[Draft]:
        data = encode(message.message_type, message.data, message.priority, self._clock)
        priority = Priority(message.priority)
        return [
            Draft(channel, data, priority, message.key, message.coalesce_key) for channel in message.name_channels()
        ]

    def _take(self, draft: Draft, run_id: str | None) -> bool:
        with self._lock:
            self._taken[label_of(draft)] += 1
            if self._offer(draft, run_id):
                return True
            # Progress never waits, and nobody waits for a hub that does not answer.
            deadline_s = time.monotonic() + self._settings.block_s
            while self._may_wait(draft) and (left_s := deadline_s - time.monotonic()) > 0:
                self._has_room.wait(left_s)
                if self._offer(draft, run_id):
                    return True
            self._drop(draft, self._full_reason(), run_id)
            return False

    async def _atake(self, draft: Draft, run_id: str | None) -> bool:
        deadline_s = time.monotonic() + self._settings.block_s
        with self._lock:
            self._taken[label_of(draft)] += 1
        while True:
            with self._lock:
                if self._offer(draft, run_id):
                    return True
                if not self._may_wait(draft) or time.monotonic() >= deadline_s:
                    self._drop(draft, self._full_reason(), run_id)
                    return False
            await asyncio.sleep(ASYNC_STEP_S)

    def _offer(self, draft: Draft, run_id: str | None) -> bool:
        if self._is_closing:
            return False
        now_s = self._clock.monotonic_s()
        is_alone, self._last_call_s = now_s - self._last_call_s > ALONE_S, now_s
        offer = self._buffer.offer(draft, now_s, run_id)
        if offer.coalesced:
            self._coalesced[label_of(draft)] += offer.coalesced
        for waiting in offer.displaced:
            self._drop(waiting.draft, "displaced", waiting.run_id)
        if offer.is_accepted:
            if self._thread is None:
                self._start()
            if not (is_alone and self._send_at_once(draft)):
                self._wake_thread()
        return offer.is_accepted

    def _send_at_once(self, draft: Draft) -> bool:
        # A message that finds the way clear leaves from the caller's own thread: handing it to
        # another costs more than sending it. Nothing here can wait.
        if (
            self._is_thread_away
            or len(self._buffer) > 1
            or len(draft.data) > DIRECT_MAX_BYTES
            or not self._sender.is_smooth
            or self._wait_s() > 0
        ):
            return False
        self._is_thread_away = True  # a signal handler that broadcasts now must not come in between
        try:
            self._take_batch()
            self._sender.send()
        finally:
            self._is_thread_away = False
        self._has_work.notify()  # to await the confirmation, or to try again
        return True

    def _take_batch(self) -> None:
        self._sender.add(self._next_batch())
        self._has_room.notify_all()

    def _next_batch(self) -> list[Waiting]:
        settings, now_s = self._settings, self._clock.monotonic_s()
        return self._buffer.take(settings.batch_size, settings.batch_max_bytes, now_s, at_once=self._flushing > 0)

    def _wake_thread(self) -> None:
        self._has_work.notify()
        if self._is_bell_needed and self._bell is not None:
            self._is_bell_needed = False
            with contextlib.suppress(OSError):  # it has ended meanwhile
                self._bell[1].send(b"!")

    def _may_wait(self, draft: Draft) -> bool:
        return self._is_ok and not self._is_closing and draft.priority is not Priority.PROGRESS

    def _full_reason(self) -> str:
        return "closed" if self._is_closing else "full"

    def _refuse(self, message: Message, error: Exception) -> None:
        known = isinstance(error, InvalidChannelError | InvalidMessageError)
        reason = "invalid" if known else "internal"
        with self._lock:
            self._taken[INVALID] += 1
            self._dropped[(*INVALID, reason)] += 1
            self._last_error = str(error)
        metrics.websocket_broadcast_failure.labels(kind="invalid", reason=reason).inc()
        self._failure_log.add("invalid", reason, message.run_id, str(error))
        self._failure_log.write()

    # -- the sending thread ------------------------------------------------------------

    def _start(self) -> None:
        self._bell = socket.socketpair()
        self._bell[1].setblocking(False)
        self._thread = threading.Thread(target=self._run, name="broadcaster", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._wait_for_work():
            pause_s = 0.0
            try:
                pause_s = self._work()
            except Exception:
                # The thread must outlive a bug: without it every later broadcast is lost.
                logger.exception("broadcast batch failed unexpectedly")
                self._sender.drop_all("internal")
                self._sender.close()
            with self._lock:
                self._is_thread_away = False
                if not self._buffer and self._sender.is_idle:
                    self._is_idle.notify_all()
            self._failure_log.write()
            if pause_s:
                self._stop.wait(pause_s)
        self._sender.close()
        if self._bell is not None:
            for end in self._bell:
                end.close()

    def _wait_for_work(self) -> bool:
        with self._lock:
            while self._sender.is_idle and not self._is_closing and (wait_s := self._wait_s()) > 0:
                self._has_work.wait(wait_s)
            if self._is_closing and self._sender.is_idle:
                return False
            self._is_thread_away = True
            if self._wait_s() <= 0 and self._sender.has_room and not self._is_closing:
                self._take_batch()
            # Progress that waits for its turn may be due before the next confirmation.
            self._poll_s = min(CONFIRM_STEP_S, self._wait_s()) if self._sender.has_room else CONFIRM_STEP_S
            self._is_bell_needed = self._sender.has_room and self._sender.awaited is not None
            return True

    def _work(self) -> float:
        """Send what can be sent, or wait for a confirmation and for further work, whichever comes first."""
        awaited = self._sender.awaited
        if awaited is None:
            return self._sender.send()
        assert self._bell is not None
        bell = self._bell[0].fileno()
        # Not select.select: a gateway has more open files than that can name.
        poll = select.poll()
        for number in (awaited, bell) if self._sender.has_room else (awaited,):
            poll.register(number, select.POLLIN)
        readable = {number for number, _ in poll.poll(1000 * self._poll_s)}
        if bell in readable:
            self._bell[0].recv(BELL_BYTES)
        return self._sender.confirm() if awaited in readable else self._sender.check()

    def _wait_s(self) -> float:
        wait_s = self._buffer.wait_s(self._clock.monotonic_s())
        if wait_s is None:
            return IDLE_WAIT_S
        return 0.0 if self._flushing else wait_s

    # -- what the sender tells ---------------------------------------------------------

    def on_failure(self, error: TransportError) -> None:
        """See ``batch_sender.Outcome``."""
        with self._lock:
            self._last_error = str(error)
            self._is_ok = False
            # Those who wait for room would now wait in vain.
            self._has_room.notify_all()

    def on_dropped(self, messages: list[Waiting], reason: str, settle: Callable[[], object]) -> None:
        """See ``batch_sender.Outcome``."""
        with self._lock:
            self._drop_waiting(messages, reason)
            settle()

    def on_confirmed(self, messages: list[Waiting], settle: Callable[[], object]) -> None:
        """See ``batch_sender.Outcome``."""
        now_s = self._clock.monotonic_s()
        # Counted by label first: looking a label up costs more than all else here, and this
        # thread shares one interpreter with the callers.
        called_at_s: dict[str, list[float]] = {}
        classes: Counter[tuple[str, str]] = Counter()
        for waiting in messages:
            label = label_of(waiting.draft)
            called_at_s.setdefault(label[0], []).append(waiting.called_at_s)
            classes[label] += 1
        for (kind_name, priority), count in classes.items():
            metrics.websocket_broadcast_success.labels(kind=kind_name, priority=priority).inc(count)
        for kind_name, times_s in called_at_s.items():
            duration = metrics.websocket_broadcast_duration.labels(kind=kind_name)
            for time_s in times_s:
                duration.observe(now_s - time_s)
        with self._lock:
            self._is_ok = True
            self._confirmed.update(classes)
            settle()

    def _drop_rest(self) -> None:
        with self._lock:
            self._flushing += 1
            while rest := self._next_batch():
                self._drop_waiting(rest, "closed")

    def _drop_waiting(self, batch: list[Waiting], reason: str) -> None:
        for waiting in batch:
            self._drop(waiting.draft, reason, waiting.run_id)

    def _drop(self, draft: Draft, reason: str, run_id: str | None) -> None:
        # Runs under the lock; the log lines are written after it is released.
        kind, priority = label_of(draft)
        self._dropped[kind, priority, reason] += 1
        metrics.websocket_broadcast_failure.labels(kind=kind, reason=reason).inc()
        self._failure_log.add(kind, reason, run_id, self._last_error)
