"""Batches on their way to the hub: several at a time, in order, each published once.

Used by one thread at a time; starts none and buffers nothing (``broadcaster.py`` does).
Invariants: batches leave in the order in which they were given, and so are confirmed; when
one fails, it and all that left after it are sent again in that order, each under its name.
"""

import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cluster.clock import Clock
from realtime.backoff import Backoff
from realtime.errors import TransportError
from realtime.send_buffer import Waiting
from realtime.settings import BroadcastSettings
from realtime.transport import Transport

WINDOW = 4
"""Batches under way. One would make each message wait for the journal's disk to take the one
before; many would make each batch small when it is busy."""


class Outcome(Protocol):
    """Who hears what became of messages.

    ``settle`` ends their being under way; called in the step that counts them, it makes
    whoever looks at both meet each message once.
    """

    def on_confirmed(self, messages: list[Waiting], settle: Callable[[], object]) -> None:
        """The hub has them."""
        ...

    def on_dropped(self, messages: list[Waiting], reason: str, settle: Callable[[], object]) -> None:
        """They will not be sent again."""
        ...

    def on_failure(self, error: TransportError) -> None:
        """The hub could not be reached; what is under way is tried again."""
        ...


class BatchSender:
    """The part of a broadcaster that deals with a transport."""

    def __init__(
        self, settings: BroadcastSettings, open_transport: Callable[[], Transport], clock: Clock, outcome: Outcome
    ) -> None:
        self._settings = settings
        self._open_transport = open_transport
        self._clock = clock
        self._outcome = outcome
        self._transport: Transport | None = None
        self._under_way: deque[_Batch] = deque()
        self._backoff = Backoff()
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()
        self.gives_up_soon = False
        """True: a failure is final, as there is no time left to try again."""

    @property
    def transport_name(self) -> str:
        return self._transport.name if self._transport is not None else "none"

    @property
    def messages(self) -> list[Waiting]:
        """Messages under way, in their order."""
        return [waiting for batch in tuple(self._under_way) for waiting in batch.messages]  # other threads ask, too

    @property
    def is_idle(self) -> bool:
        """True when nothing is under way."""
        return not self._under_way

    @property
    def has_room(self) -> bool:
        """True when a further batch may leave."""
        return len(self._under_way) < WINDOW

    @property
    def is_smooth(self) -> bool:
        """True when the next small batch leaves without waiting for anything: all before it have arrived."""
        return not self._under_way and self._transport is not None and self._transport.never_blocks_when_idle

    @property
    def is_smoothly_awaited(self) -> bool:
        """True when all has left, on a connection that tells when it is confirmed."""
        return self._transport is not None and all(batch.is_sent for batch in self._under_way)

    def add(self, messages: list[Waiting]) -> None:
        """Take a batch; it leaves by ``send``."""
        self._under_way.append(
            _Batch(self._next_name(), messages, self._clock.monotonic_s() + self._settings.retry_for_s)
        )

    @property
    def awaited(self) -> int | None:
        """What becomes readable when a confirmation comes; None while something has to be sent first."""
        if self._transport is None or not all(batch.is_sent for batch in self._under_way):
            return None
        return self._transport.fileno()

    def send(self) -> float:
        """Send what has not left yet; returns how long to wait before the next try, 0 if all has left."""
        try:
            for batch in list(self._under_way):
                if not batch.is_sent:
                    self._send(batch)
        except TransportError as error:
            return self._face(error)
        return 0.0

    def confirm(self) -> float:
        """Read the confirmation that has come; returns as ``send`` does."""
        assert self._transport is not None
        try:
            self._on_confirmed(self._transport.confirm(self._settings.confirm_timeout_s))
        except TransportError as error:
            return self._face(error)
        return 0.0

    def check(self) -> float:
        """Take note that no confirmation has come yet; returns as ``send`` does."""
        assert self._transport is not None
        overdue_s = time.monotonic() - self._settings.confirm_timeout_s
        if self._under_way and self._under_way[0].sent_at_s < overdue_s:
            return self._face(TransportError(self._transport.name, "unreachable", False))
        return 0.0

    def drop_all(self, reason: str) -> None:
        """Give up what is under way."""
        while self._under_way:
            self._outcome.on_dropped(self._under_way[0].messages, reason, self._under_way.popleft)

    def close(self) -> None:
        """Let the transport go; the next batch opens another."""
        if self._transport is not None:
            self._transport.close()
        self._transport = None
        for batch in self._under_way:
            batch.is_sent = False

    def _send(self, batch: "_Batch") -> None:
        if self._transport is None:
            self._transport = self._open_transport()
        drafts = [waiting.draft for waiting in batch.messages]
        batch.sent_at_s = time.monotonic()
        confirmed = self._transport.send(batch.name, drafts, self._settings.confirm_timeout_s)
        batch.is_sent = True
        self._on_confirmed(confirmed)

    def _on_confirmed(self, count: int) -> None:
        for _ in range(count):
            self._outcome.on_confirmed(self._under_way[0].messages, self._under_way.popleft)
            self._backoff = Backoff()

    def _face(self, error: TransportError) -> float:
        if error.is_final:
            self._drop_refused(error)
            return 0.0
        self._outcome.on_failure(error)
        now_s = self._clock.monotonic_s()
        while self._under_way and (self.gives_up_soon or now_s >= self._under_way[0].give_up_s):
            self._outcome.on_dropped(self._under_way[0].messages, error.reason, self._under_way.popleft)
        # Opened anew for each try: the hub may have a successor, Ray may have been
        # shut down and initialised again, the floor may listen on another port.
        self.close()
        return self._backoff.next_pause_s()

    def _drop_refused(self, error: TransportError) -> None:
        """Drop the one message that the hub will not have; the others of its batch go on under a new name."""
        batch = next(batch for batch in self._under_way if not batch.is_sent)
        at = error.confirmed
        self._outcome.on_confirmed(batch.messages[:at], partial(batch.shorten, at))
        self._outcome.on_dropped(batch.messages[:1], error.reason, partial(batch.shorten, 1))
        batch.name = self._next_name()
        if not batch.messages:
            self._under_way.remove(batch)

    def _next_name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


class _Batch:
    """Messages that travel together."""

    def __init__(self, name: str, messages: list[Waiting], give_up_s: float) -> None:
        self.name = name
        self.messages = messages
        self.give_up_s = give_up_s
        self.sent_at_s = 0.0
        self.is_sent = False

    def shorten(self, count: int) -> None:
        """Let the first ``count`` messages go."""
        self.messages = self.messages[count:]
