"""One open client connection: performs what its session decides, on its transport.

Decides nothing about the protocol (``session.py``) and nothing about order or bounds
(``outbox.py``). Invariant: whichever way a connection ends, ``end`` runs once and leaves
no follower, no held channel and no task behind.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from serve_apps import frames, gateway_metrics
from serve_apps.answers import Answers, Work
from serve_apps.codes import CloseCode
from serve_apps.effects import (
    Attach,
    Call,
    Close,
    Effect,
    Follow,
    Leave,
    Publish,
    Question,
    ReadHistory,
    ReadPresence,
    Refuse,
    Send,
)
from serve_apps.errors import FeedUnavailableError, FrameError, OutboxError, RunLookupError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.hub_feed import HubFeed
from serve_apps.ledger import CLIENT, LOST, UNSUBSCRIBED
from serve_apps.outbox import Outbox
from serve_apps.outgoing import Frame
from serve_apps.presence_reports import PresenceReports
from serve_apps.run_tenants import RunTenants, is_about_a_run
from serve_apps.session import Session

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
MOST_ENDINGS = 4
"""Things that a connection may leave behind to be done."""
ABRUPT = frozenset({CloseCode.SLOW, CloseCode.NO_PONG, CloseCode.WRITE_ERROR})
"""Ends that nothing is written before: who reads nothing takes nothing."""


class Transport(Protocol):
    """How lines reach a client: a WebSocket, or the body of an HTTP response."""

    name: str
    """Its label in the metrics."""

    def send_now(self, frame: Frame) -> bool:
        """Hand one frame over if that needs no waiting; False: nothing was sent, ``send`` it."""
        ...

    async def send(self, frame: Frame) -> None:
        """Hand one frame over; frames arrive in the order of the calls."""
        ...

    async def close(self, code: CloseCode) -> None:
        """End the transport and tell the client why; a second call does nothing."""
        ...


class Connection:
    """A session on its transport. Compared by identity: it is a follower in the feed's rings."""

    def __init__(
        self,
        session: Session,
        transport: Transport,
        feed: HubFeed,
        presence: PresenceReports,
        answers: Answers,
        runs: RunTenants,
        settings: GatewaySettings,
    ) -> None:
        self.session = session
        self.transport = transport
        self._feed = feed
        self._presence = presence
        self._answers = answers
        self._runs = runs
        self._max_inbound_bytes = settings.max_inbound_bytes
        self.outbox = Outbox(settings, session.credit, feed.ledger, unidirectional=session.unidirectional)
        self._followed: set[str] = set()
        self._endings: dict[str, Work] = {}
        self._writer: asyncio.Task[None] | None = None
        self.closing: CloseCode | None = None
        """Why the gateway ends it; None while it does not."""
        self._is_transport_closed = False
        self._ended = False
        self.on_closed: Callable[[], None] = _nothing
        """Called when the gateway has closed the transport: its handler need not wait long any more."""

    async def on_text(self, text: str) -> None:
        """Handle one incoming frame, command by command."""
        if len(text) > self._max_inbound_bytes or len(text.encode()) > self._max_inbound_bytes:
            await self._perform(self.session.on_close(CloseCode.MESSAGE_TOO_BIG))
            return
        try:
            for command in frames.parse_frame(text):
                if not self.session.takes_commands:
                    return
                await self.on_command(command)
        except FrameError as error:
            await self._perform(self.session.on_bad_frame(error))

    async def on_command(self, command: frames.Command) -> None:
        """Handle one command and whatever the hub must be asked for it."""
        gateway_metrics.received.inc()
        if isinstance(command, frames.ChannelCommand | frames.Connect) and not await self._knows_the_runs(command):
            await self._perform(self.session.on_runs_unknown(command))
            return
        await self._perform(self.session.on_command(command, time.monotonic()))
        if isinstance(command, frames.Pong) and self.session.round_trip_s is not None:
            self.outbox.on_pong()
            gateway_metrics.round_trip.observe(self.session.round_trip_s)

    async def _knows_the_runs(self, command: frames.ChannelCommand | frames.Connect) -> bool:
        """Look up whose runs a command is about, for the rules that decide on it; False: it could not be told.

        Whatever the command: each that names a channel may let something of it be seen.
        """
        channels = command.subs if isinstance(command, frames.Connect) else (command.channel,)
        if not any(is_about_a_run(channel) for channel in channels):
            return True  # nearly always, and then nobody's token is verified twice
        return await self._learn(self.session.tenant_of(command), channels)

    async def _learn(self, tenant: str | None, channels: Iterable[str]) -> bool:
        try:
            await self._runs.learn(tenant, channels)
        except RunLookupError as error:
            logger.warning("a client waits for a run: %s", error)
            return False
        return True

    def on_tick(self, now_s: float) -> None:
        """Do what is due by time; what is left waiting for credit is looked at again."""
        self._perform_now(self.session.on_tick(now_s))
        self.flush()

    def close(self, code: CloseCode) -> None:
        """End the connection after what is queued already."""
        self._perform_now(self.session.on_close(code))
        self.flush()

    async def subscribe(self, channel: str) -> None:
        """Subscribe the client to a channel that it may listen to, because a service wants it."""
        identity = self.session.identity
        if identity is not None and await self._learn(identity.tenant, (channel,)):
            await self._perform(self.session.on_server_subscribe(channel))

    def unsubscribe(self, channel: str) -> None:
        """End a subscription because a service wants it."""
        self._perform_now(self.session.on_server_unsubscribe(channel))
        self.flush()

    def tell_member(self, channel: str, line: bytes) -> None:
        """Push who came or went, where the client wants to hear it; left out when too much waits already."""
        if self.session.hears_members(channel):
            if self.outbox.offer(line):
                self.flush()
            else:
                gateway_metrics.members_dropped.inc()

    @property
    def held_bytes(self) -> int:
        """Bytes that the replica holds for this client alone."""
        return self.outbox.held_bytes

    @property
    def waits_since_s(self) -> float | None:
        """When the oldest ping that it has not answered was sent (see ``memory.Holder``)."""
        return self.session.credit.waits_since_s

    def mark(self, channel: str, rank: int) -> None:
        """Note that a followed channel has something new (see ``hub_feed.Follower``)."""
        self.outbox.mark(channel, rank)

    def lose(self, channel: str) -> None:
        """Learn that publications of a followed channel were lost (see ``hub_feed.Follower``)."""
        self.outbox.leave(channel, LOST)
        self._perform_now(self.session.on_lost(channel))

    def flush(self) -> None:
        """Write what may be written, unless that is under way."""
        if self._writer is not None or self._ended or self._is_transport_closed:
            return
        if self.closing is None and self.outbox.has_work:
            # What need not wait is written when this returns; a task a frame was a third of its cost.
            waiting = self._write_at_once()
            if waiting is not None:
                self._writer = asyncio.create_task(self._write(waiting), name="gateway-writer")
                return
        if self.closing is not None:
            self._writer = asyncio.create_task(self._write(None), name="gateway-writer")

    def end(self) -> None:
        """Let go of everything; the transport is gone or about to go."""
        if self._ended:
            return
        self._ended = True
        reason = _reason(self.closing)
        self._leave_all(reason)
        self.outbox.end(reason)
        self.session.on_close(CloseCode.CONNECTION_CLOSED)
        if self._writer is not None and self._writer is not asyncio.current_task():
            self._writer.cancel()
        gateway_metrics.on_close(self.closing)

    def take_endings(self) -> list[Work]:
        """Return, once, what is to be done now that the connection is over."""
        works, self._endings = list(self._endings.values()), {}
        return works

    def _do_at_end(self, name: str, work: Work) -> None:
        if name in self._endings or len(self._endings) < MOST_ENDINGS:
            self._endings[name] = work

    async def _perform(self, effects: Iterable[Effect]) -> None:
        """Perform effects in order; what the hub is asked for comes back as further effects."""
        for effect in effects:
            match effect:
                case Attach():
                    await self._attach(effect)
                case ReadHistory():
                    await self._read_history(effect)
                case Publish() | ReadPresence() | Call():
                    await self._answer(effect)
                case _:
                    self._perform_now([effect])
        self.flush()

    def _perform_now(self, effects: Iterable[Effect]) -> None:
        """Perform effects that need nothing from the hub."""
        for effect in effects:
            match effect:
                case Send(line, recovered):
                    self._send(line, recovered)
                case Refuse(command_id, code):
                    gateway_metrics.on_command_error(code)
                    self._send(frames.error_reply(command_id, code))
                case Follow():
                    self._follow(effect)
                case Leave(channel):
                    self._leave(channel, UNSUBSCRIBED)
                case Close(code):
                    self.closing = code
                    if code in ABRUPT:
                        # The server may hold its bytes until the transport is closed, but nobody waits for that.
                        self.session.credit.end()
                    self._leave_all(_reason(code))  # what has not been sent is recovered by the next connection
                    self._stop_stuck_writer(code)
                case Attach() | ReadHistory() | Publish() | ReadPresence() | Call():
                    raise RuntimeError(f"{type(effect).__name__} must be awaited")

    async def _attach(self, attach: Attach) -> None:
        try:
            found = await self._feed.attach(attach.wanted)
        except FeedUnavailableError as error:
            logger.warning("a client waits for its channels: %s", error)
            self._perform_now(self.session.on_attach_failed(attach))
            return
        effects = self.session.on_attached(attach, found, time.monotonic())
        followed = {effect.channel for effect in effects if isinstance(effect, Follow)}
        if self._ended:
            followed.clear()
            effects = []
        self._perform_now(effects)
        self._feed.release(channel for channel in attach.wanted if channel not in followed)

    async def _read_history(self, effect: ReadHistory) -> None:
        try:
            position, items = await self._feed.history(effect.command)
        except FeedUnavailableError:
            self._perform_now(self.session.on_history_failed(effect.command))
            return
        self._perform_now(self.session.on_history(effect.command, position, items))

    async def _answer(self, question: Question) -> None:
        assert self.session.identity is not None  # who has none is not answered
        answer = await self._answers.to(
            question, self.session.identity, self.session.channels, self.session.client_id, self._do_at_end
        )
        self._perform_now(self.session.on_answer(question.command.id, question.method, answer))

    def _follow(self, effect: Follow) -> None:
        ring = self._feed.follow(effect.channel, effect.position, self)
        if ring is None:
            self._perform_now(self.session.on_lost(effect.channel))
        else:
            self._followed.add(effect.channel)
            self.outbox.follow(ring, effect.position.offset)
            assert self.session.identity is not None
            self._presence.join(effect.channel, self.session.client_id, self.session.identity.user_id)

    def _leave(self, channel: str, reason: str) -> None:
        if channel in self._followed:
            self._followed.discard(channel)
            self._presence.leave(channel, self.session.client_id)
        self.outbox.leave(channel, reason)
        self._feed.leave(channel, self)

    def _leave_all(self, reason: str) -> None:
        for channel in tuple(self._followed):
            self._leave(channel, reason)

    def _send(self, line: bytes, recovered: int = 0) -> None:
        try:
            self.outbox.add(line, recovered)
        except OutboxError:
            self._perform_now(self.session.on_close(CloseCode.SLOW))

    async def _write(self, waiting: Frame | None) -> None:
        try:
            await self._empty_outbox(waiting)
            if self.closing is not None and not self._ended:
                await self._close_transport(self.closing)
        finally:
            self._writer = None

    def _write_at_once(self) -> Frame | None:
        """Write what the transport takes without waiting; returns the frame that it must wait for."""
        outbox, transport = self.outbox, self.transport
        try:
            while outbox.has_work and not self._ended and self.closing not in ABRUPT:
                frame = outbox.next_frame(time.monotonic())
                if frame is None:
                    break
                if not transport.send_now(frame):
                    return frame
                gateway_metrics.meter.on_frame(frame, waited=False)
        except Exception as error:
            # Also a defect: it would end the feed of every connection here.
            self._on_write_failed(error)
        return None

    async def _empty_outbox(self, waiting: Frame | None) -> None:
        waiting = waiting or self._write_at_once()
        try:
            while waiting is not None:
                await self.transport.send(waiting)
                gateway_metrics.meter.on_frame(waiting, waited=True)
                waiting = self._write_at_once()
        except Exception as error:
            self._on_write_failed(error)

    def _on_write_failed(self, error: Exception) -> None:
        client_id = self.session.client_id
        if isinstance(error, OutboxError):
            logger.info("connection %s: %s", client_id, error)
            self._perform_now(self.session.on_close(CloseCode.SLOW))
            return
        if isinstance(error, OSError):
            # The socket went while we wrote: its receive loop ends too, and cleans up.
            logger.debug("connection %s: write failed: %s", client_id, error)
        else:
            logger.error("connection %s: writing failed", client_id, exc_info=error)
        self._perform_now(self.session.on_close(CloseCode.WRITE_ERROR))

    async def _close_transport(self, code: CloseCode) -> None:
        if self._is_transport_closed:
            return
        self._is_transport_closed = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.transport.close(code)
        except (TimeoutError, OSError) as error:
            logger.debug("connection %s did not take its close frame: %r", self.session.client_id, error)
        finally:
            self.on_closed()

    def _stop_stuck_writer(self, code: CloseCode) -> None:
        # Where the server does push back (not under Ray Serve), the writer may wait for ever for a client
        # that reads nothing; the next tick closes instead.
        if code in ABRUPT and self._writer is not None and self._writer is not asyncio.current_task():
            self._writer.cancel()


def _reason(code: CloseCode | None) -> str:
    """Return why deliveries were dropped, as the ledger names it."""
    return CLIENT if code is None else code.name.lower()


def _nothing() -> None:
    """Stand in until the transport's handler says what to do at the close."""
