"""What goes to one connection next: replies first, then channels by urgency.

Holds offsets into the replica's rings, not publications, and at most a bounded number of
reply bytes. No I/O, no clock. Invariant: within a channel publications leave in offset
order, each once; between channels the more urgent goes first; nothing leaves without
credit.
"""

from collections import deque
from typing import Any

from serve_apps.credit import Credit
from serve_apps.errors import OutboxError
from serve_apps.frames import PING, unwrap
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.ledger import CLIENT, Ledger, Receipts
from serve_apps.outgoing import Frame
from serve_apps.ring import ChannelRing, Chunk

PING_FRAME = Frame(PING)
"""A ping is a frame of its own: the plainest client compares a whole frame with ``{}``."""


class _Cursor:
    __slots__ = ("after", "passed", "ring", "unwritten")

    def __init__(self, ring: ChannelRing[Any], after: int, owed: int) -> None:
        self.ring = ring
        self.after = after
        self.passed = ring.total - owed
        """The part of the ring's total that this cursor has passed."""
        self.unwritten = self.passed
        """The part of ``passed`` that was not written: what came before, and what was coalesced."""


class Outbox:
    """Everything one connection has still to be sent."""

    __slots__ = (
        "_control",
        "_control_bytes",
        "_control_tally",
        "_credit",
        "_cursors",
        "_ledger",
        "_pending",
        "_ping_follows",
        "_receipts",
        "_settings",
        "_unidirectional",
        "_written",
    )

    def __init__(
        self,
        settings: GatewaySettings,
        credit: Credit,
        ledger: Ledger | None = None,
        *,
        unidirectional: bool = False,
    ) -> None:
        self._settings = settings
        self._credit = credit
        self._unidirectional = unidirectional
        self._control: deque[tuple[bytes, int]] = deque()
        self._control_bytes = 0
        self._ledger = ledger or Ledger()
        self._receipts = Receipts(self._ledger)
        self._control_tally = 0  # publications in queued replies
        self._written = 0  # in replies, and on channels that are not followed any more
        self._cursors: dict[str, _Cursor] = {}
        self._pending: dict[str, int] = {}
        self._ping_follows = False

    def add(self, line: bytes, recovered: int = 0) -> None:
        """Queue a reply, a push that is no publication, or a ping.

        Args:
            line: as the two-way protocol has it.
            recovered: tally of the publications that it brings back.

        Raises:
            OutboxError: the client reads no replies.
        """
        if self._unidirectional:
            line = unwrap(line)
        self._control.append((line, recovered))
        self._control_bytes += len(line)
        self._credit.memory.add(len(line))
        self._control_tally += recovered
        self._ledger.owed += recovered
        # One reply alone may be longer than the bound (a recovery): it is what piles up behind it that tells.
        if len(self._control) > 1 and self._control_bytes > self._settings.control_bytes:
            raise OutboxError("replies")

    def offer(self, line: bytes) -> bool:
        """Queue a push that may be left out; False when more than half of the room for replies is taken."""
        if self._control_bytes * 2 > self._settings.control_bytes:
            return False
        self.add(line)
        return True

    def follow(self, ring: ChannelRing[Any], after: int) -> None:
        """Send the ring's publications after offset ``after``, now and as they come."""
        owed = ring.tally_after(after) if ring.has_after(after) else 0
        self._ledger.owed += owed
        self._cursors[ring.channel] = _Cursor(ring, after, owed)
        if owed:
            self.mark(ring.channel, 0)  # what came while it was attached may be urgent

    def leave(self, channel: str, reason: str) -> None:
        """Send nothing more of a channel; what waited of it is dropped for ``reason``."""
        cursor = self._cursors.pop(channel, None)
        self._pending.pop(channel, None)
        if cursor is not None:
            self._written += cursor.passed - cursor.unwritten
            self._ledger.drop(cursor.ring.total - cursor.passed, reason)

    def end(self, reason: str = CLIENT) -> None:
        """Give up everything that waits and everything that was not acknowledged."""
        for channel in tuple(self._cursors):
            self.leave(channel, reason)
        self._ledger.drop(self._control_tally, reason)
        self._credit.memory.add(-self._control_bytes)
        self._credit.end()
        self._control_tally = self._control_bytes = 0
        self._control.clear()
        self._receipts.end(self._all_written())

    def on_pong(self) -> None:
        """Book what the client has acknowledged; called for each pong, as ``Credit.on_pong`` is."""
        self._receipts.on_pong()

    @property
    def held_bytes(self) -> int:
        """Bytes held for this client: queued replies, and what it has not acknowledged."""
        return self._control_bytes + self._credit.in_flight_bytes

    @property
    def waiting(self) -> int:
        """Tally of what is to be written."""
        return self._control_tally + sum(cursor.ring.total - cursor.passed for cursor in self._cursors.values())

    @property
    def in_flight(self) -> int:
        """Tally of what is written and not acknowledged."""
        return self._receipts.in_flight(self._all_written())

    def _all_written(self) -> int:
        return self._written + sum(cursor.passed - cursor.unwritten for cursor in self._cursors.values())

    def _on_ping(self, now_s: float) -> None:
        self._credit.on_ping(now_s)
        if self._credit.acknowledges:
            self._receipts.on_ping(self._all_written())

    def mark(self, channel: str, rank: int) -> None:
        """Note that a followed channel has something new, and how urgent it is."""
        known = self._pending.get(channel)
        if known is None or rank < known:
            self._pending[channel] = rank

    @property
    def has_work(self) -> bool:
        """True when a frame could be made now."""
        return self._ping_follows or (self._credit.is_open and bool(self._control or self._pending))

    def next_frame(self, now_s: float) -> Frame | None:
        """Return the next frame; None when there is nothing to send or no credit.

        Raises:
            OutboxError: a channel's ring no longer has what this connection needs next.
        """
        if self._ping_follows:
            # Booked with the frame before it; needs no credit, because its pong is what brings credit back.
            self._ping_follows = False
            return PING_FRAME
        if not self._credit.is_open:
            return None
        if not self._control and len(self._pending) == 1:
            # Nearly always: news of one channel. It is the ring's own frame: nothing is copied per connection.
            chunk = self._next_chunk(room=None)
            return None if chunk is None else self._sent(chunk.frame, now_s)
        pieces: list[Frame] = []
        num_bytes = num_lines = 0
        while self._control and num_lines < self._settings.frame_lines and num_bytes < self._settings.frame_bytes:
            is_ping = self._control[0][0] == PING
            if is_ping and pieces:
                break
            line, recovered = self._control.popleft()
            self._control_bytes -= len(line)
            self._credit.memory.add(-len(line))
            if is_ping:
                self._on_ping(now_s)
                return PING_FRAME
            self._control_tally -= recovered
            self._written += recovered
            pieces.append(Frame(line))
            num_bytes += len(line) + 1
            num_lines += 1
        while self._pending and num_lines < self._settings.frame_lines and num_bytes < self._settings.frame_bytes:
            chunk = self._next_chunk(room=None if num_lines == 0 else self._settings.frame_bytes - num_bytes)
            if chunk is None:
                break
            pieces.append(chunk.frame)
            num_bytes += chunk.frame.num_bytes + 1
            num_lines += chunk.num_lines
        return self._sent(Frame.joined(pieces), now_s) if pieces else None

    def _sent(self, frame: Frame, now_s: float) -> Frame:
        self._credit.on_sent(frame.num_bytes)
        if self._credit.wants_ping:
            self._on_ping(now_s)
            self._ping_follows = True
        return frame

    def _next_chunk(self, room: int | None) -> Chunk | None:
        while self._pending:
            channel = min(self._pending, key=self._pending.__getitem__)
            cursor = self._cursors[channel]
            if not cursor.ring.has_after(cursor.after):  # marked by what its recovery had brought already
                del self._pending[channel]
                continue
            chunk = cursor.ring.chunk(cursor.after, unidirectional=self._unidirectional)
            if chunk is None:
                raise OutboxError("channel")
            if room is not None and chunk.frame.num_bytes > room:
                return None
            cursor.after = chunk.last_offset
            cursor.passed += chunk.tally
            if chunk.coalesced:
                cursor.unwritten += chunk.coalesced
                self._ledger.coalesced += chunk.coalesced
            rank = self._pending.pop(channel)
            if cursor.ring.has_after(cursor.after):
                self._pending[channel] = rank  # behind its equals: channels of one class take turns
            return chunk
        return None
