"""One client's session of the Centrifuge protocol: commands in, effects out.

No I/O, no clock, no Ray: whoever owns the socket performs the effects in order, and what
must be fetched comes back by ``on_attached``, ``on_history`` and ``on_answer``. What a client
may do with which channel is ``subscriptions.py``'s.
Invariant: a subscription's reply is sent before any of its publications (``Send`` stands
before ``Follow``), every command but ``send`` has exactly one answer, and after ``Close``
there are no effects.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Any

from realtime.publication import Publication, StreamPosition
from serve_apps import frames
from serve_apps.auth import Identity
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.credit import Budget, Credit, CreditWindow
from serve_apps.effects import Attach, Attachment, Call, Close, Effect, Follow, Refuse, Send
from serve_apps.errors import AuthenticationError, FrameError, KeysUnavailableError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.memory import Memory
from serve_apps.rate import TokenBucket
from serve_apps.subscriptions import Rules, Subscriptions, recovered_tally

VERSION = "watchfloor"


class _State(Enum):
    NEW = auto()
    ATTACHING = auto()
    OPEN = auto()
    REFUSED = auto()
    """Connect was answered with an error: only the end can follow."""
    CLOSED = auto()


class Session:
    """State of one connection, from its first frame to its end."""

    def __init__(
        self,
        client_id: str,
        settings: GatewaySettings,
        rules: Rules,
        *,
        now_s: float,
        cookie_identity: Identity | None = None,
        unidirectional: bool = False,
        native_pings: bool = False,
        memory: Memory | None = None,
        rng: random.Random | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self.identity: Identity | None = None
        # Where no ``{}`` is sent no pong comes back, so there is no credit either.
        self._sends_pings = not native_pings
        self.credit: Credit = (Budget if unidirectional or native_pings else CreditWindow)(settings, memory)
        self.unidirectional = unidirectional
        self.round_trip_s: float | None = None
        """From the last ping to its pong, in seconds."""
        self._settings = settings
        self._rules = rules
        self._cookie_identity = cookie_identity
        self._rng = rng or random.Random()  # noqa: S311 -- spreads timers, guards nothing
        self._wall_s = wall_s
        self._state = _State.NEW
        self._subscriptions = Subscriptions(client_id, settings, rules, wall_s)
        self._commands = TokenBucket(settings.commands_per_s, settings.command_burst, now_s)
        self._refused_commands = 0
        self._can_refresh = False
        self._expires_in_s: float | None = None
        self._expires_at_s = 0.0  # monotonic
        self._stale_at_s = now_s + settings.stale_after_s
        self._next_ping_s = 0.0
        self._renew_at_s = now_s + self._rng.uniform(settings.min_age_s, settings.max_age_s)

    @property
    def is_open(self) -> bool:
        """True between a successful connect and the end."""
        return self._state is _State.OPEN

    @property
    def is_closed(self) -> bool:
        """True after ``Close``."""
        return self._state is _State.CLOSED

    @property
    def takes_commands(self) -> bool:
        """False when the rest of a frame must be ignored: connect was refused, or all is over."""
        return self._state not in {_State.REFUSED, _State.CLOSED}

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels subscribed to, server-side ones first."""
        return tuple(self._subscriptions)

    def hears_members(self, channel: str) -> bool:
        """Tell whether the client is to be told who joins and leaves a channel."""
        if not self.is_open or not self._rules.may_meet(self._identified(), channel):
            return False
        return self._subscriptions.hears_members(channel)

    def tenant_of(self, command: frames.Connect | frames.ChannelCommand) -> str | None:
        """Return the tenant of whoever sends a command; None: of none, or that is not proven."""
        identity = self.identity
        if isinstance(command, frames.Connect):
            try:
                identity = self._proven(command)
            except AuthenticationError:
                return None
        return None if identity is None else identity.tenant

    def on_command(self, command: frames.Command, now_s: float) -> list[Effect]:
        """Decide on one command."""
        if self._state is _State.CLOSED:
            return []
        if isinstance(command, frames.Pong):
            self.round_trip_s = self.credit.on_pong(now_s)
            return self._close(CloseCode.BAD_REQUEST) if self.round_trip_s is None else []
        if isinstance(command, frames.Connect):
            return self._on_connect(command, now_s)
        if self._state is not _State.OPEN:
            return self._close(CloseCode.BAD_REQUEST)
        if not self._commands.take(now_s) or not self._rules.take_command(self._identified(), now_s):
            self._refused_commands += 1
            if self._refused_commands >= self._settings.command_burst:
                return self._close(CloseCode.TOO_MANY_REQUESTS)
            return [] if isinstance(command, frames.Message) else self._refuse(command.id, ErrorCode.TOO_MANY_REQUESTS)
        self._refused_commands = 0
        identity = self._identified()
        if isinstance(command, frames.ChannelCommand) and not command.channel:
            return self._close(CloseCode.BAD_REQUEST)
        match command:
            case frames.Subscribe():
                return self._subscriptions.on_subscribe(identity, command, now_s)
            case frames.Unsubscribe():
                return self._subscriptions.on_unsubscribe(command)
            case frames.History():
                return self._subscriptions.on_history(identity, command)
            case frames.Presence():
                return self._subscriptions.on_presence(identity, command)
            case frames.Publish():
                return self._subscriptions.on_publish(identity, command)
            case frames.SubRefresh():
                return self._subscriptions.on_sub_refresh(identity, command, now_s)
            case frames.Refresh():
                return self._on_refresh(command, now_s)
            case frames.Rpc():
                return self._on_rpc(identity, command)
            case frames.LegacyPing():
                return self._refuse(command.id, ErrorCode.NOT_AVAILABLE)
            case frames.Message():
                return []

    def on_bad_frame(self, _error: FrameError) -> list[Effect]:
        """Decide on a frame that is no command."""
        return self._close(CloseCode.BAD_REQUEST)

    def on_runs_unknown(self, command: frames.Connect | frames.ChannelCommand) -> list[Effect]:
        """Answer a command about runs whose tenants could not be told: the client may try again."""
        if self._state is _State.CLOSED:
            return []
        if isinstance(command, frames.Connect):
            return self._refuse_connect(command.id, ErrorCode.INTERNAL, CloseCode.INTERNAL)
        return self._refuse(command.id, ErrorCode.INTERNAL)

    def on_attached(self, attach: Attach, found: Iterable[Attachment], now_s: float) -> list[Effect]:
        """Answer a connect or a subscribe, now that its channels' positions are known."""
        if self._state is _State.CLOSED:
            return []
        attachments = list(found)
        if attach.is_connect:
            return self._on_connected(attach, attachments, now_s)
        (attachment,) = attachments
        return self._subscriptions.on_attached(attach, attachment, now_s)

    def on_attach_failed(self, attach: Attach) -> list[Effect]:
        """Answer a connect or a subscribe whose positions the hub did not give in time."""
        if self._state is _State.CLOSED:
            return []
        self._subscriptions.discard(attach.wanted)
        if not attach.is_connect and not attach.command_id:
            return []  # nobody waits; whoever asked for it asks again
        if self.unidirectional:
            return self._close(CloseCode.INTERNAL)
        if attach.is_connect:
            self._state = _State.REFUSED
        return self._refuse(attach.command_id, ErrorCode.INTERNAL)

    def on_history(
        self, command: frames.History, position: StreamPosition, items: Iterable[Publication] | None
    ) -> list[Effect]:
        """Answer a history command; ``items`` None: the position it asked from is lost."""
        if self._state is _State.CLOSED:
            return []
        if items is None:
            return self._refuse(command.id, ErrorCode.UNRECOVERABLE_POSITION)
        result = {
            "publications": frames.publications(items),
            "epoch": position.epoch,
            "offset": position.offset,
        }
        return [Send(frames.reply(command.id, "history", result))]

    def on_history_failed(self, command: frames.History) -> list[Effect]:
        """Answer a history command that the hub did not answer in time."""
        return [] if self._state is _State.CLOSED else self._refuse(command.id, ErrorCode.INTERNAL)

    def on_answer(self, command_id: int, method: str, answer: Mapping[str, Any] | ErrorCode) -> list[Effect]:
        """Answer a publish, presence, presence_stats or rpc command, now that the answer is known."""
        if self._state is _State.CLOSED:
            return []
        if isinstance(answer, ErrorCode):
            return self._refuse(command_id, answer)
        return [Send(frames.reply(command_id, method, answer))]

    def on_lost(self, channel: str) -> list[Effect]:
        """Decide what to do about a channel whose publications were lost on the way.

        A client-side subscription ends with 2500 and the SDK recovers it; a server-side one
        has no such command, so the whole connection starts again.
        """
        if channel not in self._subscriptions or self._state is _State.CLOSED:
            return []
        if self._subscriptions.is_server_side(channel):
            return self._close(CloseCode.INSUFFICIENT_STATE)
        return self._subscriptions.end(channel, UnsubscribeCode.INSUFFICIENT_STATE)

    def on_server_subscribe(self, channel: str) -> list[Effect]:
        """Subscribe the client to a channel that it may listen to, because a service wants it."""
        return self._subscriptions.on_server_subscribe(self._identified(), channel) if self.is_open else []

    def on_server_unsubscribe(self, channel: str) -> list[Effect]:
        """End a subscription because a service wants it; the SDK does not come back to it."""
        return self._subscriptions.end(channel, UnsubscribeCode.SERVER_UNSUBSCRIBE) if self.is_open else []

    def on_close(self, code: CloseCode) -> list[Effect]:
        """End the session for a reason from outside: drain, a full outbox, a broken socket."""
        return self._close(code)

    def on_tick(self, now_s: float) -> list[Effect]:
        """Do what is due by time: pings, and the ends of stale, slow, silent, expired and old sockets."""
        if self._state is _State.CLOSED:
            return []
        overdue = self.credit.overdue(now_s)
        if overdue is not None:
            return self._close(overdue)
        if self._state is not _State.OPEN:
            return self._close(CloseCode.STALE) if now_s >= self._stale_at_s else []
        if now_s >= self._expires_at_s + self._settings.expiry_grace_s:
            return self._close(CloseCode.EXPIRED)
        if now_s >= self._renew_at_s:
            return self._close(CloseCode.SHUTDOWN)
        effects: list[Effect] = []
        for channel in self._subscriptions.overdue(now_s):
            effects += self._subscriptions.end(channel, UnsubscribeCode.SUBSCRIPTION_EXPIRED)
        if self._sends_pings and now_s >= self._next_ping_s:
            self._next_ping_s = now_s + self._settings.ping_interval_s
            effects.append(Send(frames.PING))
        return effects

    def _on_connect(self, command: frames.Connect, now_s: float) -> list[Effect]:
        if self._state is not _State.NEW:
            return self._close(CloseCode.BAD_REQUEST)
        try:
            identity = self._proven(command)
        except TokenExpiredError:
            return self._refuse_connect(command.id, ErrorCode.TOKEN_EXPIRED, CloseCode.INVALID_TOKEN)
        except KeysUnavailableError:
            return self._refuse_connect(command.id, ErrorCode.INTERNAL, CloseCode.INTERNAL)
        except AuthenticationError:
            return self._close(CloseCode.INVALID_TOKEN)
        if identity is None:
            return self._close(CloseCode.BAD_REQUEST)
        ttl_s = identity.expires_at - self._wall_s()
        if ttl_s <= 0:
            return self._refuse_connect(command.id, ErrorCode.EXPIRED, CloseCode.EXPIRED)
        if len(self._rules.server_channels(identity)) > self._settings.max_channels:
            return self._close(CloseCode.CHANNEL_LIMIT)
        refusal = self._rules.admit(identity)
        if refusal is not None:
            return self._close(refusal)
        self.identity = identity  # set if and only if it was admitted: whoever counts relies on it
        self._can_refresh = bool(command.token) and not self.unidirectional
        self._expires_at_s = now_s + ttl_s
        self._expires_in_s = ttl_s
        self._state = _State.ATTACHING
        return [Attach(command.id, self._subscriptions.begin(identity, command.subs), is_connect=True)]

    def _on_connected(self, attach: Attach, attachments: list[Attachment], now_s: float) -> list[Effect]:
        self._state = _State.OPEN
        result: dict[str, Any] = {
            "client": self.client_id,
            "version": VERSION,
            "subs": {
                found.channel: self._subscriptions.result(found, attach.wanted[found.channel], now_s)
                for found in attachments
            },
        }
        if self._sends_pings:
            result |= {"ping": int(self._settings.ping_interval_s), "pong": not self.unidirectional}
        if self._can_refresh and self._expires_in_s is not None:
            result |= {"expires": True, "ttl": max(1, int(self._expires_in_s))}
        # At random, so that the pings of sockets that came at once do not stay together.
        self._next_ping_s = now_s + self._rng.uniform(0.5, 1.0) * self._settings.ping_interval_s
        if self.unidirectional:
            line = frames.push_connect(result | {"session": self.client_id})
        else:
            line = frames.reply(attach.command_id, "connect", result)
        recovered = sum(recovered_tally(found, attach.wanted[found.channel]) for found in attachments)
        return [Send(line, recovered), *(Follow(found.channel, found.position) for found in attachments)]

    def _on_refresh(self, command: frames.Refresh, now_s: float) -> list[Effect]:
        if not command.token or not self._can_refresh:
            return self._close(CloseCode.BAD_REQUEST)
        try:
            identity = self._rules.authenticate(command.token)
        except TokenExpiredError:
            return self._refuse(command.id, ErrorCode.EXPIRED)
        except KeysUnavailableError:
            return self._refuse(command.id, ErrorCode.INTERNAL)
        except AuthenticationError:
            return self._close(CloseCode.INVALID_TOKEN)
        current = self._identified()
        if identity.user_id != current.user_id:
            return self._close(CloseCode.INVALID_TOKEN)
        if _rights(identity) != _rights(current):
            # What the session was given no longer follows from its token: it starts again with the new one.
            return self._close(CloseCode.FORCE_RECONNECT)
        ttl_s = identity.expires_at - self._wall_s()
        if ttl_s <= 0:
            return self._refuse(command.id, ErrorCode.EXPIRED)
        self.identity = identity
        self._expires_at_s = now_s + ttl_s
        result = {"client": self.client_id, "version": VERSION, "expires": True, "ttl": max(1, int(ttl_s))}
        return [Send(frames.reply(command.id, "refresh", result))]

    def _proven(self, command: frames.Connect) -> Identity | None:
        return self._rules.authenticate(command.token) if command.token else self._cookie_identity

    def _on_rpc(self, identity: Identity, command: frames.Rpc) -> list[Effect]:
        role = self._rules.rpc.get(command.method)
        if role is None:
            return self._refuse(command.id, ErrorCode.METHOD_NOT_FOUND)
        return [Call(command)] if identity.has(role) else self._refuse(command.id, ErrorCode.PERMISSION_DENIED)

    def _refuse_connect(self, command_id: int, error: ErrorCode, close: CloseCode) -> list[Effect]:
        if self.unidirectional:  # there is no reply id, so the refusal is the end
            return self._close(close)
        self._state = _State.REFUSED
        return self._refuse(command_id, error)

    def _refuse(self, command_id: int, code: ErrorCode) -> list[Effect]:
        return [Refuse(command_id, code)]

    def _close(self, code: CloseCode) -> list[Effect]:
        if self._state is _State.CLOSED:
            return []
        self._state = _State.CLOSED
        self._subscriptions.clear()
        return [Close(code)]

    def _identified(self) -> Identity:
        if self.identity is None:
            raise RuntimeError("a session without an identity took a command")
        return self.identity


def _rights(identity: Identity) -> tuple[object, ...]:
    return (identity.tenant, identity.roles, frozenset(identity.groups), frozenset(identity.clients))
