"""Broadcasts by calls to the hub's actor, for processes inside Ray.

Knows no buffer and no retry beyond those of the client.
"""

from collections.abc import Sequence

import ray
from ray.exceptions import RayError

from realtime.errors import HubUnavailableError, TransportError
from realtime.hub_client import HubClient
from realtime.publication import Draft


class HubTransport:
    """Transport over one ``HubClient``."""

    name = "hub"

    def __init__(self, client: HubClient) -> None:
        self._client = client

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> None:
        # A call after ray.shutdown() would start a cluster of its own (auto-init).
        if not ray.is_initialized():
            raise TransportError(self.name, "ray_is_down", False)
        try:
            self._client.publish_sync(drafts, timeout_s, batch=batch)
        except HubUnavailableError as error:
            raise TransportError(self.name, "unreachable", False) from error
        except RayError as error:
            raise TransportError(self.name, "refused", False) from error

    def close(self) -> None:
        """Nothing to release: the handle belongs to Ray."""
