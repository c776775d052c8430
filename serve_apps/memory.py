"""Bytes that one replica holds for its clients, and who pays when they are too many.

Held are the rings, the replies that wait, and what was handed to a transport and not
acknowledged: behind Ray Serve a send never waits, so all of that may lie in this process.
A unidirectional client acknowledges nothing; all it was sent counts until it reconnects.

Pure: no I/O, no clock. Invariants: up to the soft limit each client has its full credit
window; from there to the hard limit the windows shrink to one ping's distance; beyond the
hard limit nobody is sent anything until the slowest were cut, which is at once, down to the
soft limit. So what is held exceeds the hard limit by one frame or reply at most.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from serve_apps.gateway_settings import GatewaySettings


class Holder(Protocol):
    """A connection, as the budget sees it."""

    @property
    def held_bytes(self) -> int:
        """Bytes held for this client alone."""
        ...

    @property
    def waits_since_s(self) -> float | None:
        """When the oldest ping without an answer was sent (monotonic seconds); None: all are answered."""
        ...


Client = TypeVar("Client", bound=Holder)


class Memory:
    """The budget of one replica."""

    __slots__ = ("_calm_bytes", "_on_full", "_settings", "client_bytes", "ring_bytes", "window_bytes")

    def __init__(self, settings: GatewaySettings, on_full: Callable[[], object] | None = None) -> None:
        self._settings = settings
        self._on_full = on_full
        # What clients may hold before anything must be done: asked at each frame, so it is worked out beforehand.
        self._calm_bytes = settings.memory_soft_bytes
        self.client_bytes = 0
        """Held for single clients: replies, and what they have not acknowledged."""
        self.ring_bytes = 0
        """Held for all who follow a channel; as of the last turn of the timer."""
        self.window_bytes = settings.credit_bytes
        """What each client may leave unacknowledged now."""

    @property
    def held_bytes(self) -> int:
        """Everything that counts against the limits."""
        return self.client_bytes + self.ring_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes that are held for a client from now on; negative: not any more."""
        self.client_bytes += num_bytes
        if self.client_bytes > self._calm_bytes or self.window_bytes != self._settings.credit_bytes:
            self._adapt()

    def set_rings(self, num_bytes: int) -> None:
        """Count the rings anew."""
        self.ring_bytes = num_bytes
        self._calm_bytes = self._settings.memory_soft_bytes - num_bytes
        self._adapt()

    def surplus(self, clients: Iterable[Client], now_s: float) -> list[Client]:
        """Return whom to cut beyond the hard limit, down to the soft limit; most bytes times seconds unread first."""
        if self.held_bytes <= self._settings.memory_bytes:
            return []
        chosen, over = [], self.held_bytes - self._settings.memory_soft_bytes

        def slowness(client: Client) -> tuple[float, int]:
            since_s = client.waits_since_s
            return 0.0 if since_s is None else client.held_bytes * (now_s - since_s), client.held_bytes

        for client in sorted(clients, key=slowness, reverse=True):
            if over <= 0 or not client.held_bytes:
                break
            chosen.append(client)
            over -= client.held_bytes
        return chosen

    def _adapt(self) -> None:
        settings = self._settings
        room = settings.memory_bytes - self.held_bytes
        full = settings.memory_bytes - settings.memory_soft_bytes
        if room >= full:
            self.window_bytes = settings.credit_bytes
        elif room < 0:
            if self.window_bytes and self._on_full is not None:
                self._on_full()
            self.window_bytes = 0
        else:
            least = settings.credit_ping_bytes
            self.window_bytes = least + (settings.credit_bytes - least) * room // full
