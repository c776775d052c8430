"""The way a process's broadcasts take to the hub.

A Protocol and the choice between its implementations; neither buffers nor retries.
"""

import sys
from collections.abc import Sequence
from typing import Protocol

from cluster.settings import Settings
from realtime.errors import HubNotFoundError, TransportError
from realtime.publication import Draft


class Transport(Protocol):
    """Delivers batches to the hub, in order.

    Idempotent: a batch sent again under the same name is published once, whether or not
    the first attempt arrived. Used by one thread at a time.
    """

    @property
    def name(self) -> str:
        """The way, in a word."""
        ...

    @property
    def never_blocks_when_idle(self) -> bool:
        """True: ``send`` of a small batch returns at once while nothing is under way."""
        ...

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        """Hand ``drafts`` over; returns how many of the oldest batches under way are confirmed, this one included.

        Raises:
            TransportError: not confirmed; ``is_final`` says whether repeating can help.
        """
        ...

    def fileno(self) -> int:
        """Return what becomes readable when a confirmation comes; asked only while one is awaited."""
        ...

    def confirm(self, timeout_s: float) -> int:
        """Return how many of the oldest batches under way are newly confirmed, once there is something to read.

        Raises:
            TransportError: nothing that is under way can be confirmed any more.
        """
        ...

    def close(self) -> None:
        """Release connections; the transport is not used afterwards."""
        ...


def open_transport(settings: Settings) -> Transport:
    """Return the hub's socket or actor inside a Ray program, and the HTTP API everywhere else.

    Raises:
        TransportError: there is no hub, or no address of a floor.
    """
    # Imported only when used: a plain program that broadcasts over HTTP must not pay for
    # Ray (a second and 60 MB), nor a Ray worker for an HTTP client.
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        from realtime.hub_client import HubClient
        from realtime.transport_hub import HubTransport

        try:
            return HubTransport(HubClient.connect())
        except HubNotFoundError as error:
            raise TransportError("hub", "no_hub", False) from error
    if settings.url:
        from realtime.transport_http import HttpTransport

        return HttpTransport(settings.url, settings.token)
    raise TransportError("none", "no_address", False)
