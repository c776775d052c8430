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
from collections.abc import Coroutine, Iterator, Mapping

from realtime import notices
from realtime.book_metrics import BOOKS
from realtime.books import Book
from realtime.hub_client import HubClient
from realtime.presence import Changes, GatewayFigures, Member
from serve_apps import frames, gateway_metrics
from serve_apps.answers import Answers, RpcMethod
from serve_apps.auth import Authenticator, Identity
from serve_apps.authorisation import RPC, may_meet, may_subscribe, may_subscribe_by_token, server_channels
from serve_apps.codes import CloseCode
from serve_apps.connection import Connection, Transport
from serve_apps.control import Control
from serve_apps.errors import NotAllowedError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.hub_feed import HubFeed
from serve_apps.limits import Limit, Limits
from serve_apps.memory import Memory
from serve_apps.namespaces import namespace_of
from serve_apps.presence_reports import PresenceReports
from serve_apps.run_tenants import RunTenants, no_runs
from serve_apps.session import Session
from serve_apps.subscriptions import Rules

logger = logging.getLogger(__name__)

TICK_S = 0.5
TICK_SLICE = 1000
BOOK_S = 2.0
"""Seconds between two books of a replica with a thousand connections or fewer; each further thousand adds as much,
because one is made in one step."""


class Connections:
    """The replica's register of clients, and the feed they share."""

    def __init__(
        self,
        hub: HubClient,
        auth: Authenticator,
        settings: GatewaySettings,
        methods: Mapping[str, RpcMethod] | None = None,
        runs: RunTenants | None = None,
    ) -> None:
        """``runs`` None: no run is looked up, and no tenant's user sees one."""
        self.settings = settings
        self.uid = uuid.uuid4().hex
        """Name of this replica among the floor's gateways."""
        self.feed = HubFeed(hub, settings)
        # Not from within the frame that crossed the limit: its connection may be the one to cut.
        self.memory = Memory(settings, lambda: asyncio.get_running_loop().call_soon(self._cut_slowest))
        self.is_draining = False
        self.limits = Limits(settings, gateway_metrics.on_limited, time.monotonic())
        self.runs = runs or RunTenants(no_runs)
        self._auth = auth
        self._rules = Rules(
            authenticate=auth.from_token,
            server_channels=server_channels,
            may_subscribe=self._may_subscribe,
            admit=self._admit,
            authorise_subscription=self._authorise_subscription,
            take_command=self.limits.take_command,
            may_meet=may_meet,
            rpc=RPC,
        )
        self._connections: set[Connection] = set()
        self._users: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._began_s = time.monotonic()
        self._book_due_s = 0.0
        self._reopens_at_s: float | None = None
        self._answers = Answers(hub, methods or {}, settings.hub_timeout_s)
        self._presence = PresenceReports(hub, settings, self.figures)
        self._control = Control(self.feed, self.perform)
        self._standing: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[object]] = set()
        # Shared: the state of a generator is 2.5 KB, a sixteenth of what an idle connection takes.
        self._rng = random.Random()  # noqa: S311 -- spreads timers, guards nothing

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def num_users(self) -> int:
        """Users with a connection here."""
        return len(self._users)

    def figures(self) -> GatewayFigures:
        """Describe this replica."""
        uptime_s = int(time.monotonic() - self._began_s)
        return GatewayFigures(self.uid, len(self), self.num_users, self.feed.num_channels, uptime_s)

    def open(
        self,
        transport: Transport,
        *,
        cookie_identity: Identity | None = None,
        unidirectional: bool = False,
        native_pings: bool = False,
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
            native_pings=native_pings,
            memory=self.memory,
            rng=self._rng,
        )
        connection = Connection(session, transport, self.feed, self._presence, self._answers, self.runs, self.settings)
        self._connections.add(connection)
        gateway_metrics.connects.labels(transport.name).inc()
        gateway_metrics.connections.labels(transport.name).inc()
        if not self._standing:
            self._standing = [
                asyncio.create_task(self._tick_forever(), name="gateway-timer"),
                asyncio.create_task(self._presence.run_forever(), name="gateway-presence"),
                asyncio.create_task(self._control.run_forever(), name="gateway-control"),
            ]
        if self.is_draining:
            connection.close(CloseCode.SHUTDOWN)
        return connection

    def close(self, connection: Connection) -> None:
        """Take a client out of the register; a second call changes nothing."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        connection.end()
        for work in connection.take_endings():
            self._run(work())
        gateway_metrics.connections.labels(connection.transport.name).dec()
        if connection.session.identity is not None:
            self._dismiss(connection.session.identity)

    def perform(self, notice: notices.Notice) -> None:
        """Do on this replica what the hub or another replica wants of all of them."""
        match notice:
            case Changes(joined, left):
                for member in left:
                    self._tell_members(member, frames.push_member(member.channel, "leave", member.user, member.client))
                for member in joined:
                    self._tell_members(member, frames.push_member(member.channel, "join", member.user, member.client))
            case notices.Disconnect(audience=audience, code=code, spared=spared):
                for connection in self._meant(audience):
                    if connection.session.client_id not in spared:
                        connection.close(CloseCode.numbered(code) or CloseCode.FORCE_DISCONNECT)
            case notices.Drain(over_s=over_s, hold_s=hold_s):
                # One that Serve takes down stays closed, whatever anybody says.
                if not self.is_draining or self._reopens_at_s is not None:
                    self._run(self.drain(over_s, hold_s))
            case notices.Unsubscribe(audience=audience, channel=channel):
                for connection in self._meant(audience):
                    connection.unsubscribe(channel)
            case notices.Subscribe(audience=audience, channel=channel):
                for connection in self._meant(audience):
                    self._run(connection.subscribe(channel))

    def shut_out(self, user_id: str, tenant: str | None) -> None:
        """Close the connections of a user who was disabled; with the tenant None: of any tenant."""
        audience = notices.Audience(user=user_id, tenant=tenant)
        self.perform(notices.Disconnect(audience=audience, code=int(CloseCode.FORCE_DISCONNECT)))

    def book(self) -> Book:
        """Return this replica's account of every delivery (see ``ledger``)."""
        return self.feed.ledger.book(connection.outbox for connection in self._connections)

    async def drain(self, over_s: float | None = None, hold_s: float | None = None) -> int:
        """Close every connection with 3001 at an even pace; later ones are closed at once.

        Args:
            over_s: seconds to spread it over; None: the setting's.
            hold_s: seconds, from now, after which newcomers are welcome again; None: never.

        Returns:
            How many were closed.
        """
        self.is_draining = True
        self._reopens_at_s = None if hold_s is None else time.monotonic() + hold_s
        waiting = list(self._connections)
        pause_s = (self.settings.drain_s if over_s is None else over_s) / max(1, len(waiting))
        logger.info("draining %d connections", len(waiting))
        for connection in waiting:
            connection.close(CloseCode.SHUTDOWN)
            await asyncio.sleep(pause_s)
        return len(waiting)

    def _reopen_when_due(self, now_s: float) -> None:
        if self._reopens_at_s is not None and now_s >= self._reopens_at_s:
            self.is_draining, self._reopens_at_s = False, None
            logger.info("the drain is over: clients are welcome again")

    async def stop(self) -> None:
        """Stop what runs beside the connections, and the feed."""
        for task in (*self._standing, *self._errands):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.feed.close()
        gateway_metrics.meter.flush()

    def _may_subscribe(self, identity: Identity, channel: str) -> bool:
        return may_subscribe(identity, channel, self.runs.known)

    def _authorise_subscription(self, identity: Identity, channel: str, token: str) -> float | None:
        grant = self._auth.from_channel_token(token)
        if (grant.user_id, grant.tenant, grant.channel) != (identity.user_id, identity.tenant, channel):
            raise NotAllowedError("the token is for another user, tenant or channel")
        if not may_subscribe_by_token(identity, channel, self.runs.known):
            raise NotAllowedError("no token may let this user listen to it")
        return grant.expires_at

    def _admit(self, identity: Identity) -> CloseCode | None:
        # Too many on this replica or of a whole tenant passes: another replica, or a colleague's page that
        # is closed, makes room. Too many of one user does not.
        if len(self._connections) > self.settings.max_connections:
            self.limits.on_limited(Limit.REPLICA_CONNECTIONS)
            return CloseCode.TOO_MANY_REQUESTS
        if identity.tenant is not None and self._tenants[identity.tenant] >= self.settings.max_connections_per_tenant:
            self.limits.on_limited(Limit.TENANT_CONNECTIONS)
            return CloseCode.TOO_MANY_REQUESTS
        if self._users[identity.user_id] >= self.settings.max_connections_per_user:
            self.limits.on_limited(Limit.USER_CONNECTIONS)
            return CloseCode.CONNECTION_LIMIT
        self._users[identity.user_id] += 1
        if identity.tenant is not None:
            self._tenants[identity.tenant] += 1
        return None

    def _meant(self, audience: notices.Audience) -> Iterator[Connection]:
        for connection in list(self._connections):
            identity = connection.session.identity
            if (
                identity is not None
                and audience.user in ("", identity.user_id)
                and audience.client in ("", connection.session.client_id)
                and audience.tenant in (None, identity.tenant)
            ):
                yield connection

    def _tell_members(self, member: Member, line: bytes) -> None:
        followers = self.feed.followers(member.channel)
        if len(followers) > namespace_of(member.channel).join_leave_limit:
            gateway_metrics.members_dropped.inc(len(followers))
            return
        for follower in followers:
            if isinstance(follower, Connection):
                follower.tell_member(member.channel, line)

    def _run(self, errand: Coroutine[None, None, object]) -> None:
        # At most one for each connection of one user and for each notice; each ends within `hub_timeout_s`, a drain
        # within its pace.
        task = asyncio.create_task(errand, name="gateway-errand")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _dismiss(self, identity: Identity) -> None:
        for counter, key in ((self._users, identity.user_id), (self._tenants, identity.tenant)):
            if key is None:
                continue
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

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
            self._export(now_s)
            gateway_metrics.feed_channels.set(self.feed.num_channels)
            gateway_metrics.feed_resyncs.inc(self.feed.resyncs_total - resyncs)
            gateway_metrics.coalesced.inc(self.feed.coalesced_total - coalesced)
            resyncs, coalesced = self.feed.resyncs_total, self.feed.coalesced_total

    def _export(self, now_s: float) -> None:
        gateway_metrics.meter.flush()
        gateway_metrics.held_bytes.labels("rings").set(self.memory.ring_bytes)
        gateway_metrics.held_bytes.labels("clients").set(self.memory.client_bytes)
        gateway_metrics.window_bytes.set(self.memory.window_bytes)
        if now_s >= self._book_due_s:
            self._book_due_s = now_s + BOOK_S * (1 + len(self._connections) // 1000)
            # Made on this loop, between two deliveries; the pusher's thread takes what is there.
            book = self.book()
            BOOKS.keep("gateway", lambda: book)

    def _cut_slowest(self) -> None:
        surplus = self.memory.surplus(self._connections, time.monotonic())
        if surplus:
            logger.warning(
                "%d bytes are held for clients, over the limit: the %d slowest are cut",
                self.memory.held_bytes, len(surplus),
            )  # fmt: skip
        for connection in surplus:
            gateway_metrics.memory_cuts.inc()
            connection.close(CloseCode.SLOW)

    async def _tick(self, now_s: float) -> None:
        self._reopen_when_due(now_s)
        self.feed.tick(now_s)
        self.memory.set_rings(self.feed.num_bytes())
        self._cut_slowest()
        for number, connection in enumerate(list(self._connections), start=1):
            connection.on_tick(now_s)
            if number % TICK_SLICE == 0:
                await asyncio.sleep(0)
