"""Ray shell of the hub: turns calls into ``HubService`` operations, decides nothing.

One named, detached, asynchronous actor per floor. Invariant: it serves only after its
journal has been loaded, at the first start and after every restart.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cluster import actors, names
from cluster.errors import SettingsError
from cluster.settings import Settings, load_section
from cluster.socket_folder import socket_folder
from realtime import wire
from realtime.behind_marker import BehindMarker
from realtime.book_metrics import BOOKS
from realtime.books import Book
from realtime.hub_client import HubClient
from realtime.hub_metrics import HubMetrics
from realtime.hub_service import HubService
from realtime.hub_socket import HubSocket
from realtime.journal_cipher import ChannelKey, JournalCipher, parse_keys
from realtime.journal_redis import RedisJournal
from realtime.publication import StreamPosition
from realtime.replies import Cursor, HubStats
from realtime.settings import HubSettings

logger = logging.getLogger(__name__)

METRICS_INTERVAL_S = 1.0


class HubActor:
    """The floor's hub. Methods take and return the plain values of ``realtime.wire``."""

    def __init__(
        self, settings: HubSettings, redis_url: str, state_dir: str, channel_keys: tuple[ChannelKey, ...] = ()
    ) -> None:
        self._settings = settings
        self._redis_url = redis_url
        self._state_dir = Path(state_dir)
        self._cipher = JournalCipher(channel_keys)
        # Made by the first call: a constructor of an async actor has no loop yet.
        self._starting: asyncio.Task[HubService] | None = None
        self._service: HubService | None = None
        self._socket: HubSocket | None = None
        self._calls = 0

    async def ready(self) -> None:
        """Return when the hub serves."""
        await self._started()

    async def socket_address(self) -> tuple[str, bytes] | None:
        """Return path and secret of the hub's socket; None when it has none."""
        await self._started()
        return None if self._socket is None else (self._socket.address.path, self._socket.address.secret)

    async def publish(self, batch: str, drafts: Sequence[wire.WireDraft]) -> list[wire.WirePosition]:
        """See ``HubService.publish``."""
        service = await self._serving()
        return wire.write_positions(await service.publish(wire.read_drafts(drafts), batch))

    async def poll(
        self, cursor: wire.WirePosition | None, timeout_s: float, wish: wire.WireWish | None = None
    ) -> wire.WirePoll:
        """See ``HubService.poll``."""
        service = await self._serving()
        place = None if cursor is None else Cursor(*cursor)
        return wire.write_poll(await service.poll(place, timeout_s, wire.read_wish(wish)))

    async def history(
        self, channel: str, since: wire.WirePosition | None, limit: int, asker: wire.WireAsker | None = None
    ) -> wire.WireHistory:
        """See ``HubService.history``."""
        service = await self._serving()
        position = None if since is None else StreamPosition(*since)
        return wire.write_history(service.history(channel, position, limit, wire.read_asker(asker)))

    async def positions(
        self, channels: Sequence[str], asker: wire.WireAsker | None = None
    ) -> dict[str, wire.WirePosition]:
        """See ``HubService.positions``."""
        service = await self._serving()
        found = service.positions(channels, wire.read_asker(asker))
        return {channel: wire.write_position(position) for channel, position in found.items()}

    async def remove_history(self, channel: str) -> wire.WirePosition:
        """See ``HubService.remove_history``."""
        service = await self._serving()
        return wire.write_position(service.remove_history(channel))

    async def report(self, report: wire.WireReport) -> bool:
        """See ``HubService.report``."""
        service = await self._serving()
        return service.report(wire.read_report(report))

    async def presence(self, channel: str, limit: int) -> wire.WirePresence:
        """See ``HubService.presence``."""
        service = await self._serving()
        return wire.write_presence(service.presence(channel, limit))

    async def present_channels(self, pattern: str, limit: int) -> dict[str, int]:
        """See ``HubService.present_channels``."""
        service = await self._serving()
        return service.present_channels(pattern, limit)

    async def gateways(self) -> list[wire.WireFigures]:
        """See ``HubService.gateways``."""
        service = await self._serving()
        return [wire.write_figures(figures) for figures in service.gateways()]

    async def stats(self) -> HubStats:
        """See ``HubService.stats``; also tells how many calls came which way."""
        return self._stats(await self._started())

    async def _serving(self) -> HubService:
        self._calls += 1
        return self._service or await self._started()

    def _stats(self, service: HubService) -> HubStats:
        served = self._socket
        if served is None:
            return replace(service.stats(), calls_by_way={"actor": self._calls})
        return replace(
            service.stats(),
            calls_by_way={"actor": self._calls, "socket": served.calls_total},
            connections=len(served.peers),
            connections_ended=dict(served.closed),
        )

    async def _started(self) -> HubService:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="hub-start")
        try:
            return await asyncio.shield(self._starting)
        except Exception:
            # Whoever waited hears of it; the next call tries again.
            self._starting = None
            raise

    async def _start(self) -> HubService:
        await asyncio.to_thread(actors.configure_process, "hub")
        settings = self._settings
        owner = socket.gethostname()
        journal = (
            RedisJournal(self._redis_url, owner, settings.journal_timeout_s, self._cipher) if self._redis_url else None
        )
        service = HubService(settings, journal, BehindMarker(self._state_dir), owner)
        await service.start()
        self._socket = await self._listen(service)
        self._watching = [
            asyncio.create_task(self._export_forever(service), name="hub-metrics"),
            asyncio.create_task(_die_when_fenced(service), name="hub-fence"),
        ]
        actors.prepare_to_serve()
        logger.info("hub serves: epoch=%s journal=%s", service.stats().epoch, service.stats().journal)
        self._service = service
        return service

    async def _listen(self, service: HubService) -> HubSocket | None:
        try:
            served = HubSocket(service, await asyncio.to_thread(socket_folder, self._state_dir.parent))
            await served.open()
        except OSError as error:
            logger.warning("the hub serves by its actor only, it cannot listen on a socket: %s", error)
            return None
        return served

    async def _export_forever(self, service: HubService) -> None:
        exported = HubMetrics()
        books: dict[str, Book] = {}
        while True:
            exported.update(self._stats(service))
            # Made on this loop, between two appends; the pusher's thread takes what is there.
            books.update(service.books())
            for name in books:
                BOOKS.keep(name, partial(books.__getitem__, name))
            await asyncio.sleep(METRICS_INTERVAL_S)


def get_or_create_hub(settings: Settings) -> HubClient:
    """Return a client of the floor's one hub, starting it when nobody has; blocks until it serves.

    Raises:
        ServiceUnavailableError: it did not start in time.
        SettingsError: a setting of the hub cannot be used.
    """
    state_dir = str(Path(settings.data_dir).absolute() / "hub")
    try:
        keys = parse_keys(settings.channel_keys)
    except ValueError as error:
        raise SettingsError("CHANNEL_KEYS", "", str(error)) from error
    handle = actors.get_or_create(
        HubActor,
        load_section(HubSettings),
        settings.redis_url,
        state_dir,
        keys,
        name=names.HUB,
        max_concurrency=2_000,
    )
    return HubClient(handle)


async def _die_when_fenced(service: HubService) -> None:
    await service.is_fenced.wait()
    # No way out of an async actor from a background task but this one; Ray starts the
    # next life of the actor, which loads the journal.
    os._exit(1)
