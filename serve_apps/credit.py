"""How much a client may still be sent: credit that its pongs return.

Behind Ray Serve ``send`` never blocks, so nothing else says that a client has stopped
reading. Both SDKs answer each ``{}`` with one ``{}`` after they handled what came before
it. No I/O, no clock. Invariant: bytes handed over and not acknowledged never exceed the
limit by more than the one frame that reached it.
"""

from collections import deque

from serve_apps.codes import CloseCode
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.memory import Memory


class CreditWindow:
    """Bytes in flight to one client, and the pings that will acknowledge them."""

    acknowledges = True

    __slots__ = ("_acked", "_marked", "_pings", "_settings", "memory", "sent_bytes")

    def __init__(self, settings: GatewaySettings, memory: Memory | None = None) -> None:
        self._settings = settings
        self.memory = memory or Memory(settings)
        self.sent_bytes = 0
        self._marked = 0
        self._acked = 0
        self._pings: deque[tuple[int, float]] = deque()

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent that no pong has covered yet."""
        return self.sent_bytes - self._acked

    @property
    def is_open(self) -> bool:
        """True while another frame may be sent."""
        return self.sent_bytes - self._acked < self.memory.window_bytes

    @property
    def wants_ping(self) -> bool:
        """True when so much was sent since the last ping that one belongs into the stream."""
        return self.sent_bytes - self._marked >= self._settings.credit_ping_bytes

    def on_sent(self, num_bytes: int) -> None:
        """Count bytes handed to the socket."""
        self.sent_bytes += num_bytes
        self.memory.add(num_bytes)

    def on_ping(self, now_s: float) -> None:
        """Remember a ping: its pong will acknowledge everything sent so far."""
        self._marked = self.sent_bytes
        self._pings.append((self.sent_bytes, now_s))

    def on_pong(self, now_s: float) -> float | None:
        """Return the round trip in seconds; None when no ping was outstanding."""
        if not self._pings:
            return None
        before = self._acked
        self._acked, sent_at = self._pings.popleft()
        self.memory.add(before - self._acked)
        return now_s - sent_at

    def end(self) -> None:
        """Hold nothing for this client any more, nor later; a second call changes nothing."""
        self.memory.add(self._acked - self.sent_bytes)
        self._acked = self.sent_bytes
        self._pings.clear()

    @property
    def waits_since_s(self) -> float | None:
        """When the oldest ping without an answer was sent; None while all are answered."""
        return self._pings[0][1] if self._pings else None

    @property
    def deadline_s(self) -> float | None:
        """When the oldest ping becomes overdue; None while all are answered."""
        if not self._pings:
            return None
        return self._pings[0][1] + (
            self._settings.credit_timeout_s if self._is_loaded else self._settings.pong_timeout_s
        )

    def overdue(self, now_s: float) -> CloseCode | None:
        """Return why the socket must be closed now, or None.

        A client that leaves data unacknowledged is slow; one that leaves a bare ping
        unanswered is gone.
        """
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return None
        return CloseCode.SLOW if self._is_loaded else CloseCode.NO_PONG

    @property
    def _is_loaded(self) -> bool:
        return self.in_flight_bytes >= self._settings.credit_ping_bytes


class Budget:
    """What a unidirectional client gets: it sends no pong, so the count never comes back."""

    __slots__ = ("_ended_at", "_settings", "memory", "sent_bytes")

    acknowledges = False
    wants_ping = False
    deadline_s = None
    waits_since_s = 0.0
    """As long as there is: it never says that it has read anything."""

    def __init__(self, settings: GatewaySettings, memory: Memory | None = None) -> None:
        self._settings = settings
        self.memory = memory or Memory(settings)
        self.sent_bytes = 0
        self._ended_at = 0

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent: nothing says that they were read."""
        return self.sent_bytes - self._ended_at

    @property
    def is_open(self) -> bool:
        """True while another frame may be sent."""
        return self.sent_bytes < self._settings.uni_budget_bytes and self.memory.window_bytes > 0

    def on_sent(self, num_bytes: int) -> None:
        """Count bytes handed to the transport."""
        self.sent_bytes += num_bytes
        self.memory.add(num_bytes)

    def end(self) -> None:
        """Hold nothing for this client any more; a second call changes nothing."""
        self.memory.add(-self.in_flight_bytes)
        self._ended_at = self.sent_bytes

    def on_ping(self, _now_s: float) -> None:
        """Nothing to remember: no pong will come."""

    def on_pong(self, _now_s: float) -> float | None:
        """Unidirectional clients send nothing, so a pong is never expected."""
        return None

    def overdue(self, _now_s: float) -> CloseCode | None:
        """Return 3011 when the budget is spent: the client reconnects and recovers."""
        return None if self.sent_bytes < self._settings.uni_budget_bytes else CloseCode.FORCE_RECONNECT


Credit = CreditWindow | Budget
