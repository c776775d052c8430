"""Circuits of all processes kept equal through Redis or Valkey.

Nothing here is on the path of a call that a closed circuit lets pass: states travel on
transitions, by a thread that also reads the others' once a second; only a probe asks the
store, for its lease. Invariants: a state replaces the one its process had seen, never a
newer one (generations), and an operator's word replaces any; of all processes one is the
author of a change and announces it; while the store is away each process goes on alone, and
what it decided meanwhile is told when the store is back. Circuits of stores are never shared
(``circuit_policies.py``).
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from cluster.circuit import Cause, CircuitState, SharedState, Transition
from cluster.circuit_policies import is_shared
from cluster.ids import new_id

if TYPE_CHECKING:
    from cluster.breaker import Breaker

logger = logging.getLogger(__name__)

CIRCUITS_KEY = "wf:circuits"
LEASE_KEY = "wf:circuit-probe:{service}:{generation}"
STORE_TIMEOUT_S = 0.5
DEFAULT_INTERVAL_S = 1.0
UNSHARED_BUCKET_S = 60
"""Processes that see a store go away within the same minute announce it together once."""

Announce = Callable[[str, SharedState, str], None]
"""Told of each change of a circuit once in the floor: service, its new state, an idempotency key."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A circuit as the store has it."""

    generation: int
    state: SharedState

    @classmethod
    def of(cls, told: str) -> "_Known":
        found: dict[str, Any] = json.loads(told)
        cause = Cause(found.get("cause", ""), found.get("author", ""), found.get("reason", ""))
        state = SharedState(state=CircuitState(found["state"]), remaining_s=found["remaining_ms"] / 1000, cause=cause)
        return cls(int(found["generation"]), state)


class RedisSharing:
    """The ``CircuitSharing`` of a floor with a Redis or Valkey."""

    def __init__(
        self,
        url: str,
        breaker: "Breaker",
        interval_s: float = DEFAULT_INTERVAL_S,
        announce: Announce | None = None,
    ) -> None:
        self._store = redis.Redis.from_url(
            url, socket_timeout=STORE_TIMEOUT_S, socket_connect_timeout=STORE_TIMEOUT_S, decode_responses=True
        )
        self._transition = self._store.register_script(_lua("breaker_transition"))
        self._states = self._store.register_script(_lua("breaker_states"))
        self._lease = self._store.register_script(_lua("breaker_lease"))
        self._return = self._store.register_script(_lua("breaker_return"))
        self._breaker = breaker
        self._interval_s = interval_s
        self._announce = announce
        # Unique per process: a ticket is a number of this process only.
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{new_id()}"
        self._generations: dict[str, int] = {}
        self._changed: set[str] = set()
        self._telling: set[str] = set()
        self._unshared_changed: set[str] = set()
        self._told = threading.Condition()
        self._adopt_lock = threading.Lock()
        self._wake = threading.Event()
        self._synced = threading.Event()
        self._stopped = False
        self._away = False
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def changed(self, transition: Transition) -> None:
        """Spread a circuit's new state, soon and in the background."""
        service = transition.service
        self._start()
        with self._told:
            (self._changed if is_shared(service) else self._unshared_changed).add(service)
        self._wake.set()

    def wait_told(self, service: str) -> bool:
        """Wait until a changed state was spread; False when it could not be for now."""
        with self._told:
            return self._told.wait_for(lambda: service not in self._changed | self._telling, 2 * STORE_TIMEOUT_S)

    def wait_synced(self) -> None:
        """Return once the others' states have been read, or cannot be for now."""
        self._start()
        if threading.current_thread() is not self._thread:
            self._synced.wait(STORE_TIMEOUT_S)

    def lease_probe(self, service: str, ticket: int, permit_s: float) -> bool:
        """Ask to be the one process that probes; with the store away each process may."""
        if not is_shared(service):
            return True
        generation = self._generations.get(service, 0)
        key = LEASE_KEY.format(service=service, generation=generation)
        try:
            granted, told = self._lease(
                keys=[CIRCUITS_KEY, key],
                args=[service, generation, self._token(ticket), int(permit_s * 1000)],
            )
        except redis.RedisError as error:
            self._note_away(error)
            return True
        if not granted and told:
            self._adopt(service, _Known.of(told))
        return bool(granted)

    def return_probe(self, service: str, ticket: int) -> None:
        """Give the probe back unused."""
        if not is_shared(service):
            return
        key = LEASE_KEY.format(service=service, generation=self._generations.get(service, 0))
        try:
            self._return(keys=[key], args=[self._token(ticket)])
        except redis.RedisError as error:
            self._note_away(error)

    def close(self) -> None:
        """Stop sharing; for tests and for the end of a process."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * STORE_TIMEOUT_S + self._interval_s)
        self._store.close()

    def _start(self) -> None:
        # At the first question: a process that only ever guards its stores reads nobody's states once a second.
        with self._start_lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="breaker-sync", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                self._announce_unshared()
                self._tell()
                self._read()
                if self._away:
                    logger.warning("circuits are shared again")
                self._away = False
            except redis.RedisError as error:
                self._note_away(error)
            except Exception:
                # A thread that ended here would leave this process alone without a word.
                logger.exception("circuits could not be shared")
            self._synced.set()
            self._wake.wait(self._interval_s)

    def _tell(self) -> None:
        with self._told:
            self._changed, self._telling = set(), self._changed | self._telling
        try:
            for service in sorted(self._telling):
                self._tell_one(service)
                with self._told:
                    self._telling.discard(service)
                    self._told.notify_all()
        finally:
            with self._told:  # after an error: told again once the store is back
                self._changed, self._telling = self._changed | self._telling, set()

    def _tell_one(self, service: str) -> None:
        mine = self._breaker.shared_state(service)
        seen, remaining_ms, cause = self._generations.get(service, 0), int(mine.remaining_s * 1000), mine.cause
        moved, told = self._transition(
            keys=[CIRCUITS_KEY],
            args=[service, seen, mine.state.value, remaining_ms, cause.what, cause.author, cause.reason],
        )
        known = _Known.of(told)
        if moved:
            self._generations[service] = known.generation
            self._say(service, known.state, f"circuit:{service}:{known.generation}")
        else:
            self._adopt(service, known)

    def _read(self) -> None:
        flat: list[str] = self._states(keys=[CIRCUITS_KEY])
        for service, told in zip(*[iter(flat)] * 2, strict=True):
            # A state of our own that is not told yet will be compared there, not overwritten here.
            if service not in self._changed:
                self._adopt(service, _Known.of(told))

    def _adopt(self, service: str, known: _Known) -> None:
        with self._adopt_lock:
            if known.generation <= self._generations.get(service, 0):
                return
            self._generations[service] = known.generation
        self._breaker.adopt(service, known.state)

    def _announce_unshared(self) -> None:
        with self._told:
            services, self._unshared_changed = self._unshared_changed, set()
        for service in services:
            state = self._breaker.shared_state(service)
            bucket = int(time.time() // UNSHARED_BUCKET_S)
            self._say(service, state, f"circuit:{service}:{state.state}:{bucket}")

    def _say(self, service: str, state: SharedState, key: str) -> None:
        if self._announce is None:
            return
        try:
            self._announce(service, state, key)
        except Exception:  # whoever listens must not keep the states from being shared
            logger.exception("a change of the circuit of %s could not be announced", service)

    def _token(self, ticket: int) -> str:
        return f"{self._holder}:{ticket}"

    def _note_away(self, error: redis.RedisError) -> None:
        if not self._away:
            logger.warning("circuits are not shared while the store is away: %s", error)
        self._away = True


def _lua(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text(encoding="utf-8")
