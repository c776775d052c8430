"""The replica's ear on ``gateway:all``: what the hub and the other replicas want of it.

Follows the channel like any client, recovery included; what a notice means is its owner's
business. Invariant: each notice is handed over once and in order; one that was lost for
good is logged and counted, never silently skipped.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable

from realtime import notices
from realtime.channels import GATEWAY_ALL
from realtime.publication import Publication, StreamPosition
from serve_apps import gateway_metrics
from serve_apps.errors import FeedUnavailableError
from serve_apps.hub_feed import HubFeed, Ring

logger = logging.getLogger(__name__)

RETRY_S = 1.0


class Control:
    """A follower of the gateways' own channel."""

    def __init__(self, feed: HubFeed, perform: Callable[[notices.Notice], None]) -> None:
        self._feed = feed
        self._perform = perform
        self._position: StreamPosition | None = None
        self._ring: Ring | None = None
        self._lost = asyncio.Event()

    async def run_forever(self) -> None:
        """Follow until cancelled, and again whenever the channel was lost."""
        while True:
            self._lost.clear()
            try:
                await self._follow()
            except FeedUnavailableError as error:
                logger.warning("what the gateways tell each other is not heard: %s", error)
                await asyncio.sleep(random.uniform(0, RETRY_S))  # noqa: S311 -- jitter
                continue
            except Exception:
                # A defect must not leave this replica deaf for good.
                logger.exception("the channel of the gateways could not be followed")
                await asyncio.sleep(random.uniform(0, RETRY_S))  # noqa: S311 -- jitter
                continue
            await self._lost.wait()

    def mark(self, _channel: str, _rank: int) -> None:
        """See ``hub_feed.Follower``: the next ``flush`` reads all there is."""

    def flush(self) -> None:
        """Hand over what came since the last time."""
        if self._ring is not None and self._position is not None:
            self._take(self._ring.after(self._position.offset))

    def lose(self, _channel: str) -> None:
        """Learn that something was lost on the way; ``run_forever`` recovers it."""
        self._ring = None
        self._lost.set()

    async def _follow(self) -> None:
        since = self._position
        (found,) = await self._feed.attach({GATEWAY_ALL: since})
        if since is not None and not found.recovered:
            logger.warning("commands to the gateways may have been lost")
            gateway_metrics.control_lost.inc()
        self._take(found.publications)
        self._position = found.position
        self._ring = self._feed.follow(GATEWAY_ALL, found.position, self)
        if self._ring is None:
            self._lost.set()
        self.flush()

    def _take(self, publications: Iterable[Publication]) -> None:
        for publication in publications:
            self._position = publication.position
            notice = notices.read(publication.data)
            if notice is not None:
                try:
                    self._perform(notice)
                except Exception:
                    # The next notices concern others.
                    logger.exception("a notice could not be performed")
