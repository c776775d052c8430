"""What the dashboards are told about ingest: its status once a second, when it stops or goes on, full stores.

Called on the service's own tick; never waits. Invariant: an outage is told once when it
begins and once when it is over, and a store once at each level that it reaches.
"""

import dataclasses

from cluster import names
from ingest.ingest_status import IngestStatus
from ingest.store_bounds import Level, StoreReport
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType


class StatusBroadcast:
    """Tells the NOC; remembers only whether ingest was blocked, and where the stores stood."""

    def __init__(self, broadcaster: Broadcaster, *, component: str = names.INGEST) -> None:
        """Prepare.

        Args:
            component: which ingest actor this is; the first one tells the floor's figures, the others outages only.
        """
        self._broadcaster = broadcaster
        self._component = component
        self._was_blocked = False
        self._levels: dict[str, Level] = {}

    def on_tick(self, status: IngestStatus) -> None:
        """Broadcast one status."""
        if self._component == names.INGEST:
            # Latest-only: once a second, they would push the alerts out of the channel's history.
            self._broadcaster.publish(
                names.CHANNEL_NOC,
                MessageType.INGEST_STATUS,
                dataclasses.asdict(status),
                priority="progress",
                coalesce_key=names.INGEST,
            )
        is_blocked = bool(status.blocked)
        if is_blocked != self._was_blocked:
            self._was_blocked = is_blocked
            text = "ingest stopped acknowledging" if is_blocked else "ingest goes on"
            component = "ingest" if self._component == names.INGEST else self._component
            data = {"component": component, "message": text, "blocked": status.blocked}
            self._broadcaster.broadcast_to_noc_dashboard(
                MessageType.SYSTEM_ALERT, data, priority="high" if is_blocked else "normal"
            )
        for store, found in status.stores.items():
            before = self._levels.get(store, Level.OK)
            self._levels[store] = found.level
            if found.level is not before:
                self._tell(store, found, status.blocked)

    def _tell(self, store: str, found: StoreReport, blocked: dict[str, str]) -> None:
        text = found.text or f"store {store} has room again"
        data = {"component": f"store {store}", "message": text, "blocked": blocked}
        priority = "normal" if found.level is Level.OK else "high"
        self._broadcaster.broadcast_to_noc_dashboard(MessageType.SYSTEM_ALERT, data, priority=priority)
