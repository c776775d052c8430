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

    name: str

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> None:
        """Return when the hub has confirmed ``drafts``.

        Raises:
            TransportError: not confirmed; ``is_final`` says whether repeating can help.
        """
        ...

    def close(self) -> None:
        """Release connections; the transport is not used afterwards."""
        ...


def open_transport(settings: Settings) -> Transport:
    """Return the hub's actor inside a Ray program, and the HTTP API everywhere else.

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
