"""State of one service's circuit: whether calls pass, and what their results change.

Pure: no clock, no network, no metrics -- the time comes as ``now_s`` (monotonic). Thread-safe.
Invariants: a result counts only if nothing changed since its call began (the ticket), so
no late answer heals or trips a circuit; and at most one probe is out at a time.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class CircuitState(StrEnum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    """Passes."""
    OPEN = "open"
    """Refuses."""
    HALF_OPEN = "half_open"
    """Lets one probe through."""
    FORCED_OPEN = "forced_open"
    """Refuses until somebody resets it."""
    FORCED_CLOSED = "forced_closed"
    """Passes, whatever the results, until somebody resets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When a circuit opens, and for how long."""

    failure_threshold: int = 5
    """Consecutive counted failures that open a circuit."""
    window_s: float = 300.0
    """The failures must lie within this time, in seconds."""
    open_s: float = 300.0
    """How long an open circuit refuses before it lets one probe through, in seconds."""
    open_growth: float = 1.0
    """Factor on ``open_s`` after each failed probe; 1 keeps it fixed."""
    open_max_s: float = 3600.0
    """Upper bound of the grown time, in seconds."""
    permit_s: float = 30.0
    """When a probe that gave no answer is given up and the next call may probe, in seconds."""
    sync_interval_s: float = 1.0
    """How often a process reads the states that the other processes share, in seconds."""

    def __post_init__(self) -> None:
        if self.failure_threshold < 1:
            raise ValueError(f"failure_threshold must be at least 1, got {self.failure_threshold}")
        for name in ("window_s", "open_s", "open_max_s", "permit_s", "sync_interval_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.open_growth < 1:
            raise ValueError(f"open_growth must be at least 1, got {self.open_growth}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of one circuit's state."""

    service: str
    before: CircuitState
    after: CircuitState
    cause: str
    """``failures``, ``open time over``, ``probe succeeded``, ``probe failed``, ``forced``, ``reset`` or ``shared``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    """What processes tell each other about a circuit."""

    state: CircuitState
    """Never half-open: who may probe is decided by a lease."""
    remaining_s: float
    """Until an open circuit lets a probe through; 0 for other states."""


class Circuit:
    """The circuit of one service."""

    __slots__ = (
        "_failures",
        "_lock",
        "_on_transition",
        "_open_until_s",
        "_permit_until_s",
        "_reopened",
        "_settings",
        "last_error",
        "passes",
        "quiet",
        "service",
        "state",
        "ticket",
    )

    def __init__(
        self, service: str, settings: BreakerSettings, on_transition: Callable[[Transition], None] | None = None
    ) -> None:
        self.service = service
        self.state = CircuitState.CLOSED
        self.passes = True
        """Calls need not ask ``acquire``: read without the lock on the hot path."""
        self.quiet = True
        """A success changes nothing: read without the lock on the hot path."""
        self.ticket = 0
        """Changes with every transition and every permit; a call carries the one it began with."""
        self.last_error = ""
        self._settings = settings
        self._on_transition = on_transition
        self._lock = threading.Lock()
        self._failures: deque[float] = deque(maxlen=settings.failure_threshold)
        self._open_until_s = 0.0
        self._permit_until_s = 0.0
        self._reopened = 0

    def acquire(self, now_s: float, permit_s: float = 0.0) -> int | None:
        """Return the ticket of a call that may begin; None when it may not.

        ``permit_s`` bounds the call, should it be the probe.
        """
        with self._lock:
            if self.passes:
                return self.ticket
            if self._retry_in_s(now_s) > 0:
                return None
            if self.state is not CircuitState.HALF_OPEN:
                self._move(CircuitState.HALF_OPEN, "open time over")
            self.ticket += 1  # whoever held a permit that ran out is no longer listened to
            self._permit_until_s = now_s + max(permit_s, self._settings.permit_s)
            return self.ticket

    def is_probe(self, ticket: int) -> bool:
        """Tell whether the call with ``ticket`` is the one that decides a half-open circuit."""
        return self.state is CircuitState.HALF_OPEN and ticket == self.ticket

    def succeed(self, ticket: int) -> None:
        """Count a success."""
        if self.quiet:
            return
        with self._lock:
            if ticket != self.ticket:
                return
            if self.state is CircuitState.HALF_OPEN:
                self._close("probe succeeded")
            elif self.state is CircuitState.CLOSED:
                self._failures.clear()
                self.quiet = True

    def fail(self, ticket: int, now_s: float, error: str = "") -> None:
        """Count a failure."""
        with self._lock:
            if ticket != self.ticket:
                return
            self.last_error = error
            if self.state is CircuitState.HALF_OPEN:
                self._reopened += 1
                self._open(now_s, "probe failed")
            elif self.state is CircuitState.CLOSED:
                self.quiet = False
                self._failures.append(now_s)
                if (
                    len(self._failures) == self._settings.failure_threshold
                    and now_s - self._failures[0] <= self._settings.window_s
                ):
                    self._open(now_s, "failures")

    def release(self, ticket: int, now_s: float, retry_in_s: float = 0.0) -> None:
        """End a call that says nothing about the service; a probe's permit is free after ``retry_in_s``."""
        with self._lock:
            if self.is_probe(ticket):
                self.ticket += 1
                self._permit_until_s = now_s + retry_in_s

    def retry_in_s(self, now_s: float) -> float:
        """Return how long calls will still be refused; 0 when one would be let through."""
        with self._lock:
            return 0.0 if self.passes else max(0.0, self._retry_in_s(now_s))

    def num_failures(self) -> int:
        """Return the consecutive failures counted so far."""
        return len(self._failures)

    def force(self, state: CircuitState) -> None:
        """Hold the circuit open or closed until ``reset``."""
        if state not in {CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED}:
            raise ValueError(f"cannot force a circuit to be {state}")
        with self._lock:
            self._move(state, "forced")

    def reset(self) -> None:
        """Close the circuit and forget what was counted."""
        with self._lock:
            self._close("reset")

    def shared_state(self, now_s: float) -> SharedState:
        """Return what other processes should know; a half-open circuit is one whose open time is over."""
        with self._lock:
            if self.state is CircuitState.HALF_OPEN:
                return SharedState(state=CircuitState.OPEN, remaining_s=0.0)
            is_open = self.state is CircuitState.OPEN
            remaining_s = max(0.0, self._open_until_s - now_s) if is_open else 0.0
            return SharedState(state=self.state, remaining_s=remaining_s)

    def adopt(self, shared: SharedState, now_s: float) -> None:
        """Take over what another process decided."""
        with self._lock:
            if shared.state is CircuitState.CLOSED:
                self._close("shared")
            elif shared.state is CircuitState.OPEN:
                self._open_until_s = now_s + shared.remaining_s
                self._move(CircuitState.OPEN, "shared")
            else:
                self._move(shared.state, "shared")

    def _retry_in_s(self, now_s: float) -> float:
        if self.state is CircuitState.OPEN:
            return self._open_until_s - now_s
        if self.state is CircuitState.HALF_OPEN:
            return self._permit_until_s - now_s
        return self._settings.open_s  # forced open: nobody knows, so as long as an outage is taken to last

    def _open(self, now_s: float, cause: str) -> None:
        open_s = self._settings.open_s * self._settings.open_growth**self._reopened
        self._open_until_s = now_s + min(open_s, max(self._settings.open_max_s, self._settings.open_s))
        self._move(CircuitState.OPEN, cause)

    def _close(self, cause: str) -> None:
        self._reopened = 0
        self._move(CircuitState.CLOSED, cause)

    def _move(self, state: CircuitState, cause: str) -> None:
        before, self.state = self.state, state
        self.passes = state in {CircuitState.CLOSED, CircuitState.FORCED_CLOSED}
        self.quiet = self.passes
        self._failures.clear()
        self._permit_until_s = 0.0
        self.ticket += 1
        if before is not state and self._on_transition is not None:
            self._on_transition(Transition(service=self.service, before=before, after=state, cause=cause))
