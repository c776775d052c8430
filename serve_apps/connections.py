"""All client connections of one replica: opening, timing, limits and draining.

Knows no protocol and no socket. Invariant: a connection is in the register from ``open``
to ``close``, and one timer serves them all.
"""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections import Counter

from realtime.hub_client import HubClient
from serve_apps import gateway_metrics
from serve_apps.auth import Authenticator, Identity
from serve_apps.authorisation import may_subscribe, server_channels
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection, Transport
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.hub_feed import HubFeed
from serve_apps.session import Rules, Session

logger = logging.getLogger(__name__)

TICK_S = 0.5
TICK_SLICE = 1000


class Connections:
    """The replica's register of clients, and the feed they share."""

    def __init__(self, hub: HubClient, auth: Authenticator, settings: GatewaySettings) -> None:
        self.settings = settings
        self.feed = HubFeed(hub, settings)
        self.is_draining = False
        self._rules = Rules(auth.from_token, server_channels, may_subscribe, self._admit)
        self._connections: set[Connection] = set()
        self._users: Counter[str] = Counter()
        self._timer: asyncio.Task[None] | None = None
        # Shared: the state of a generator is 2.5 KB, a sixteenth of what an idle connection takes.
        self._rng = random.Random()  # noqa: S311 -- spreads timers, guards nothing

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def num_users(self) -> int:
        """Users with a connection here."""
        return len(self._users)

    def open(
        self, transport: Transport, *, cookie_identity: Identity | None = None, unidirectional: bool = False
    ) -> Connection:
        """Register a client whose transport was accepted; it must be given to ``close`` in the end."""
        now_s = time.monotonic()
        session = Session(
            str(uuid.uuid4()),
            self.settings,
            self._rules,
            now_s=now_s,
            cookie_identity=cookie_identity,
            unidirectional=unidirectional,
            rng=self._rng,
        )
        connection = Connection(session, transport, self.feed, self.settings)
        self._connections.add(connection)
        gateway_metrics.connects.labels(transport.name).inc()
        gateway_metrics.connections.labels(transport.name).inc()
        if self._timer is None:
            self._timer = asyncio.create_task(self._tick_forever(), name="gateway-timer")
        if self.is_draining:
            connection.close(CloseCode.SHUTDOWN)
        return connection

    def close(self, connection: Connection) -> None:
        """Take a client out of the register; a second call changes nothing."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        connection.end()
        gateway_metrics.connections.labels(connection.transport.name).dec()
        if connection.session.identity is not None:
            user_id = connection.session.identity.user_id
            self._users[user_id] -= 1
            if self._users[user_id] <= 0:
                del self._users[user_id]

    async def drain(self, over_s: float | None = None) -> int:
        """Close every connection with 3001 at an even pace; later ones are closed at once.

        Args:
            over_s: seconds to spread it over; None: the setting's.

        Returns:
            How many were closed.
        """
        self.is_draining = True
        waiting = list(self._connections)
        pause_s = (self.settings.drain_s if over_s is None else over_s) / max(1, len(waiting))
        logger.info("draining %d connections", len(waiting))
        for connection in waiting:
            connection.close(CloseCode.SHUTDOWN)
            await asyncio.sleep(pause_s)
        return len(waiting)

    async def stop(self) -> None:
        """Stop the timer and the feed."""
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timer
        await self.feed.close()
        gateway_metrics.meter.flush()

    def _admit(self, identity: Identity) -> CloseCode | None:
        # Too many on this replica passes (another may have room); too many of one user does not.
        if len(self._connections) > self.settings.max_connections:
            return CloseCode.TOO_MANY_REQUESTS
        if self._users[identity.user_id] >= self.settings.max_connections_per_user:
            return CloseCode.CONNECTION_LIMIT
        self._users[identity.user_id] += 1
        return None

    async def _tick_forever(self) -> None:
        resyncs = coalesced = 0
        while True:
            due_s = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            gateway_metrics.loop_lag.set(now_s - due_s)
            try:
                await self._tick(now_s)
            except Exception:
                # One connection's defect must not end the pings of all others.
                logger.exception("the gateway's timer failed")
            gateway_metrics.meter.flush()
            gateway_metrics.feed_channels.set(self.feed.num_channels)
            gateway_metrics.feed_resyncs.inc(self.feed.resyncs_total - resyncs)
            gateway_metrics.coalesced.inc(self.feed.coalesced_total - coalesced)
            resyncs, coalesced = self.feed.resyncs_total, self.feed.coalesced_total

    async def _tick(self, now_s: float) -> None:
        self.feed.tick(now_s)
        for number, connection in enumerate(list(self._connections), start=1):
            connection.on_tick(now_s)
            if number % TICK_SLICE == 0:
                await asyncio.sleep(0)
