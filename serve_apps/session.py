"""One client's session of the Centrifuge protocol: commands in, effects out.

No I/O, no clock, no Ray: whoever owns the socket performs the effects in order, and what
must be fetched comes back by ``on_attached`` and ``on_history``.
Invariant: a subscription's reply is sent before any of its publications (``Send`` stands
before ``Follow``), every command but ``send`` has exactly one answer, and after ``Close``
there are no effects.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from realtime.channels import kind_of
from realtime.errors import InvalidChannelError
from realtime.publication import Publication, StreamPosition
from serve_apps import frames
from serve_apps.auth import Identity
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.credit import Budget, Credit, CreditWindow
from serve_apps.errors import AuthenticationError, FrameError, KeysUnavailableError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.rate import TokenBucket

VERSION = "watchfloor"
MAX_CHANNEL_CHARS = 255


@dataclass(frozen=True, slots=True)
class Send:
    """Queue one line for the client."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a command with an error."""

    command_id: int
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class Attach:
    """Find out where channels stand and what was missed; the answer goes to ``on_attached``."""

    command_id: int
    wanted: Mapping[str, StreamPosition | None]
    """Channel -> position to recover from; None: from now on."""
    is_connect: bool
    strict_recovery: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """Let the channel's publications after ``position`` flow."""

    channel: str
    position: StreamPosition


@dataclass(frozen=True, slots=True)
class Leave:
    """Stop the channel's publications."""

    channel: str


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Fetch a channel's history; the answer goes to ``on_history``."""

    command: frames.History


@dataclass(frozen=True, slots=True)
class Close:
    """End the socket, after what was queued before."""

    code: CloseCode


Effect = Send | Refuse | Attach | Follow | Leave | ReadHistory | Close


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where a channel stands, and what a client missed of it."""

    channel: str
    position: StreamPosition
    publications: tuple[Publication, ...] = ()
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What a session asks about identities; how they are answered stands elsewhere."""

    authenticate: Callable[[str], Identity]
    """Token -> identity; raises AuthenticationError."""
    server_channels: Callable[[Identity], tuple[str, ...]]
    may_subscribe: Callable[[Identity, str], bool]
    admit: Callable[[Identity], CloseCode | None]
    """Why one more connection of this identity is refused; None: welcome."""


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
        rng: random.Random | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self.identity: Identity | None = None
        self.credit: Credit = Budget(settings) if unidirectional else CreditWindow(settings)
        self.unidirectional = unidirectional
        self.round_trip_s: float | None = None
        """From the last ping to its pong, in seconds."""
        self._settings = settings
        self._rules = rules
        self._cookie_identity = cookie_identity
        self._rng = rng or random.Random()  # noqa: S311 -- spreads timers, guards nothing
        self._wall_s = wall_s
        self._state = _State.NEW
        self._channels: dict[str, bool] = {}  # channel -> it is server-side
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
        return tuple(self._channels)

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
        if not self._commands.take(now_s):
            self._refused_commands += 1
            if self._refused_commands >= self._settings.command_burst:
                return self._close(CloseCode.TOO_MANY_REQUESTS)
            return [] if isinstance(command, frames.Message) else self._refuse(command.id, ErrorCode.TOO_MANY_REQUESTS)
        self._refused_commands = 0
        match command:
            case frames.Subscribe():
                return self._on_subscribe(command)
            case frames.Unsubscribe():
                return self._on_unsubscribe(command)
            case frames.History():
                return self._on_history_command(command)
            case frames.Refresh():
                return self._on_refresh(command, now_s)
            case frames.ChannelCommand():
                return self._on_channel_command(command)
            case frames.Rpc():
                return self._refuse(command.id, ErrorCode.METHOD_NOT_FOUND)
            case frames.LegacyPing():
                return self._refuse(command.id, ErrorCode.NOT_AVAILABLE)
            case frames.Message():
                return []

    def on_bad_frame(self, _error: FrameError) -> list[Effect]:
        """Decide on a frame that is no command."""
        return self._close(CloseCode.BAD_REQUEST)

    def on_attached(self, attach: Attach, found: Iterable[Attachment], now_s: float) -> list[Effect]:
        """Answer a connect or a subscribe, now that its channels' positions are known."""
        if self._state is _State.CLOSED:
            return []
        attachments = list(found)
        if attach.is_connect:
            return self._on_connected(attach, attachments, now_s)
        (attachment,) = attachments
        since = attach.wanted[attachment.channel]
        if since is not None and not attachment.recovered and attach.strict_recovery:
            del self._channels[attachment.channel]
            return [
                *self._refuse(attach.command_id, ErrorCode.UNRECOVERABLE_POSITION),
                Leave(attachment.channel),
            ]
        result = _subscribe_result(attachment, since)
        return [
            Send(frames.reply(attach.command_id, "subscribe", result)),
            Follow(attachment.channel, attachment.position),
        ]

    def on_attach_failed(self, attach: Attach) -> list[Effect]:
        """Answer a connect or a subscribe whose positions the hub did not give in time."""
        if self._state is _State.CLOSED:
            return []
        if self.unidirectional:
            return self._close(CloseCode.INTERNAL)
        if attach.is_connect:
            self._state = _State.REFUSED
        for channel in attach.wanted:
            self._channels.pop(channel, None)
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

    def on_lost(self, channel: str) -> list[Effect]:
        """Decide what to do about a channel whose publications were lost on the way.

        A client-side subscription ends with 2500 and the SDK recovers it; a server-side one
        has no such command, so the whole connection starts again.
        """
        is_server_side = self._channels.get(channel)
        if is_server_side is None or self._state is _State.CLOSED:
            return []
        if is_server_side:
            return self._close(CloseCode.INSUFFICIENT_STATE)
        del self._channels[channel]
        return [
            Leave(channel),
            Send(frames.push_unsubscribe(channel, UnsubscribeCode.INSUFFICIENT_STATE)),
        ]

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
        if now_s >= self._next_ping_s:
            self._next_ping_s = now_s + self._settings.ping_interval_s
            return [Send(frames.PING)]
        return []

    def _on_connect(self, command: frames.Connect, now_s: float) -> list[Effect]:
        if self._state is not _State.NEW:
            return self._close(CloseCode.BAD_REQUEST)
        try:
            identity = self._rules.authenticate(command.token) if command.token else self._cookie_identity
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
        channels = self._rules.server_channels(identity)
        if len(channels) > self._settings.max_channels:
            return self._close(CloseCode.CHANNEL_LIMIT)
        refusal = self._rules.admit(identity)
        if refusal is not None:
            return self._close(refusal)
        self.identity = identity  # set if and only if it was admitted: whoever counts relies on it
        self._can_refresh = bool(command.token) and not self.unidirectional
        self._expires_at_s = now_s + ttl_s
        self._expires_in_s = ttl_s
        self._state = _State.ATTACHING
        self._channels = dict.fromkeys(channels, True)
        wanted = {channel: command.recover.get(channel) for channel in channels}
        return [Attach(command.id, wanted, is_connect=True)]

    def _on_connected(self, attach: Attach, attachments: list[Attachment], now_s: float) -> list[Effect]:
        self._state = _State.OPEN
        result: dict[str, Any] = {
            "client": self.client_id,
            "version": VERSION,
            "ping": int(self._settings.ping_interval_s),
            "pong": not self.unidirectional,
            "subs": {found.channel: _subscribe_result(found, attach.wanted[found.channel]) for found in attachments},
        }
        if self._can_refresh and self._expires_in_s is not None:
            result |= {"expires": True, "ttl": max(1, int(self._expires_in_s))}
        # At random, so that the pings of sockets that came at once do not stay together.
        self._next_ping_s = now_s + self._rng.uniform(0.5, 1.0) * self._settings.ping_interval_s
        if self.unidirectional:
            line = frames.push_connect(result | {"session": self.client_id})
        else:
            line = frames.reply(attach.command_id, "connect", result)
        return [Send(line), *(Follow(found.channel, found.position) for found in attachments)]

    def _on_subscribe(self, command: frames.Subscribe) -> list[Effect]:
        if not command.channel:
            return self._close(CloseCode.BAD_REQUEST)
        refusal = self._subscribe_refusal(command)
        if refusal is not None:
            return self._refuse(command.id, refusal)
        self._channels[command.channel] = False
        return [
            Attach(
                command.id,
                {command.channel: command.since},
                is_connect=False,
                strict_recovery=command.strict_recovery,
            )
        ]

    def _subscribe_refusal(self, command: frames.Subscribe) -> ErrorCode | None:
        # Without the filter it asks for, a client would be sent what it did not want.
        if len(command.channel) > MAX_CHANNEL_CHARS or command.wants_filter:
            return ErrorCode.BAD_REQUEST
        if command.type != 0:
            return ErrorCode.NOT_AVAILABLE
        if command.channel in self._channels:
            return ErrorCode.ALREADY_SUBSCRIBED
        if len(self._channels) >= self._settings.max_channels:
            return ErrorCode.LIMIT_EXCEEDED
        return self._channel_refusal(command.channel)

    def _channel_refusal(self, channel: str) -> ErrorCode | None:
        try:
            kind_of(channel)
        except InvalidChannelError:
            return ErrorCode.UNKNOWN_CHANNEL
        identity = self._identified()
        return None if self._rules.may_subscribe(identity, channel) else ErrorCode.PERMISSION_DENIED

    def _on_unsubscribe(self, command: frames.Unsubscribe) -> list[Effect]:
        if not command.channel:
            return self._close(CloseCode.BAD_REQUEST)
        if self._channels.get(command.channel):  # what the identity entails cannot be given up
            return self._refuse(command.id, ErrorCode.PERMISSION_DENIED)
        self._channels.pop(command.channel, None)
        return [Leave(command.channel), Send(frames.reply(command.id, "unsubscribe", {}))]

    def _on_history_command(self, command: frames.History) -> list[Effect]:
        if not command.channel:
            return self._close(CloseCode.BAD_REQUEST)
        refusal = self._channel_refusal(command.channel)
        return [ReadHistory(command)] if refusal is None else self._refuse(command.id, refusal)

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

    def _on_channel_command(self, command: frames.ChannelCommand) -> list[Effect]:
        if not command.channel:
            return self._close(CloseCode.BAD_REQUEST)
        if command.method == "publish":  # clients listen; what they have to say goes through the HTTP API
            return self._refuse(command.id, ErrorCode.PERMISSION_DENIED)
        if command.method == "sub_refresh" and command.channel not in self._channels:
            return self._refuse(command.id, ErrorCode.PERMISSION_DENIED)
        return self._refuse(command.id, ErrorCode.NOT_AVAILABLE)

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
        self._channels.clear()
        return [Close(code)]

    def _identified(self) -> Identity:
        if self.identity is None:
            raise RuntimeError("a session without an identity took a command")
        return self.identity


def _rights(identity: Identity) -> tuple[object, ...]:
    return (identity.tenant, identity.roles, frozenset(identity.groups), frozenset(identity.clients))


def _subscribe_result(found: Attachment, since: StreamPosition | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "recoverable": True,
        "positioned": True,
        "epoch": found.position.epoch,
        "offset": found.position.offset,
    }
    if since is None:
        return result
    result |= {"was_recovering": True, "recovered": found.recovered}
    if found.recovered:
        # The requested offset: the SDK moves on from it by handling the publications.
        result |= {"offset": since.offset, "publications": frames.publications(found.publications)}
    return result
