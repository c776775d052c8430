"""What one replica tells the hub about who is in its channels: changes at once, and a sign of life.

Owns no socket. Started by the first connection. Invariant: one report is under way at a
time, and whatever becomes of one, the hub hears of every member of this replica within
``presence_renew_s`` of being able to: a report that failed, or that a restarted hub does
not understand, is followed by everything.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from itertools import islice

from realtime.errors import RealtimeError
from realtime.hub_client import HubClient
from realtime.presence import GatewayFigures, Member, Report
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.namespaces import Namespace, namespace_of

logger = logging.getLogger(__name__)

GATHER_S = 0.05
"""Pause before a report, so that those who come together are reported together."""
REPORT_MEMBERS = 256
"""Members in one report: about 64 KB of the longest names."""
RETRY_S = 2.0


class PresenceReports:
    """The members of this replica, and what the hub has still to hear of them."""

    def __init__(
        self,
        hub: HubClient,
        settings: GatewaySettings,
        figures: Callable[[], GatewayFigures],
        namespace_of: Callable[[str], Namespace] = namespace_of,
    ) -> None:
        self._hub = hub
        self._settings = settings
        self._figures = figures
        self._namespace_of = namespace_of
        # Bounded by the connections of the replica and their channels.
        self._members: dict[tuple[str, str], Member] = {}
        self._changed: dict[tuple[str, str], None] = {}
        self._news = asyncio.Event()
        self._number = 0
        self._is_known = False

    def join(self, channel: str, client: str, user: str) -> None:
        """Note that a client is in a channel."""
        namespace = self._namespace_of(channel)
        if namespace.presence:
            self._members[channel, client] = Member(channel, client, user, announced=namespace.join_leave)
            self._note(channel, client)

    def leave(self, channel: str, client: str) -> None:
        """Note that a client is no longer in a channel."""
        if self._members.pop((channel, client), None) is not None:
            self._note(channel, client)

    async def run_forever(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                await self.report()
                # A random part less, so that the replicas of a floor do not report together.
                async with asyncio.timeout(self._settings.presence_renew_s * random.uniform(0.8, 1.0)):  # noqa: S311
                    await self._news.wait()
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                continue
            except RealtimeError as error:
                logger.warning("the hub does not hear who is here: %s", error)
                await self._begin_again()
            except Exception:
                # A defect in one report must not let every member of this replica vanish for good.
                logger.exception("the members of this replica could not be reported")
                await self._begin_again()

    async def report(self) -> None:
        """Tell the hub what changed, or everything if it does not know this replica.

        Raises:
            HubUnavailableError: it did not answer.
        """
        self._news.clear()
        if self._is_known:
            keys = self._changed
            self._changed = {}
            self._is_known = await self._tell(keys, is_news=True)
        if not self._is_known:
            keys = dict.fromkeys(self._members)
            self._changed = {}
            self._is_known = await self._tell(keys, is_news=False)

    async def _begin_again(self) -> None:
        self._is_known = False
        await asyncio.sleep(random.uniform(0, RETRY_S))  # noqa: S311 -- jitter

    async def _tell(self, keys: Iterable[tuple[str, str]], *, is_news: bool) -> bool:
        rest = iter(keys)
        is_first = not is_news
        while True:
            part = list(islice(rest, REPORT_MEMBERS))
            self._number += 1
            here = [self._members.get(key) for key in part]
            report = Report(
                self._figures(),
                self._number,
                joins=tuple(member for member in here if member is not None),
                leaves=tuple(key for key, member in zip(part, here, strict=True) if member is None),
                is_first=is_first,
                is_news=is_news,
            )
            if not await self._hub.report(report):
                return False
            if len(part) < REPORT_MEMBERS:
                return True
            is_first = False

    def _note(self, channel: str, client: str) -> None:
        self._changed[channel, client] = None
        self._news.set()
