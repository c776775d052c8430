"""Broadcasts by the hub's socket, or by calls to its actor, for processes inside Ray.

On the socket several batches are under way at a time; the actor confirms one after the
other. Knows no buffer and no retry beyond those of the client. Invariant: the hub gets the
batches in the order of the calls, whichever way each of them takes.
"""

from collections import deque
from collections.abc import Sequence

import ray
from ray.exceptions import RayError

from realtime import wire
from realtime.errors import HubRefusedError, HubUnavailableError, TransportError
from realtime.hub_client import HubClient
from realtime.hub_connection_socket import BlockingConnection
from realtime.publication import Draft


class HubTransport:
    """Transport over one ``HubClient``."""

    def __init__(self, client: HubClient) -> None:
        self._client = client
        self._pipe: BlockingConnection | None = None
        self._under_way: deque[_Batch] = deque()

    @property
    def name(self) -> str:
        """The way of the next batch."""
        return "actor" if self._pipe is None else "socket"

    @property
    def never_blocks_when_idle(self) -> bool:
        """True on the socket: it has taken and answered all that was sent before."""
        return self._pipe is not None

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        """See ``Transport.send``."""
        # A call after ray.shutdown() would start a cluster of its own (auto-init).
        if not ray.is_initialized():
            raise TransportError(self.name, "ray_is_down", False)
        try:
            if self._pipe is None:
                self._pipe = self._client.open_pipe(timeout_s)
            if self._pipe is None:
                self._client.publish_sync(drafts, timeout_s, batch=batch)
                return 1
            self._send_on(self._pipe, _Batch(batch, drafts), timeout_s)
        except (HubUnavailableError, ConnectionError, TimeoutError) as error:
            raise TransportError(self.name, "unreachable", False) from error
        except RayError as error:
            raise TransportError(self.name, "refused", False) from error
        return self._confirmed()

    def fileno(self) -> int:
        """See ``Transport.fileno``."""
        assert self._pipe is not None
        return self._pipe.fileno()

    def confirm(self, timeout_s: float) -> int:
        """See ``Transport.confirm``."""
        assert self._pipe is not None
        try:
            self._hear(self._pipe, timeout_s)
        except (HubUnavailableError, ConnectionError, TimeoutError) as error:
            raise TransportError(self.name, "unreachable", False) from error
        except RayError as error:
            raise TransportError(self.name, "refused", False) from error
        return self._confirmed()

    def close(self) -> None:
        """See ``Transport.close``."""
        if self._pipe is not None:
            self._pipe.close()

    def _confirmed(self) -> int:
        confirmed = 0
        while self._under_way and self._under_way[0].is_confirmed:
            self._under_way.popleft()
            confirmed += 1
        return confirmed

    def _send_on(self, pipe: BlockingConnection, batch: "_Batch", timeout_s: float) -> None:
        try:
            batch.number = pipe.begin("publish", (batch.name, wire.write_drafts(batch.drafts)), timeout_s)
            self._under_way.append(batch)
        except HubRefusedError:
            # Larger than a frame. Those before it must have arrived, for the actor could be faster.
            while not all(earlier.is_confirmed for earlier in self._under_way):
                self._hear(pipe, timeout_s)
            self._under_way.append(batch)
            self._publish_by_actor(batch, timeout_s)

    def _hear(self, pipe: BlockingConnection, timeout_s: float) -> None:
        for number, _, reason in pipe.replies(timeout_s):
            for batch in self._under_way:
                if batch.number == number:
                    if reason is not None:
                        self._publish_by_actor(batch, timeout_s)
                    else:
                        self._client.calls["socket"] += 1
                        batch.is_confirmed = True

    def _publish_by_actor(self, batch: "_Batch", timeout_s: float) -> None:
        self._client.publish_sync(batch.drafts, timeout_s, batch=batch.name)
        batch.is_confirmed = True


class _Batch:
    """A batch that was sent."""

    def __init__(self, name: str, drafts: Sequence[Draft]) -> None:
        self.name = name
        self.drafts = drafts
        self.number = 0
        self.is_confirmed = False
