"""One client's subscriptions: what its commands about channels are answered.

Knows no socket and no connection state: the session asks only while it is open. No I/O, no
clock. Invariant: a channel is here from the moment it was granted until its ``Leave``, and
a refusal leaves everything as it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from realtime.channels import is_channel, kind_of
from realtime.publication import StreamPosition
from serve_apps import frames
from serve_apps.auth import Identity, Role
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.effects import (
    Attach,
    Attachment,
    Effect,
    Follow,
    Leave,
    Publish,
    ReadHistory,
    ReadPresence,
    Refuse,
    Send,
)
from serve_apps.errors import AuthenticationError, KeysUnavailableError, NotAllowedError, TokenExpiredError
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.ledger import tally
from serve_apps.namespaces import Namespace, namespace_of

MAX_CHANNEL_CHARS = 255


@dataclass(frozen=True, slots=True)
class Rules:
    """What a session asks about identities; how they are answered stands elsewhere."""

    authenticate: Callable[[str], Identity]
    """Token -> identity; raises AuthenticationError."""
    server_channels: Callable[[Identity], tuple[str, ...]]
    may_subscribe: Callable[[Identity, str], bool]
    admit: Callable[[Identity], CloseCode | None]
    """Why one more connection of this identity is refused; None: welcome."""
    authorise_subscription: Callable[[Identity, str, str], float | None]
    """(identity, channel, token of the channel) -> its expiry in epoch seconds, None: none of its own;
    raises AuthenticationError, TokenExpiredError or NotAllowedError."""
    take_command: Callable[[Identity, float], bool] = lambda _identity, _now_s: True
    """(identity, monotonic seconds) -> whether its tenant may send one more command."""
    may_meet: Callable[[Identity, str], bool] = lambda _identity, _channel: True
    """Whether the identity may see who listens to a channel that it listens to, and write to them."""
    namespace_of: Callable[[str], Namespace] = namespace_of
    rpc: Mapping[str, Role] = field(default_factory=dict)
    """Methods of ``rpc`` and the least role of their callers."""


@dataclass(frozen=True, slots=True)
class _Subscription:
    is_server_side: bool
    wants_join_leave: bool


class Subscriptions:
    """The channels of one client."""

    def __init__(self, client_id: str, settings: GatewaySettings, rules: Rules, wall_s: Callable[[], float]) -> None:
        self._client_id = client_id
        self._settings = settings
        self._rules = rules
        self._wall_s = wall_s
        self._held: dict[str, _Subscription] = {}
        self._ends_s: dict[str, float] = {}  # channel -> monotonic seconds; those whose token expires

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, channel: str) -> bool:
        return channel in self._held

    def is_server_side(self, channel: str) -> bool:
        """Tell whether the server subscribed the client to a held channel."""
        return self._held[channel].is_server_side

    def hears_members(self, channel: str) -> bool:
        """Tell whether the client is told of joins and leaves of a channel."""
        held = self._held.get(channel)
        return held is not None and held.wants_join_leave and self._rules.namespace_of(channel).join_leave

    def begin(self, identity: Identity, named: Mapping[str, StreamPosition | None]) -> dict[str, StreamPosition | None]:
        """Return the server-side channels of a connection that opens, with the positions to go on from.

        Args:
            identity: whose connection.
            named: channels in the connect command. Those that the client might ask for anyway
                are subscribed to as well: a server-side subscription outlives its socket.
        """
        # An identity provider may name users and groups as no channel can be named ("auth0|7", "Night shift").
        channels = [name for name in self._rules.server_channels(identity) if self._name_refusal(name) is None]
        further = [name for name in named if name not in channels and self._refusal(identity, name) is None]
        channels += further[: max(0, self._settings.max_channels - len(channels))]
        for channel in channels:
            self._held[channel] = _Subscription(is_server_side=True, wants_join_leave=True)
        return {channel: self._recoverable(channel, named.get(channel)) for channel in channels}

    def clear(self) -> None:
        """Forget all of them."""
        self._held.clear()
        self._ends_s.clear()

    def discard(self, channels: Iterable[str]) -> None:
        """Forget channels whose attachment failed."""
        for channel in channels:
            self._drop(channel)

    def on_subscribe(self, identity: Identity, command: frames.Subscribe, now_s: float) -> list[Effect]:
        """Grant or refuse one channel."""
        expires_at: float | None = None
        refusal = self._subscribe_refusal(command)
        if refusal is None and command.token:
            refusal, expires_at = self._by_token(identity, command.channel, command.token)
        elif refusal is None:
            refusal = self._refusal(identity, command.channel)
        if refusal is not None:
            return [Refuse(command.id, refusal)]
        self._held[command.channel] = _Subscription(False, command.wants_join_leave)
        if expires_at is not None:
            self._ends_s[command.channel] = now_s + expires_at - self._wall_s()
        wanted = {command.channel: self._recoverable(command.channel, command.since)}
        return [Attach(command.id, wanted, is_connect=False, strict_recovery=command.strict_recovery)]

    def on_server_subscribe(self, identity: Identity, channel: str) -> list[Effect]:
        """Subscribe the client without its asking; nothing where it may not listen or does already."""
        if channel in self._held or len(self._held) >= self._settings.max_channels:
            return []
        if self._refusal(identity, channel) is not None:
            return []
        self._held[channel] = _Subscription(is_server_side=True, wants_join_leave=True)
        return [Attach(0, {channel: None}, is_connect=False)]

    def on_attached(self, attach: Attach, found: Attachment, now_s: float) -> list[Effect]:
        """Answer a subscribe, or tell the client of one that it did not ask for."""
        if found.channel not in self._held:  # ended by a service while the hub was asked
            return [Refuse(attach.command_id, ErrorCode.PERMISSION_DENIED)] if attach.command_id else []
        since = attach.wanted[found.channel]
        if since is not None and not found.recovered and attach.strict_recovery:
            self._drop(found.channel)
            return [Refuse(attach.command_id, ErrorCode.UNRECOVERABLE_POSITION), Leave(found.channel)]
        result = self.result(found, since, now_s)
        if attach.command_id:
            line = frames.reply(attach.command_id, "subscribe", result)
        else:
            line = frames.push_subscribe(found.channel, result)
        return [Send(line, recovered_tally(found, since)), Follow(found.channel, found.position)]

    def result(self, found: Attachment, since: StreamPosition | None, now_s: float) -> dict[str, Any]:
        """Return what the client is told about a channel it was subscribed to."""
        result: dict[str, Any] = {
            "recoverable": self._rules.namespace_of(found.channel).recovery,
            "positioned": True,
            "epoch": found.position.epoch,
            "offset": found.position.offset,
        }
        ends_s = self._ends_s.get(found.channel)
        if ends_s is not None:
            result |= {"expires": True, "ttl": max(1, int(ends_s - now_s))}
        if since is None:
            return result
        result |= {"was_recovering": True, "recovered": found.recovered}
        if found.recovered:
            # The requested offset: the SDK moves on from it by handling the publications.
            result |= {"offset": since.offset, "publications": frames.publications(found.publications)}
        return result

    def on_unsubscribe(self, command: frames.Unsubscribe) -> list[Effect]:
        """Give up a client-side channel; one that is not held is no error."""
        held = self._held.get(command.channel)
        if held is not None and held.is_server_side:  # what the identity entails cannot be given up
            return [Refuse(command.id, ErrorCode.PERMISSION_DENIED)]
        self._drop(command.channel)
        return [Leave(command.channel), Send(frames.reply(command.id, "unsubscribe", {}))]

    def end(self, channel: str, code: UnsubscribeCode) -> list[Effect]:
        """End a subscription from the server's side; nothing where there is none."""
        if not self._drop(channel):
            return []
        return [Leave(channel), Send(frames.push_unsubscribe(channel, code))]

    def on_sub_refresh(self, identity: Identity, command: frames.SubRefresh, now_s: float) -> list[Effect]:
        """Let a subscription live longer by a new token of its channel."""
        if command.channel not in self._held:
            return [Refuse(command.id, ErrorCode.PERMISSION_DENIED)]
        if command.channel not in self._ends_s:
            return [Refuse(command.id, ErrorCode.NOT_AVAILABLE)]
        refusal, expires_at = self._by_token(identity, command.channel, command.token)
        if refusal is not None:
            return [Refuse(command.id, ErrorCode.EXPIRED if refusal is ErrorCode.TOKEN_EXPIRED else refusal)]
        result: dict[str, Any] = {}
        del self._ends_s[command.channel]
        if expires_at is not None:
            ttl_s = expires_at - self._wall_s()
            self._ends_s[command.channel] = now_s + ttl_s
            result = {"expires": True, "ttl": max(1, int(ttl_s))}
        return [Send(frames.reply(command.id, "sub_refresh", result))]

    def overdue(self, now_s: float) -> list[str]:
        """Return the channels whose expiry and its grace are over."""
        grace_s = self._settings.expiry_grace_s
        return [channel for channel, ends_s in self._ends_s.items() if now_s >= ends_s + grace_s]

    def on_history(self, identity: Identity, command: frames.History) -> list[Effect]:
        """Let a client read the history of a channel that it may listen to."""
        refusal = self._listener_refusal(identity, command.channel)
        if refusal is None and not self._rules.namespace_of(command.channel).history:
            refusal = ErrorCode.NOT_AVAILABLE
        return [ReadHistory(command)] if refusal is None else [Refuse(command.id, refusal)]

    def on_presence(self, identity: Identity, command: frames.Presence) -> list[Effect]:
        """Let a client see who is in a channel that it may listen to."""
        refusal = self._listener_refusal(identity, command.channel)
        if refusal is None and not self._rules.may_meet(identity, command.channel):
            refusal = ErrorCode.PERMISSION_DENIED
        if refusal is not None:
            return [Refuse(command.id, refusal)]
        namespace = self._rules.namespace_of(command.channel)
        if not namespace.presence:
            return [Refuse(command.id, ErrorCode.NOT_AVAILABLE)]
        return [ReadPresence(command, 0 if command.stats_only else namespace.presence_limit)]

    def on_publish(self, identity: Identity, command: frames.Publish) -> list[Effect]:
        """Let a client publish where it may listen, its role suffices, and the payload is small enough."""
        refusal = self._listener_refusal(identity, command.channel)
        if refusal is None:
            namespace = self._rules.namespace_of(command.channel)
            may_write = self._rules.may_meet(identity, command.channel)
            if not may_write or namespace.publish_role is None or not identity.has(namespace.publish_role):
                refusal = ErrorCode.PERMISSION_DENIED
            elif not command.data:
                refusal = ErrorCode.BAD_REQUEST
            elif len(command.data) > namespace.publish_bytes:
                refusal = ErrorCode.LIMIT_EXCEEDED
        if refusal is not None:
            return [Refuse(command.id, refusal)]
        return [Publish(command, orjson.dumps(frames.client_info(identity.user_id, self._client_id)))]

    def _drop(self, channel: str) -> bool:
        self._ends_s.pop(channel, None)
        return self._held.pop(channel, None) is not None

    def _subscribe_refusal(self, command: frames.Subscribe) -> ErrorCode | None:
        # Without the filter it asks for, a client would be sent what it did not want.
        if len(command.channel) > MAX_CHANNEL_CHARS or command.wants_filter:
            return ErrorCode.BAD_REQUEST
        if command.type != 0:
            return ErrorCode.NOT_AVAILABLE
        if command.channel in self._held:
            return ErrorCode.ALREADY_SUBSCRIBED
        if len(self._held) >= self._settings.max_channels:
            return ErrorCode.LIMIT_EXCEEDED
        return self._name_refusal(command.channel)

    def _name_refusal(self, channel: str) -> ErrorCode | None:
        if not is_channel(channel):
            return ErrorCode.UNKNOWN_CHANNEL
        return ErrorCode.PERMISSION_DENIED if self._rules.namespace_of(channel).is_internal else None

    def _refusal(self, identity: Identity, channel: str) -> ErrorCode | None:
        refusal = self._name_refusal(channel)
        if refusal is not None:
            return refusal
        return None if self._rules.may_subscribe(identity, channel) else ErrorCode.PERMISSION_DENIED

    def _listener_refusal(self, identity: Identity, channel: str) -> ErrorCode | None:
        # Who listens by a token of the channel has its right proved already, until it ends.
        return None if channel in self._held else self._refusal(identity, channel)

    def _by_token(self, identity: Identity, channel: str, token: str) -> tuple[ErrorCode | None, float | None]:
        try:
            return None, self._rules.authorise_subscription(identity, channel, token)
        except TokenExpiredError:
            return ErrorCode.TOKEN_EXPIRED, None
        except KeysUnavailableError:
            return ErrorCode.INTERNAL, None
        except (AuthenticationError, NotAllowedError):
            return ErrorCode.PERMISSION_DENIED, None

    def _recoverable(self, channel: str, since: StreamPosition | None) -> StreamPosition | None:
        return since if self._rules.namespace_of(channel).recovery else None


def recovered_tally(found: Attachment, since: StreamPosition | None) -> int:
    """Return the tally of the publications that an answer brings back (see ``ledger``)."""
    return 0 if since is None or not found.recovered else tally(kind_of(found.channel), found.publications)
