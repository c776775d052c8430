"""A named actor as its clients see it: calls with timeouts and our errors.

Every ``*_client.py`` is built on it; it knows no actor. Invariant: no call waits without
a bound, and what leaves this file is our errors only.
"""

import asyncio
import itertools
import random
import threading
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from cluster import names
from cluster.errors import ClusterError, ServiceUnavailableError

BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 1.0


class ActorLink:
    """A named actor as its clients see it: calls with timeouts and our errors.

    The handle is looked up once and kept, because a look-up blocks while the GCS is down;
    only an actor that died for good is looked up again.
    """

    def __init__(self, name: str, handle: Any = None) -> None:
        self.name = name
        self._handle = handle
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (ActorLink, (self.name, self._handle))

    def connect(self) -> "ActorLink":
        """Look the actor up now.

        Raises:
            ServiceUnavailableError: there is no such actor.
        """
        self._resolve()
        return self

    def call(self, method: str, *args: Any, timeout_s: float, patience_s: float = 0.0, **kwargs: Any) -> Any:
        """Call ``method`` and wait; from a thread, never from an event loop.

        Args:
            timeout_s: for one answer.
            patience_s: how long to call again while the actor is away; for calls that may be repeated.

        Raises:
            ServiceUnavailableError: no answer in time, or the actor is away; it may have acted.
            ClusterError: what the method raised.
        """
        give_up_at_s = time.monotonic() + patience_s
        for attempt in itertools.count():
            try:
                return ray.get(self._submit(method, args, kwargs), timeout=timeout_s)
            except (RayError, ServiceUnavailableError) as error:
                time.sleep(self._delay_s(error, attempt, give_up_at_s))
        raise AssertionError("a call either returns or raises")

    async def acall(self, method: str, *args: Any, timeout_s: float, patience_s: float = 0.0, **kwargs: Any) -> Any:
        """``call`` on the running event loop."""
        give_up_at_s = time.monotonic() + patience_s
        for attempt in itertools.count():
            try:
                # The first look-up, and the one after a death, may block: not on the loop.
                if self._handle is None:
                    await asyncio.to_thread(self._resolve)
                return await asyncio.wait_for(self._submit(method, args, kwargs), timeout_s)
            except TimeoutError as error:
                raise ServiceUnavailableError(self.name, "its actor", f"no answer within {timeout_s:g} s") from error
            except (RayError, ServiceUnavailableError) as error:
                await asyncio.sleep(self._delay_s(error, attempt, give_up_at_s))
        raise AssertionError("a call either returns or raises")

    def cast(self, method: str, *args: Any) -> None:
        """Call ``method`` without waiting; a failure is not heard of.

        Raises:
            ServiceUnavailableError: the actor cannot be found.
        """
        self._submit(method, args, {})

    def _submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handle = self._handle or self._resolve()
        return getattr(handle, method).remote(*args, **kwargs)

    def _resolve(self) -> Any:
        with self._lock:
            if self._handle is None:
                if not ray.is_initialized():
                    raise ServiceUnavailableError(self.name, "its actor", "this process is not connected to Ray")
                try:
                    self._handle = ray.get_actor(self.name, namespace=names.NAMESPACE)
                except (ValueError, RayError) as error:
                    raise ServiceUnavailableError(self.name, "its actor", ray_reason(error)) from error
            return self._handle

    def _delay_s(self, error: RayError | ServiceUnavailableError, attempt: int, give_up_at_s: float) -> float:
        """Return the wait before the next try, with full jitter so that callers do not come back together.

        Raises:
            ClusterError: there is no next try.
        """
        failure = self._translated(error) if isinstance(error, RayError) else error
        delay_s = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt))  # noqa: S311 - no secret
        if isinstance(failure, ServiceUnavailableError) and time.monotonic() + delay_s < give_up_at_s:
            return delay_s
        raise failure from (None if failure is error else error)

    def _translated(self, error: RayError) -> ClusterError:
        if isinstance(error, RayTaskError):
            cause = error.cause
            if isinstance(cause, ClusterError):
                return cause
            raise error
        if isinstance(error, ActorDiedError):
            self._handle = None
        return ServiceUnavailableError(self.name, "its actor", ray_reason(error))


def ray_reason(error: BaseException) -> str:
    """Return in a few words why Ray could not do it."""
    if isinstance(error, GetTimeoutError):
        return "no answer in time"
    if isinstance(error, ActorUnavailableError):
        return "it is restarting or out of reach"
    if isinstance(error, RayActorError):
        return "it died"
    return (str(error).splitlines() or [type(error).__name__])[0]
