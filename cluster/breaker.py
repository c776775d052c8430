"""Circuit breakers around calls of services outside this process.

The state machine is ``circuit.py``, sharing between processes ``breaker_redis.py``; here
are the guard around a call, what counts as a failure, and the metrics. It starts no
thread for a call and cuts none off: the deadline goes to the client that makes the call.
Invariant: a refused call never runs, and every permit comes back on every way out of
the ``with`` block -- success, failure, ignored error, cancellation.
"""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from prometheus_client import Counter

from cluster import metrics
from cluster.circuit import BreakerSettings, Circuit, CircuitState, SharedState, Transition
from cluster.errors import CallTimeoutError, CircuitOpenError
from cluster.settings import Settings, load_section

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 10.0
LEASE_RETRY_S = 1.0
"""How soon a process asks again after another one was given the probe."""
MAX_ERROR_CHARS = 200

IGNORED_ERRORS: tuple[type[BaseException], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    CircuitOpenError,
)
"""A caller's mistake or another service's outage: neither counts against this service nor heals it."""


class CircuitSharing(Protocol):
    """How the processes of a floor tell each other about circuits.

    Guarantee: never raises and never blocks longer than half a second; when the other
    processes cannot be reached each goes on with what it knows itself.
    """

    def changed(self, service: str) -> None:
        """Spread a circuit's new state, soon and in the background."""
        ...

    def wait_synced(self) -> None:
        """Return once the others' states have been read, or cannot be for now."""
        ...

    def lease_probe(self, service: str, ticket: int, permit_s: float) -> bool:
        """Ask to be the one process that probes; at most one in the floor is told yes."""
        ...

    def return_probe(self, service: str, ticket: int) -> None:
        """Give the probe back unused."""
        ...


class Unshared:
    """For one process alone: every probe is its own."""

    def changed(self, service: str) -> None:
        pass

    def wait_synced(self) -> None:
        pass

    def lease_probe(self, service: str, ticket: int, permit_s: float) -> bool:  # noqa: ARG002
        return True

    def return_probe(self, service: str, ticket: int) -> None:
        pass


class GuardedCall:
    """One guarded call, for ``with`` and ``async with``; inside the block it is the call's deadline."""

    __slots__ = ("_breaker", "_circuit", "_deadline_s", "_ticket", "timeout_s")

    def __init__(self, breaker: "Breaker", circuit: Circuit, timeout_s: float) -> None:
        self._breaker = breaker
        self._circuit = circuit
        self.timeout_s = timeout_s

    def remaining_s(self) -> float:
        """Return the time left, to be passed to the client that makes the call; never negative."""
        return max(0.0, self._deadline_s - self._breaker._now())

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            CallTimeoutError: the deadline has passed.
        """
        if self._breaker._now() >= self._deadline_s:
            raise CallTimeoutError(self._circuit.service, self.timeout_s)

    def __enter__(self) -> "GuardedCall":
        circuit = self._circuit
        # The closed circuit is the hot path: two plain reads, no lock.
        self._ticket = circuit.ticket if circuit.passes else self._breaker._enter(circuit, self.timeout_s)
        self._deadline_s = self._breaker._now() + self.timeout_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._breaker._leave_failed(self._circuit, self._ticket, error)
        elif not self._circuit.quiet:
            self._circuit.succeed(self._ticket)

    async def __aenter__(self) -> "GuardedCall":
        circuit = self._circuit
        if circuit.passes:
            self._ticket = circuit.ticket
        else:
            self._ticket = await self._breaker._aenter(circuit, self.timeout_s)
        self._deadline_s = self._breaker._now() + self.timeout_s
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._circuit.is_probe(self._ticket) and not self._breaker._counts(error):
            # Returning the lease is network: not on the event loop. The local permit goes back first,
            # so a cancellation that arrives meanwhile loses nothing but the lease, which expires.
            self._circuit.release(self._ticket, self._breaker._now())
            await asyncio.to_thread(self._breaker._sharing.return_probe, self._circuit.service, self._ticket)
            return
        self.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStatus:
    """One circuit, for people."""

    service: str
    state: CircuitState
    failures: int
    """Consecutive ones counted by this process; 0 unless closed."""
    retry_in_s: float
    """Until a call is let through; 0 when one is now."""
    last_error: str
    """Last failure this process counted."""


class Breaker:
    """The circuits of one process, by service."""

    def __init__(self, settings: BreakerSettings, now: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._now = now
        self._circuits: dict[str, Circuit] = {}
        # Looked up once: finding a metric's child costs more than all the rest of a refusal.
        self._rejected: dict[str, Counter] = {}
        self._lock = threading.Lock()
        self._sharing: CircuitSharing = Unshared()

    def share(self, sharing: CircuitSharing) -> None:
        """From now on act together with the floor's other processes."""
        self._sharing = sharing

    def call(self, service: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> GuardedCall:
        """Guard a call of ``service``: ``with breaker.call("mqtt_broker", timeout_s=10) as deadline:``.

        Entering raises ``CircuitOpenError`` while the circuit refuses; then the body does
        not run. Errors leave the block unchanged. Both ``with`` and ``async with`` work.
        """
        try:
            return GuardedCall(self, self._circuits[service], timeout_s)
        except KeyError:
            return GuardedCall(self, self.circuit(service), timeout_s)

    def is_open(self, service: str) -> bool:
        """Tell whether a call would be refused now, whichever process the failures happened in.

        False again as soon as the open time is over: who asks before each call must not
        keep the probe away. The first question of a process may wait for the shared states.
        """
        self._sharing.wait_synced()
        return self.circuit(service).retry_in_s(self._now()) > 0

    def snapshot(self) -> list[CircuitStatus]:
        """Return every circuit that this process or another one has used, by name."""
        self._sharing.wait_synced()
        now_s = self._now()
        return [
            CircuitStatus(
                service=circuit.service,
                state=circuit.state,
                failures=circuit.num_failures(),
                retry_in_s=circuit.retry_in_s(now_s),
                last_error=circuit.last_error,
            )
            for _, circuit in sorted(self._circuits.items())
        ]

    def force_open(self, service: str) -> None:
        """Refuse all calls of ``service``, in every process, until ``reset``."""
        self.circuit(service).force(CircuitState.FORCED_OPEN)

    def force_closed(self, service: str) -> None:
        """Let all calls of ``service`` pass, in every process, until ``reset``."""
        self.circuit(service).force(CircuitState.FORCED_CLOSED)

    def reset(self, service: str) -> None:
        """Close the circuit of ``service``, in every process."""
        self.circuit(service).reset()

    def circuit(self, service: str) -> Circuit:
        """Return the circuit of ``service``, made when nobody used it before."""
        with self._lock:
            if service not in self._circuits:
                if not re.fullmatch(r"[a-z0-9_.-]{1,64}", service):
                    raise ValueError(f"a service is named by 1-64 of [a-z0-9_.-], got {service!r}")
                self._rejected[service] = metrics.external_service_rejected.labels(service)
                self._circuits[service] = Circuit(service, self.settings, self._transitioned)
            return self._circuits[service]

    def shared_state(self, service: str) -> SharedState:
        """Return what this process has to tell about ``service``."""
        return self.circuit(service).shared_state(self._now())

    def adopt(self, service: str, shared: SharedState) -> None:
        """Take over what another process decided about ``service``."""
        self.circuit(service).adopt(shared, self._now())

    def _enter(self, circuit: Circuit, timeout_s: float) -> int:
        ticket = self._acquire(circuit, timeout_s)
        if circuit.is_probe(ticket):
            leased = self._sharing.lease_probe(circuit.service, ticket, self._permit_s(timeout_s))
            self._leased(circuit, ticket, leased=leased)
        return ticket

    async def _aenter(self, circuit: Circuit, timeout_s: float) -> int:
        ticket = self._acquire(circuit, timeout_s)
        if circuit.is_probe(ticket):
            try:
                leased = await asyncio.to_thread(
                    self._sharing.lease_probe, circuit.service, ticket, self._permit_s(timeout_s)
                )
            except asyncio.CancelledError:
                circuit.release(ticket, self._now())
                raise
            self._leased(circuit, ticket, leased=leased)
        return ticket

    def _acquire(self, circuit: Circuit, timeout_s: float) -> int:
        ticket = circuit.acquire(self._now(), self._permit_s(timeout_s))
        if ticket is None:
            self._rejected[circuit.service].inc()
            # A new error each time: a shared one would grow a traceback for the length of an outage.
            raise CircuitOpenError(circuit.service, circuit.retry_in_s(self._now()))
        return ticket

    def _leased(self, circuit: Circuit, ticket: int, *, leased: bool) -> None:
        if not leased:
            circuit.release(ticket, self._now(), retry_in_s=LEASE_RETRY_S)
            self._rejected[circuit.service].inc()
            raise CircuitOpenError(circuit.service, LEASE_RETRY_S)

    def _leave_failed(self, circuit: Circuit, ticket: int, error: BaseException) -> None:
        if not self._counts(error):
            is_probe = circuit.is_probe(ticket)
            circuit.release(ticket, self._now())
            if is_probe:
                self._sharing.return_probe(circuit.service, ticket)
            return
        metrics.external_service_call_failure.labels(circuit.service).inc()
        if isinstance(error, TimeoutError):
            metrics.external_service_call_timeout.labels(circuit.service).inc()
        circuit.fail(ticket, self._now(), f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS])

    def _counts(self, error: BaseException) -> bool:
        # OSError first: a certificate error is an OSError and a ValueError, and it is an outage.
        return isinstance(error, OSError) or (isinstance(error, Exception) and not isinstance(error, IGNORED_ERRORS))

    def _permit_s(self, timeout_s: float) -> float:
        return max(self.settings.permit_s, timeout_s)

    def _transitioned(self, transition: Transition) -> None:
        # Called under the circuit's lock: nothing here may wait or call the circuit.
        if transition.cause != "shared":
            if transition.after in {CircuitState.OPEN, CircuitState.FORCED_OPEN}:
                metrics.external_service_circuit_open.labels(transition.service).inc()
            elif transition.after is CircuitState.CLOSED:
                metrics.external_service_circuit_closed.labels(transition.service).inc()
            if transition.after is not CircuitState.HALF_OPEN:
                self._sharing.changed(transition.service)
        logger.warning(
            "circuit of %s: %s -> %s (%s)", transition.service, transition.before, transition.after, transition.cause
        )


_breaker: Breaker | None = None
_breaker_lock = threading.Lock()


def get_breaker() -> Breaker:
    """Return this process's breaker, which shares its states through the floor's Valkey."""
    global _breaker
    with _breaker_lock:
        if _breaker is None:
            breaker = Breaker(load_section(BreakerSettings))
            redis_url = Settings.load().redis_url
            if redis_url:
                from cluster.breaker_redis import RedisSharing  # the core knows no network unless one is configured

                breaker.share(RedisSharing(redis_url, breaker, breaker.settings.sync_interval_s))
            _breaker = breaker
        return _breaker


def external_service_call(service: str, timeout: float = DEFAULT_TIMEOUT_S) -> GuardedCall:
    """Guard a call of ``service``; the seed's name for ``get_breaker().call(...)``."""
    return get_breaker().call(service, timeout_s=timeout)


def is_open(service: str) -> bool:
    """Tell whether a call of ``service`` would be refused now."""
    return get_breaker().is_open(service)
