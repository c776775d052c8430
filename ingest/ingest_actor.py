"""The floor's ingest as named Ray actors: each builds the service, its relay and its broadcasts.

Ray shell: it decides nothing. Killed at any moment, Ray starts it again with the same client
id, so the broker sends what was not acknowledged; the relay publishes what was committed and
not yet told. Invariant: one for each number, and as many as the settings say.
"""

import dataclasses
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster import names
from cluster.actors import configure_process, get_or_create, prepare_to_serve
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from ingest.alerts.relay import Relay
from ingest.alerts.settings import AlertSettings
from ingest.archive import ArchiveSettings, ArchiveStore
from ingest.command_desk import CommandDesk
from ingest.command_store import CommandSettings
from ingest.floor_stores import sql_stores, telemetry_stores
from ingest.inbox import MqttSettings
from ingest.ingest_service import IngestService
from ingest.ingest_settings import IngestSettings
from ingest.mqtt_address import MqttAddress
from ingest.status_broadcast import StatusBroadcast
from ingest.store_bounds import StoresSettings
from ingest.store_watch import StoreWatch
from ingest.telemetry_redis import TelemetrySettings, TelemetryStream
from realtime.hub_client import HubClient
from realtime.process_broadcaster import get_broadcaster

logger = logging.getLogger(__name__)

READY_S = 10.0
CALLS_AT_ONCE = 4
"""``status`` and ``ready`` must answer while another call waits."""


class IngestActor:
    """Ray shell of ``IngestService``."""

    def __init__(self, settings: Settings, index: int = 0) -> None:
        configure_process("ingest")
        engine = open_engine(settings.database_url)
        self._broadcaster = get_broadcaster()
        hub = HubClient.connect()
        self._relay = Relay(engine, hub)
        self._desk = CommandDesk(engine, hub, settings.topic_root, load_section(CommandSettings))
        stream = TelemetryStream.open(settings.redis_url, load_section(TelemetrySettings))
        bounds = load_section(StoresSettings)
        archive = ArchiveStore(settings.storage_url)
        self._stores = StoreWatch(
            sql_stores(engine, bounds) + telemetry_stores(stream, archive, load_section(ArchiveSettings), bounds),
            bounds,
            disk=Path(settings.data_dir),
        )
        self._service = IngestService(
            address=MqttAddress.parse(settings.mqtt_url),
            topic_root=settings.topic_root,
            engine=engine,
            stream=stream,
            settings=load_section(IngestSettings),
            mqtt=load_section(MqttSettings),
            stores=self._stores,
            on_alerts=_nothing,
            on_tick=StatusBroadcast(self._broadcaster, component=_name(index)).on_tick,
            alerts=load_section(AlertSettings),
            on_answers=self._desk.wake,
            outbox=self._relay,
            index=index,
        )
        self._relay.start()
        self._desk.start()
        self._stores.start()
        self._service.start()
        # An alert goes from the network's thread to its lane's and to the relay's.
        prepare_to_serve()

    def ready(self) -> bool:
        """Return once the broker keeps messages for us, or False when it is away; ingest goes on trying.

        What a broker accepts before anybody has subscribed it throws away, so whoever starts
        devices waits for this.
        """
        return self._service.wait_subscribed(READY_S)

    def status(self) -> dict[str, Any] | None:
        """Return ``IngestStatus`` as a plain object, with the process id; None in the first second."""
        status = self._service.status()
        return {"pid": os.getpid(), **dataclasses.asdict(status)} if status is not None else None

    def stop(self) -> None:
        """Stop receiving; what is not acknowledged stays with the broker."""
        self._service.stop()
        self._stores.close()
        self._relay.close()
        self._desk.close()
        self._broadcaster.flush(1.0)


def _nothing() -> None:
    """The relay was told already."""


def get_or_create_ingest(settings: Settings) -> list[Any]:
    """Return the handles of the floor's ingest actors, starting those that nobody has.

    As many as the settings say, which hold as long as the floor's Ray. What the broker keeps for
    one that there was and is no more, the first actor stores (see ``drain.py``).
    """
    actors = load_section(IngestSettings).actors
    with ThreadPoolExecutor(max_workers=actors, thread_name_prefix="ingest") as pool:
        return list(pool.map(lambda index: _get_or_create(settings, index), range(actors)))


def _get_or_create(settings: Settings, index: int) -> Any:
    return get_or_create(IngestActor, settings, index, name=_name(index), max_concurrency=CALLS_AT_ONCE)


def _name(index: int) -> str:
    return names.INGEST_ACTOR.format(index=index)
