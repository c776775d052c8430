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

from cluster.circuit_policies import BreakerSettings
from cluster.failure_rate import FailureRate


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


FORCED = frozenset({CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED})


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a circuit is in its state."""

    what: str = ""
    """``failures``, ``failure rate``, ``open time over``, ``probe succeeded``, ``probe failed``, ``forced``,
    ``reset``; empty for a circuit that never changed."""
    author: str = ""
    """User who forced or reset it; empty where calls decided."""
    reason: str = ""
    """What that user said, or the error of the call that decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of one circuit's state."""

    service: str
    before: CircuitState
    after: CircuitState
    cause: Cause
    is_adopted: bool
    """Another process decided it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    """What processes tell each other about a circuit."""

    state: CircuitState
    """Never half-open: who may probe is decided by a lease."""
    remaining_s: float
    """Until an open circuit lets a probe through; 0 for other states."""
    cause: Cause = Cause()


class Circuit:
    """The circuit of one service."""

    __slots__ = (
        "_failures",
        "_lock",
        "_on_transition",
        "_open_until_s",
        "_permit_until_s",
        "_rate",
        "_reopened",
        "_settings",
        "cause",
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
        self.quiet = settings.failure_rate == 0
        """A success changes nothing: read without the lock on the hot path."""
        self.ticket = 0
        """Changes with every transition and every permit; a call carries the one it began with."""
        self.cause = Cause()
        self.last_error = ""
        self._settings = settings
        self._on_transition = on_transition
        self._lock = threading.Lock()
        self._failures: deque[float] = deque(maxlen=settings.failure_threshold)
        self._rate = FailureRate(settings.window_s) if settings.failure_rate else None
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
                self._move(CircuitState.HALF_OPEN, Cause("open time over"))
            self.ticket += 1  # whoever held a permit that ran out is no longer listened to
            self._permit_until_s = now_s + max(permit_s, self._settings.permit_s)
            return self.ticket

    def is_probe(self, ticket: int) -> bool:
        """Tell whether the call with ``ticket`` is the one that decides a half-open circuit."""
        return self.state is CircuitState.HALF_OPEN and ticket == self.ticket

    def succeed(self, ticket: int, now_s: float) -> None:
        """Count a success."""
        if self.quiet:
            return
        with self._lock:
            if ticket != self.ticket:
                return
            if self.state is CircuitState.HALF_OPEN:
                self._close(Cause("probe succeeded"))
            elif self.state is CircuitState.CLOSED:
                self._failures.clear()
                if self._rate is not None:
                    self._rate.count(now_s, failed=False)
                self.quiet = self._rate is None

    def fail(self, ticket: int, now_s: float, error: str = "") -> None:
        """Count a failure."""
        with self._lock:
            if ticket != self.ticket:
                return
            self.last_error = error
            if self.state is CircuitState.HALF_OPEN:
                self._reopened += 1
                self._open(now_s, Cause("probe failed", reason=error))
            elif self.state is CircuitState.CLOSED:
                self.quiet = False
                self._failures.append(now_s)
                if self._rate is not None:
                    self._rate.count(now_s, failed=True)
                if self._is_streak(now_s):
                    self._open(now_s, Cause("failures", reason=error))
                elif self._is_rate_reached():
                    self._open(now_s, Cause("failure rate", reason=error))

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

    def force(self, state: CircuitState, author: str = "", reason: str = "") -> None:
        """Hold the circuit open or closed until ``reset``."""
        if state not in FORCED:
            raise ValueError(f"cannot force a circuit to be {state}")
        with self._lock:
            self._move(state, Cause("forced", author, reason))

    def reset(self, author: str = "", reason: str = "") -> None:
        """Close the circuit and forget what was counted."""
        with self._lock:
            self._close(Cause("reset", author, reason))

    def shared_state(self, now_s: float) -> SharedState:
        """Return what other processes should know; a half-open circuit is one whose open time is over."""
        with self._lock:
            if self.state is CircuitState.HALF_OPEN:
                return SharedState(state=CircuitState.OPEN, remaining_s=0.0, cause=self.cause)
            is_open = self.state is CircuitState.OPEN
            remaining_s = max(0.0, self._open_until_s - now_s) if is_open else 0.0
            return SharedState(state=self.state, remaining_s=remaining_s, cause=self.cause)

    def adopt(self, shared: SharedState, now_s: float) -> None:
        """Take over what another process decided."""
        with self._lock:
            if shared.state is CircuitState.CLOSED:
                self._close(shared.cause, is_adopted=True)
            else:
                if shared.state is CircuitState.OPEN:
                    self._open_until_s = now_s + shared.remaining_s
                self._move(shared.state, shared.cause, is_adopted=True)

    def _is_streak(self, now_s: float) -> bool:
        failures, settings = self._failures, self._settings
        return 0 < settings.failure_threshold == len(failures) and now_s - failures[0] <= settings.window_s

    def _is_rate_reached(self) -> bool:
        rate, settings = self._rate, self._settings
        return (
            rate is not None
            and rate.calls >= settings.minimum_calls
            and rate.failures >= settings.failure_rate * rate.calls
        )

    def _retry_in_s(self, now_s: float) -> float:
        if self.state is CircuitState.OPEN:
            return self._open_until_s - now_s
        if self.state is CircuitState.HALF_OPEN:
            return self._permit_until_s - now_s
        return self._settings.open_s  # forced open: nobody knows, so as long as an outage is taken to last

    def _open(self, now_s: float, cause: Cause) -> None:
        open_s = self._settings.open_s * self._settings.open_growth**self._reopened
        self._open_until_s = now_s + min(open_s, max(self._settings.open_max_s, self._settings.open_s))
        self._move(CircuitState.OPEN, cause)

    def _close(self, cause: Cause, *, is_adopted: bool = False) -> None:
        self._reopened = 0
        self._move(CircuitState.CLOSED, cause, is_adopted=is_adopted)

    def _move(self, state: CircuitState, cause: Cause, *, is_adopted: bool = False) -> None:
        before, self.state = self.state, state
        if state is not CircuitState.HALF_OPEN:  # it stays known why it had opened
            self.cause = cause
        self._failures.clear()
        if self._rate is not None:
            self._rate.clear()
        self._permit_until_s = 0.0
        self.ticket += 1
        self.quiet = state is CircuitState.FORCED_CLOSED or (state is CircuitState.CLOSED and self._rate is None)
        # Last: a call that sees it pass must already see the new ticket.
        self.passes = state in {CircuitState.CLOSED, CircuitState.FORCED_CLOSED}
        if self._on_transition is not None and (before is not state or state in FORCED):
            self._on_transition(
                Transition(service=self.service, before=before, after=state, cause=cause, is_adopted=is_adopted)
            )
