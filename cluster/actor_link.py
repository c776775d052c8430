"""A named actor as its clients see it: calls with timeouts and our errors.

Every ``*_client.py`` is built on it; it knows no actor. Invariant: no call waits without
a bound, and what leaves this file is our errors only.
"""

import asyncio
import threading
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from cluster import names
from cluster.errors import ClusterError, ServiceUnavailableError


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

    def call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """Call ``method`` and wait; from a thread, never from an event loop.

        Raises:
            ServiceUnavailableError: no answer in time, or the actor is away; it may have acted.
            ClusterError: what the method raised.
        """
        try:
            return ray.get(self._submit(method, args, kwargs), timeout=timeout_s)
        except RayError as error:
            raise self._translated(error) from error

    async def acall(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """Call ``method`` and wait for it on the running event loop.

        Raises:
            ServiceUnavailableError: no answer in time, or the actor is away; it may have acted.
            ClusterError: what the method raised.
        """
        try:
            # The first look-up, and the one after a death, may block: not on the loop.
            if self._handle is None:
                await asyncio.to_thread(self._resolve)
            return await asyncio.wait_for(self._submit(method, args, kwargs), timeout_s)
        except TimeoutError as error:
            raise ServiceUnavailableError(self.name, "its actor", f"no answer within {timeout_s:g} s") from error
        except RayError as error:
            raise self._translated(error) from error

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
