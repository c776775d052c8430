"""Circuit breakers around calls of services outside this process.

The state machine is ``circuit.py``, its settings by service ``circuit_policies.py``, sharing
between processes ``breaker_redis.py``; here are the guard around a call, what counts as a
failure, and the metrics. It starts no thread for a call and cuts none off: the deadline goes
to the client that makes the call. Invariant: a refused call never runs, and every permit
comes back on every way out of a guarded call -- success, failure, ignored error, cancellation.
"""

import asyncio
import functools
import importlib
import inspect
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from prometheus_client import Counter

from cluster import metrics, names
from cluster.circuit import FORCED, Circuit, CircuitState, SharedState, Transition
from cluster.circuit_policies import BreakerSettings, is_shared, kind_of, settings_of
from cluster.errors import CallTimeoutError, CircuitOpenError
from cluster.settings import Settings, load_section

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

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

    def changed(self, transition: Transition) -> None:
        """Spread a circuit's new state, soon and in the background."""
        ...

    def wait_told(self, service: str) -> bool:
        """Wait until a changed state was spread; False when it could not be for now."""
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

    def changed(self, transition: Transition) -> None:
        pass

    def wait_told(self, service: str) -> bool:  # noqa: ARG002
        return False

    def wait_synced(self) -> None:
        pass

    def lease_probe(self, service: str, ticket: int, permit_s: float) -> bool:  # noqa: ARG002
        return True

    def return_probe(self, service: str, ticket: int) -> None:
        pass


class GuardedCall:
    """One guarded call, for ``with`` and ``async with``; inside the block it is the call's deadline.

    Who calls the same service one call after the other may keep it and enter it each time anew;
    two calls at once need one each.

    Filled by ``Breaker.call`` instead of an ``__init__``, which would cost a fifth of a call.
    """

    __slots__ = ("_began_s", "_breaker", "_circuit", "_ticket", "timeout_s")

    _breaker: "Breaker"
    _circuit: Circuit
    _ticket: int
    _began_s: float
    timeout_s: float

    def remaining_s(self) -> float:
        """Return the time left, to be passed to the client that makes the call; never negative."""
        return max(0.0, self._began_s + self.timeout_s - self._breaker.now())

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            CallTimeoutError: the deadline has passed.
        """
        if self._breaker.now() >= self._began_s + self.timeout_s:
            raise CallTimeoutError(self._circuit.service, self.timeout_s)

    def __enter__(self) -> "GuardedCall":
        circuit = self._circuit
        # The closed circuit is the hot path: two plain reads, no lock.
        self._ticket = circuit.ticket if circuit.passes else self._breaker.enter(circuit, self.timeout_s)
        self._began_s = self._breaker.now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._breaker.leave_failed(self._circuit, self._ticket, error)
        elif not self._circuit.quiet:
            self._circuit.succeed(self._ticket, self._breaker.now())

    async def __aenter__(self) -> "GuardedCall":
        circuit = self._circuit
        self._ticket = circuit.ticket if circuit.passes else await self._breaker.aenter(circuit, self.timeout_s)
        self._began_s = self._breaker.now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self._breaker.aleave_failed(self._circuit, self._ticket, error)
        elif not self._circuit.quiet:
            self._circuit.succeed(self._ticket, self._breaker.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStatus:
    """One circuit, for people and scripts."""

    service: str
    state: CircuitState
    failures: int
    """Consecutive ones counted by this process; 0 unless closed."""
    retry_in_s: float
    """Until a call is let through; 0 when one is now."""
    last_error: str
    """Last failure this process counted."""
    cause: str
    """What put it into this state; empty when it never changed."""
    author: str
    """User who forced or reset it; empty where calls decided."""
    reason: str
    """What that user said, or the error of the call that decided, in whichever process that was."""
    is_shared: bool
    """All processes of the floor are in this state; otherwise it is this process's own."""


class Breaker:
    """The circuits of one process, by service."""

    def __init__(self, settings: BreakerSettings, now: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.now = now
        self._circuits: dict[str, Circuit] = {}
        # Looked up once: finding a metric's child costs more than all the rest of a refusal.
        self._rejected: dict[str, Counter] = {}
        self._outages: dict[str, Callable[[BaseException], bool]] = {}
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
        guarded = GuardedCall()
        try:
            guarded._circuit = self._circuits[service]
        except KeyError:
            guarded._circuit = self.circuit(service)
        guarded._breaker = self
        guarded.timeout_s = timeout_s
        return guarded

    def guard(self, service: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Guard every call of a function, plain or ``async def``: ``@breaker.guard("valkey")``.

        For functions that bound their own time; who needs the deadline uses ``call``.
        """
        circuit = self.circuit(service)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def aguarded(*args: P.args, **kwargs: P.kwargs) -> Any:
                    ticket = circuit.ticket if circuit.passes else await self.aenter(circuit, DEFAULT_TIMEOUT_S)
                    try:
                        result = await function(*args, **kwargs)
                    except BaseException as error:
                        await self.aleave_failed(circuit, ticket, error)
                        raise
                    if not circuit.quiet:
                        circuit.succeed(ticket, self.now())
                    return result

                return cast("Callable[P, R]", aguarded)

            @functools.wraps(function)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
                ticket = circuit.ticket if circuit.passes else self.enter(circuit, DEFAULT_TIMEOUT_S)
                try:
                    result = function(*args, **kwargs)
                except BaseException as error:
                    self.leave_failed(circuit, ticket, error)
                    raise
                if not circuit.quiet:
                    circuit.succeed(ticket, self.now())
                return result

            return guarded

        return decorate

    def count_only(self, service: str, is_outage: Callable[[BaseException], bool]) -> None:
        """From now on count against ``service`` what ``is_outage`` says, and ignore its other errors."""
        self._outages[service] = is_outage

    def is_open(self, service: str) -> bool:
        """Tell whether a call would be refused now, whichever process the failures happened in.

        False again as soon as the open time is over: who asks before each call must not
        keep the probe away. The first question of a process may wait for the shared states.
        """
        self._sharing.wait_synced()
        return self.circuit(service).retry_in_s(self.now()) > 0

    def snapshot(self) -> list[CircuitStatus]:
        """Return every circuit that this process or another one has used, by name."""
        self._sharing.wait_synced()
        return [self._status(circuit) for _, circuit in sorted(self._circuits.items())]

    def status(self, service: str) -> CircuitStatus:
        """Return one circuit as it is here and now."""
        return self._status(self.circuit(service))

    def force(self, service: str, state: CircuitState, *, author: str = "", reason: str = "") -> bool:
        """Refuse or let pass all calls of ``service`` until ``reset``; say whether all processes know.

        False: only this process does so far; the others hear of it when the store is back.

        Raises:
            ValueError: each process decides on its own about this service, or no such state.
        """
        self._must_be_shared(service)
        self.circuit(service).force(state, author, reason)
        return self._sharing.wait_told(service)

    def reset(self, service: str, *, author: str = "", reason: str = "") -> bool:
        """Close the circuit of ``service``; see ``force`` for the answer and the error."""
        self._must_be_shared(service)
        self.circuit(service).reset(author, reason)
        return self._sharing.wait_told(service)

    def circuit(self, service: str) -> Circuit:
        """Return the circuit of ``service``, made when nobody used it before."""
        with self._lock:
            made = self._circuits.get(service)
            if made is not None:
                return made
            if not re.fullmatch(r"[a-z0-9_.-]{1,64}", service):
                raise ValueError(f"a service is named by 1-64 of [a-z0-9_.-], got {service!r}")
        if is_shared(service):
            self._sharing.wait_synced()  # somebody may have forced it before this process began
        with self._lock:
            if service not in self._circuits:
                self._rejected[service] = metrics.external_service_rejected.labels(kind_of(service))
                self._circuits[service] = Circuit(service, settings_of(service, self.settings), self._transitioned)
            return self._circuits[service]

    def shared_state(self, service: str) -> SharedState:
        """Return what this process has to tell about ``service``."""
        return self.circuit(service).shared_state(self.now())

    def adopt(self, service: str, shared: SharedState) -> None:
        """Take over what another process decided about ``service``."""
        with self._lock:  # not by ``circuit``, which waits for this very call
            if service not in self._circuits:
                self._rejected[service] = metrics.external_service_rejected.labels(kind_of(service))
                self._circuits[service] = Circuit(service, settings_of(service, self.settings), self._transitioned)
            circuit = self._circuits[service]
        circuit.adopt(shared, self.now())

    def enter(self, circuit: Circuit, timeout_s: float) -> int:
        """Begin a call that a closed circuit would have let pass at once; return its ticket.

        Raises:
            CircuitOpenError: it is refused.
        """
        ticket = self._acquire(circuit, timeout_s)
        if circuit.is_probe(ticket):
            leased = self._sharing.lease_probe(circuit.service, ticket, self._permit_s(circuit, timeout_s))
            self._leased(circuit, ticket, leased=leased)
        return ticket

    async def aenter(self, circuit: Circuit, timeout_s: float) -> int:
        """As ``enter``, without blocking the event loop."""
        ticket = self._acquire(circuit, timeout_s)
        if circuit.is_probe(ticket):
            try:
                leased = not is_shared(circuit.service) or await asyncio.to_thread(
                    self._sharing.lease_probe, circuit.service, ticket, self._permit_s(circuit, timeout_s)
                )
            except asyncio.CancelledError:
                circuit.release(ticket, self.now())
                raise
            self._leased(circuit, ticket, leased=leased)
        return ticket

    def leave_failed(self, circuit: Circuit, ticket: int, error: BaseException) -> None:
        """End a call with an error: count it, or give a probe back."""
        if self._counts(circuit.service, error):
            self._count(circuit, ticket, error)
        elif self._release(circuit, ticket):
            self._sharing.return_probe(circuit.service, ticket)

    async def aleave_failed(self, circuit: Circuit, ticket: int, error: BaseException) -> None:
        """As ``leave_failed``, without blocking the event loop."""
        if self._counts(circuit.service, error):
            self._count(circuit, ticket, error)
        elif self._release(circuit, ticket) and is_shared(circuit.service):
            # The local permit is back already, so a cancellation that arrives meanwhile loses
            # nothing but the lease, which expires.
            await asyncio.to_thread(self._sharing.return_probe, circuit.service, ticket)

    def _acquire(self, circuit: Circuit, timeout_s: float) -> int:
        ticket = circuit.acquire(self.now(), self._permit_s(circuit, timeout_s))
        if ticket is None:
            self._rejected[circuit.service].inc()
            # A new error each time: a shared one would grow a traceback for the length of an outage.
            raise CircuitOpenError(circuit.service, circuit.retry_in_s(self.now()))
        return ticket

    def _leased(self, circuit: Circuit, ticket: int, *, leased: bool) -> None:
        if not leased:
            circuit.release(ticket, self.now(), retry_in_s=LEASE_RETRY_S)
            self._rejected[circuit.service].inc()
            raise CircuitOpenError(circuit.service, LEASE_RETRY_S)

    def _release(self, circuit: Circuit, ticket: int) -> bool:
        """End a call that says nothing about the service; tell whether it was the probe."""
        was_probe = circuit.is_probe(ticket)
        circuit.release(ticket, self.now())
        return was_probe

    def _count(self, circuit: Circuit, ticket: int, error: BaseException) -> None:
        kind = kind_of(circuit.service)
        metrics.external_service_call_failure.labels(kind).inc()
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:  # libraries have their own
            metrics.external_service_call_timeout.labels(kind).inc()
        circuit.fail(ticket, self.now(), f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS])

    def _counts(self, service: str, error: BaseException) -> bool:
        if service in self._outages:
            return self._outages[service](error)
        # OSError first: a certificate error is an OSError and a ValueError, and it is an outage.
        return isinstance(error, OSError) or (isinstance(error, Exception) and not isinstance(error, IGNORED_ERRORS))

    def _permit_s(self, circuit: Circuit, timeout_s: float) -> float:
        return max(settings_of(circuit.service, self.settings).permit_s, timeout_s)

    def _must_be_shared(self, service: str) -> None:
        if not is_shared(service):
            raise ValueError(f"each process decides about {service} on its own: it cannot be forced or reset")

    def _status(self, circuit: Circuit) -> CircuitStatus:
        cause = circuit.cause
        return CircuitStatus(
            service=circuit.service,
            state=circuit.state,
            failures=circuit.num_failures(),
            retry_in_s=circuit.retry_in_s(self.now()),
            last_error=circuit.last_error,
            cause=cause.what,
            author=cause.author,
            reason=cause.reason,
            is_shared=is_shared(circuit.service),
        )

    def _transitioned(self, transition: Transition) -> None:
        # Called under the circuit's lock: nothing here may wait or call the circuit.
        kind, after = kind_of(transition.service), transition.after
        refuses = after in {CircuitState.OPEN, CircuitState.FORCED_OPEN}
        if not transition.is_adopted:
            if refuses and transition.before is not after:
                metrics.external_service_circuit_open.labels(kind).inc()
            elif after is CircuitState.CLOSED:
                metrics.external_service_circuit_closed.labels(kind).inc()
            if after is not CircuitState.HALF_OPEN:
                self._sharing.changed(transition)
        was_closed, is_closed = transition.before is CircuitState.CLOSED, after is CircuitState.CLOSED
        metrics.circuit_not_closed.labels(kind).inc(was_closed - is_closed)
        cause = transition.cause
        by = f" by {cause.author}" if cause.author else ""
        logger.warning(
            "circuit of %s: %s -> %s (%s%s%s)",
            transition.service,
            transition.before,
            after,
            cause.what,
            f"{by}: {cause.reason}" if cause.reason and after in FORCED | {CircuitState.OPEN} else by,
            ", in another process" if transition.is_adopted else "",
        )


_breaker: Breaker | None = None
_breaker_lock = threading.Lock()


def get_breaker() -> Breaker:
    """Return this process's breaker, which shares its states through the floor's Valkey."""
    global _breaker
    if _breaker is not None:
        return _breaker
    with _breaker_lock:
        if _breaker is None:
            breaker = Breaker(load_section(BreakerSettings))
            redis_url = Settings.load().redis_url
            if redis_url:
                from cluster.breaker_redis import RedisSharing  # the core knows no network unless one is configured

                breaker.share(RedisSharing(redis_url, breaker, breaker.settings.sync_interval_s, _announce))
            _breaker = breaker
        return _breaker


def _announce(service: str, state: SharedState, key: str) -> None:
    module, _, function = names.CIRCUIT_NOTICES.partition(":")
    getattr(importlib.import_module(module), function)(service, state, key)


def external_service_call(service: str, timeout: float = DEFAULT_TIMEOUT_S) -> GuardedCall:
    """Guard a call of ``service``; the seed's name for ``get_breaker().call(...)``."""
    return get_breaker().call(service, timeout_s=timeout)


def is_open(service: str) -> bool:
    """Tell whether a call of ``service`` would be refused now."""
    return get_breaker().is_open(service)
