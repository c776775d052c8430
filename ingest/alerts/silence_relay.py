"""Tells the dashboards what became of silences: those whose version they have not been told.

The row is the outbox, as an event is for an alert. Invariant: the key of a publication is
(silence, version, channel), so told twice it is heard once.
"""

from sqlalchemy import Engine, select, update

from cluster.clock import Clock, SystemClock
from cluster.store import read_transaction, write_transaction
from ingest.alerts.active_silences import silence_from_row
from ingest.alerts.silence import Silence, silence_to_json
from ingest.alerts.tables import silences
from realtime import channels
from realtime.hub_client import HubClient
from realtime.messages import MessageType, encode
from realtime.publication import Draft, Priority

LIMIT = 100
PUBLISH_TIMEOUT_S = 5.0


class SilenceRelay:
    """One process' relay; any number of processes may have one."""

    def __init__(self, engine: Engine, hub: HubClient, clock: Clock | None = None) -> None:
        self._engine = engine
        self._hub = hub
        self._clock = clock or SystemClock()

    def publish_pending(self) -> int:
        """Publish what was not told yet, oldest first; return how many silences.

        Raises:
            HubUnavailableError: not confirmed; all stay pending.
        """
        is_pending = silences.c.told_version < silences.c.version
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(silences).where(is_pending).order_by(silences.c.id).limit(LIMIT)).all()
        if not rows:
            return 0
        found = [silence_from_row(row) for row in rows]
        self._hub.publish_sync([draft for one in found for draft in self._drafts(one)], timeout_s=PUBLISH_TIMEOUT_S)
        with write_transaction(self._engine) as connection:
            for one in found:
                connection.execute(
                    update(silences)
                    .where(silences.c.id == one.id, silences.c.told_version < one.version)
                    .values(told_version=one.version)
                )
        return len(found)

    def _drafts(self, silence: Silence) -> list[Draft]:
        data = {"silence": silence_to_json(silence, self._clock.time_s())}
        encoded = encode(MessageType.SILENCE_UPDATE, data, Priority.NORMAL, self._clock)
        told = [channels.NOC_ALL] + ([] if silence.tenant is None else [channels.tenant(silence.tenant)])
        return [Draft(one, encoded, key=f"silence:{silence.id}:{silence.version}:{one}") for one in told]
