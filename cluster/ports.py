"""Ports that nobody on this machine uses, and that a second floor will not take either.

Knows nothing of who listens on a port. A port counts as free only when a bind without
SO_REUSEPORT succeeds: several of Ray's servers set that option and would silently share a
port with another floor. Invariant: two live ``PortBlock`` objects on one machine never hold
the same port, whoever their users are.
"""

import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"

ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

FIRST_PORT = 20_000
"""Below Linux' ephemeral range (32768), so that no outgoing connection sits on a port of ours."""
BLOCK_SIZE = 120
NUM_BLOCKS = 80
"""The last block ends at 29599, below the range that Serve takes by default (30000)."""

POLL_S = 0.1


class NoFreePortsError(OSError):
    """Every block of ports is taken."""

    def __str__(self) -> str:
        last = FIRST_PORT + NUM_BLOCKS * BLOCK_SIZE - 1
        return f"no {BLOCK_SIZE} adjacent free ports between {FIRST_PORT} and {last}"


def local_host(host: str) -> str:
    """Return the address by which this machine reaches a server that is bound to ``host``."""
    if host in ALL_INTERFACES:
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


def is_port_free(port: int, host: str = "") -> bool:
    """Say whether ``port`` can be bound exclusively; an empty host means all interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A listener that was closed a moment ago leaves TIME_WAIT behind; servers bind over
        # it by SO_REUSEADDR, so the probe must as well. It does not bind over a live listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of the system's choice; for short-lived listeners and tests."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports of the system's choice, all free at the same moment."""
    probes: list[socket.socket] = []
    try:
        for _ in range(count):
            probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            probes.append(probe)
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass(slots=True)
class PortBlock:
    """``BLOCK_SIZE`` adjacent ports, reserved for one floor until ``close`` or the process ends."""

    index: int
    _reservation: socket.socket
    _next: int = field(init=False, default=0)

    @classmethod
    def reserve(
        cls, preferred: int | None = None, rng: random.Random | None = None, patience_s: float = 0.0
    ) -> "PortBlock":
        """Reserve a block, the preferred one when it is free: a floor keeps its address over restarts.

        Args:
            preferred: block to try first.
            rng: says where to look next.
            patience_s: how long the preferred block's ports may take to become free. A killed
                process is gone from the process table before the last of its sockets is.

        Raises:
            NoFreePortsError: none is left.
        """
        # Not a secret: where to begin looking, so that floors rarely try the same block.
        order = list(range(NUM_BLOCKS))
        (rng or random.Random()).shuffle(order)  # noqa: S311
        if preferred is not None and preferred in order:
            order.remove(preferred)
            order.insert(0, preferred)
        for index in order:
            reservation = _reserve_name(index)
            if reservation is None:
                continue
            if _become_free(index, patience_s if index == preferred else 0.0):
                return cls(index, reservation)
            reservation.close()
        raise NoFreePortsError

    def take(self, count: int = 1) -> list[int]:
        """Return the next ``count`` ports of the block.

        Raises:
            ValueError: the block has no ``count`` ports left.
        """
        ports = list(_ports_of(self.index))[self._next : self._next + count]
        if len(ports) < count:
            raise ValueError(f"a block has {BLOCK_SIZE} ports, {self._next} are taken, {count} more were asked for")
        self._next += count
        return ports

    def close(self) -> None:
        """Give the block back."""
        self._reservation.close()


def _become_free(index: int, patience_s: float) -> bool:
    give_up_at_s = time.monotonic() + patience_s
    while not all(is_port_free(port) for port in _ports_of(index)):
        if time.monotonic() >= give_up_at_s:
            return False
        time.sleep(POLL_S)
    return True


def _ports_of(index: int) -> Iterator[int]:
    start = FIRST_PORT + index * BLOCK_SIZE
    return iter(range(start, start + BLOCK_SIZE))


def _reserve_name(index: int) -> socket.socket | None:
    # A name in Linux' abstract socket space lives in the same network namespace as the ports,
    # is seen by every user, and disappears with the process that holds it, kill -9 included.
    # A lock file would need a folder that two users may write, and can outlive its owner.
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0watchfloor-ports-{index}")
    except OSError:
        reservation.close()
        return None
    return reservation
