"""Which way a client's next call to the hub takes: the socket, or the actor.

Pure state, no I/O; the clock is passed in, the owner serialises access. Invariant: a socket
that cannot be reached (another node, another user) is tried again ever more seldom, and one
that worked is looked for at once when it is lost.
"""

from realtime.backoff import Backoff
from realtime.hub_frames import SocketAddress

RETRY_FIRST_S = 0.5
RETRY_CAP_S = 60.0


class Route:
    """What one process knows of the hub's socket."""

    def __init__(self) -> None:
        self.address: SocketAddress | None = None
        """None: the actor has to be asked for it."""
        self._retry_at_s = 0.0
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S)

    def may_try(self, now_s: float) -> bool:
        """Return whether the socket shall be tried."""
        return now_s >= self._retry_at_s

    def reached(self, address: SocketAddress) -> None:
        """Note that a connection to ``address`` was made."""
        self.address = address
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S)

    def unreachable(self, now_s: float) -> None:
        """Note that there is no socket, or none for this process."""
        self.address = None
        self._retry_at_s = now_s + self._backoff.next_pause_s()

    def lost(self, address: SocketAddress) -> None:
        """Note that a connection to ``address`` ended: a restarted hub has another one."""
        if self.address == address:
            self.address = None
