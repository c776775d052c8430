"""Circuits of all processes kept equal through Redis or Valkey.

Nothing here is on the path of a call that a closed circuit lets pass: states travel on
transitions, by a thread that also reads the others' once a second; only a probe asks the
store, for its lease. Invariants: a state replaces the one its process had seen, never a
newer one (generations); while the store is away each process goes on alone, and what it
decided meanwhile is told when the store is back. The circuit that guards the store
itself (``LOCAL_ONLY``) is never shared.
"""

import logging
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from cluster.circuit import CircuitState, SharedState
from cluster.ids import new_id

if TYPE_CHECKING:
    from cluster.breaker import Breaker

logger = logging.getLogger(__name__)

CIRCUITS_KEY = "wf:circuits"
LEASE_KEY = "wf:circuit-probe:{service}:{generation}"
LOCAL_ONLY = frozenset({"valkey", "redis"})
STORE_TIMEOUT_S = 0.5
DEFAULT_INTERVAL_S = 1.0


class RedisSharing:
    """The ``CircuitSharing`` of a floor with a Redis or Valkey."""

    def __init__(self, url: str, breaker: "Breaker", interval_s: float = DEFAULT_INTERVAL_S) -> None:
        self._store = redis.Redis.from_url(
            url, socket_timeout=STORE_TIMEOUT_S, socket_connect_timeout=STORE_TIMEOUT_S, decode_responses=True
        )
        self._transition = self._store.register_script(_lua("breaker_transition"))
        self._states = self._store.register_script(_lua("breaker_states"))
        self._lease = self._store.register_script(_lua("breaker_lease"))
        self._return = self._store.register_script(_lua("breaker_return"))
        self._breaker = breaker
        self._interval_s = interval_s
        # Unique per process: a ticket is a number of this process only.
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{new_id()}"
        self._generations: dict[str, int] = {}
        self._changed: set[str] = set()
        self._lock = threading.Lock()
        self._adopt_lock = threading.Lock()
        self._wake = threading.Event()
        self._synced = threading.Event()
        self._stopped = False
        self._away = False
        self._thread = threading.Thread(target=self._run, name="breaker-sync", daemon=True)
        self._thread.start()

    def changed(self, service: str) -> None:
        """Spread a circuit's new state, soon and in the background."""
        if service in LOCAL_ONLY:
            return
        with self._lock:
            self._changed.add(service)
        self._wake.set()

    def wait_synced(self) -> None:
        """Return once the others' states have been read, or cannot be for now."""
        self._synced.wait(STORE_TIMEOUT_S)

    def lease_probe(self, service: str, ticket: int, permit_s: float) -> bool:
        """Ask to be the one process that probes; with the store away each process may."""
        if service in LOCAL_ONLY:
            return True
        generation = self._generations.get(service, 0)
        key = LEASE_KEY.format(service=service, generation=generation)
        try:
            granted, seen, state, remaining_ms = self._lease(
                keys=[CIRCUITS_KEY, key],
                args=[service, generation, self._token(ticket), int(permit_s * 1000)],
            )
        except redis.RedisError as error:
            self._note_away(error)
            return True
        if not granted and seen != generation:
            self._adopt(service, seen, state, remaining_ms)
        return bool(granted)

    def return_probe(self, service: str, ticket: int) -> None:
        """Give the probe back unused."""
        if service in LOCAL_ONLY:
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
        self._thread.join(timeout=2 * STORE_TIMEOUT_S + self._interval_s)
        self._store.close()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
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
        with self._lock:
            services = list(self._changed)
        for service in services:
            with self._lock:
                self._changed.discard(service)
            mine = self._breaker.shared_state(service)
            try:
                moved, generation, state, remaining_ms = self._transition(
                    keys=[CIRCUITS_KEY],
                    args=[service, self._generations.get(service, 0), mine.state.value, int(mine.remaining_s * 1000)],
                )
            except redis.RedisError:
                with self._lock:
                    self._changed.add(service)  # told again once the store is back
                raise
            if moved:
                self._generations[service] = generation
            else:
                self._adopt(service, generation, state, remaining_ms)

    def _read(self) -> None:
        flat: list[Any] = self._states(keys=[CIRCUITS_KEY])
        for service, generation, state, remaining_ms in zip(*[iter(flat)] * 4, strict=True):
            # A state of our own that is not told yet will be compared there, not overwritten here.
            if service not in self._changed and generation > self._generations.get(service, 0):
                self._adopt(service, generation, state, remaining_ms)

    def _adopt(self, service: str, generation: int, state: str, remaining_ms: int) -> None:
        with self._adopt_lock:
            if generation <= self._generations.get(service, 0):
                return
            self._generations[service] = generation
        self._breaker.adopt(service, SharedState(state=CircuitState(state), remaining_s=remaining_ms / 1000))

    def _token(self, ticket: int) -> str:
        return f"{self._holder}:{ticket}"

    def _note_away(self, error: redis.RedisError) -> None:
        if not self._away:
            logger.warning("circuits are not shared while the store is away: %s", error)
        self._away = True


def _lua(name: str) -> str:
    return (Path(__file__).parent / "lua" / f"{name}.lua").read_text(encoding="utf-8")
