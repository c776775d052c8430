"""The thread that sends what a process has to broadcast, and what callers share with it.

Knows no message and no audience (``broadcaster.py``). A message that comes alone leaves from
its caller's own thread: handing it to another costs more than sending it. Invariants: the
sender belongs to whoever holds the lock, or to the thread while it is away from it; and what
is offered is sent, confirmed or dropped with a reason, whatever fails.
"""

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Callable

from cluster.clock import Clock
from realtime.batch_sender import BatchSender
from realtime.broadcast_tally import BroadcastTally
from realtime.errors import TransportError
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


class SendingThread:
    """Buffer, sender and thread of one process, behind one lock. Starts with the first message."""

    def __init__(
        self,
        settings: BroadcastSettings,
        open_transport: Callable[[], Transport],
        clock: Clock,
        tally: BroadcastTally,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._tally = tally
        self.sender = BatchSender(settings, open_transport, clock, self)
        self.buffer = SendBuffer(settings)
        # Re-entrant: a signal handler that broadcasts may interrupt a call of the same thread.
        self.lock = threading.RLock()
        self.has_room = threading.Condition(self.lock)
        """Notified when something left the buffer, and when waiting for that became pointless."""
        self.is_idle = threading.Condition(self.lock)
        """Notified when nothing waits and nothing is under way."""
        self.is_ok = True
        """False after a failed batch, until one is confirmed again."""
        self.is_closing = False
        self.flushing = 0
        """Callers that wait until all is sent: progress keeps no pace then."""
        self._has_work = threading.Condition(self.lock)
        self._thread: threading.Thread | None = None
        self._is_away = False  # it has left the lock, and the sender is its own
        self._is_bell_needed = False  # it watches the socket, and would not hear of work
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._last_offer_s = 0.0
        self._poll_s = CONFIRM_STEP_S
        self._stop = threading.Event()

    # -- what callers do, holding the lock ---------------------------------------------

    @property
    def has_rest(self) -> bool:
        """True while something waits or is under way."""
        return bool(self.buffer) or not self.sender.is_idle

    def offer(self, draft: Draft, run_id: str | None) -> bool:
        """Take a message if there is room for it; what it displaces or replaces is counted."""
        if self.is_closing:
            return False
        now_s = self._clock.monotonic_s()
        is_alone, self._last_offer_s = now_s - self._last_offer_s > ALONE_S, now_s
        if is_alone and self._send_at_once(draft, now_s, run_id):
            return True
        offer = self.buffer.offer(draft, now_s, run_id)
        if offer.coalesced:
            self._tally.coalesce(draft, offer.coalesced)
        self.drop(offer.displaced, "displaced")
        if offer.is_accepted:
            if self._thread is None:
                self._start()
            self.wake()
        return offer.is_accepted

    def wake(self) -> None:
        """Let the thread look for work."""
        self._has_work.notify()
        if self._is_bell_needed and self._bell is not None:
            self._is_bell_needed = False
            with contextlib.suppress(OSError):  # it has ended meanwhile
                self._bell[1].send(b"!")

    def drop(self, messages: "tuple[Waiting, ...] | list[Waiting]", reason: str) -> None:
        """Give messages up."""
        for waiting in messages:
            self._tally.drop(waiting.draft, reason, waiting.run_id)

    def _send_at_once(self, draft: Draft, now_s: float, run_id: str | None) -> bool:
        # Nothing here can wait: all that was sent before has been read and answered.
        if (
            self._is_away
            or self.buffer
            or not self.sender.is_smooth
            or len(draft.data) > DIRECT_MAX_BYTES
            or draft.priority is Priority.PROGRESS  # keeps a pace
            or draft.coalesce_key is not None
        ):
            return False
        self._is_away = True  # a signal handler that broadcasts now must not come in between
        try:
            self.sender.add([Waiting(draft, 0, now_s, run_id)])
            self.sender.send()
        finally:
            self._is_away = False
        if not (self._is_bell_needed and self.sender.is_smoothly_awaited):
            self.wake()  # to try again, or to await the confirmation; else it watches the socket already
        return True

    # -- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Stop, without the lock; what is left is dropped."""
        with self.lock:
            self.is_closing = True
            self.sender.gives_up_soon = True
            self.wake()
            self.has_room.notify_all()
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self._settings.exit_flush_s)
        with self.lock:
            self.flushing += 1
            while rest := self._next_batch():
                self.drop(rest, "closed")

    # -- the thread --------------------------------------------------------------------

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
                self.sender.drop_all("internal")
                self.sender.close()
            with self.lock:
                self._is_away = False
                if not self.has_rest:
                    self.is_idle.notify_all()
            self._tally.write_log()
            if pause_s:
                self._stop.wait(pause_s)
        self.sender.close()
        if self._bell is not None:
            for end in self._bell:
                end.close()

    def _wait_for_work(self) -> bool:
        with self.lock:
            while self.sender.is_idle and not self.is_closing and (wait_s := self._wait_s()) > 0:
                self._idle(wait_s)
            if self.is_closing and self.sender.is_idle:
                return False
            self._is_away = True
            if self._wait_s() <= 0 and self.sender.has_room and not self.is_closing:
                self.sender.add(self._next_batch())
                self.has_room.notify_all()
            # Progress that waits for its turn may be due before the next confirmation.
            self._poll_s = min(CONFIRM_STEP_S, self._wait_s()) if self.sender.has_room else CONFIRM_STEP_S
            self._is_bell_needed = self.sender.has_room and self.sender.awaited is not None
            return True

    def _idle(self, wait_s: float) -> None:
        """Wait until there may be work; holds the lock when it comes and when it goes, not between."""
        if not self.sender.is_smooth:
            self._has_work.wait(wait_s)
            return
        # Callers send on this connection themselves: what wakes the thread is the hub's answer.
        watched = self.sender.awaited
        assert watched is not None
        self._is_bell_needed = True
        self.lock.release()
        try:
            readable = self._watch([watched], wait_s)
        finally:
            self.lock.acquire()
        self._is_bell_needed = False
        if watched in readable and self.sender.is_idle:
            self.sender.close()  # an answer to nothing: the hub has ended

    def _work(self) -> float:
        """Send what can be sent, or wait for a confirmation and for further work, whichever comes first."""
        awaited = self.sender.awaited
        if awaited is None:
            return self.sender.send()
        readable = self._watch([awaited], self._poll_s, has_bell=self.sender.has_room)
        return self.sender.confirm() if awaited in readable else self.sender.check()

    def _watch(self, numbers: list[int], timeout_s: float, *, has_bell: bool = True) -> set[int]:
        assert self._bell is not None
        bell = self._bell[0].fileno()
        # Not select.select: a gateway has more open files than that can name.
        poll = select.poll()
        for number in [*numbers, bell] if has_bell else numbers:
            poll.register(number, select.POLLIN)
        readable = {number for number, _ in poll.poll(1000 * timeout_s)}
        if bell in readable:
            self._bell[0].recv(BELL_BYTES)
        return readable

    def _next_batch(self) -> list[Waiting]:
        settings, now_s = self._settings, self._clock.monotonic_s()
        return self.buffer.take(settings.batch_size, settings.batch_max_bytes, now_s, at_once=self.flushing > 0)

    def _wait_s(self) -> float:
        wait_s = self.buffer.wait_s(self._clock.monotonic_s())
        if wait_s is None:
            return IDLE_WAIT_S
        return 0.0 if self.flushing else wait_s

    # -- what the sender tells ---------------------------------------------------------

    def on_failure(self, error: TransportError) -> None:
        """See ``batch_sender.Outcome``."""
        with self.lock:
            self._tally.last_error = str(error)
            self.is_ok = False
            # Those who wait for room would now wait in vain.
            self.has_room.notify_all()

    def on_dropped(self, messages: list[Waiting], reason: str, settle: Callable[[], object]) -> None:
        """See ``batch_sender.Outcome``."""
        with self.lock:
            self.drop(messages, reason)
            settle()

    def on_confirmed(self, messages: list[Waiting], settle: Callable[[], object]) -> None:
        """See ``batch_sender.Outcome``."""
        classes = self._tally.observe(messages)
        with self.lock:
            self.is_ok = True
            self._tally.confirm(classes)
            settle()
