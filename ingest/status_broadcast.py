"""What the dashboards are told about ingest: its status once a second, and when it stops or goes on.

Called on the service's own tick; never waits. Invariant: an outage is told once when it
begins and once when it is over.
"""

import dataclasses

from cluster import names
from ingest.ingest_service import IngestStatus
from realtime.broadcaster import Broadcaster
from realtime.messages import MessageType


class StatusBroadcast:
    """Tells the NOC; remembers only whether ingest was blocked."""

    def __init__(self, broadcaster: Broadcaster, *, component: str = names.INGEST) -> None:
        """Prepare.

        Args:
            component: which ingest actor this is; the first one tells the floor's figures, the others outages only.
        """
        self._broadcaster = broadcaster
        self._component = component
        self._was_blocked = False

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
