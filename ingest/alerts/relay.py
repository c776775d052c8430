"""Tells the dashboards what was committed: publishes events whose broadcast_at is NULL."""

from sqlalchemy import Engine

from realtime.hub_client import HubClient


class Relay:
    """Interface first; the body follows."""

    def __init__(self, engine: Engine, hub: HubClient) -> None: ...

    def start(self) -> None:
        """Start the thread: publishes at once, every second, and when woken."""
        raise NotImplementedError

    def wake(self) -> None:
        """Events were just committed; never blocks, any thread or loop."""
        raise NotImplementedError

    def publish_pending(self, limit: int = 500) -> int:
        """One pass, synchronous; returns the events published and marked."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
