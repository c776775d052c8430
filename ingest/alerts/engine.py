"""Turns what devices and detectors report into alerts and events, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection, Engine

from cluster.clock import Clock
from ingest.alerts.model import EventRef
from ingest.payload import DeviceAlert


class AlertEngine:
    """Interface first; the body follows."""

    def __init__(self, engine: Engine, clock: Clock) -> None: ...

    def raise_device_alerts(
        self, alerts: Sequence[DeviceAlert], connection: Connection | None = None
    ) -> list[EventRef]:
        """Commit alerts sent by devices; a redelivered one (same reading key) changes nothing.

        Args:
            connection: an open ``write_transaction`` to join; None: one of its own.
        """
        raise NotImplementedError

    def mark_stale(
        self, tenant: str, device_id: str, reason: str, connection: Connection | None = None
    ) -> list[EventRef]:
        """The device's link is lost: its firing alerts become stale (never resolved)."""
        raise NotImplementedError
