"""Frames of the Centrifuge JSON protocol v2: commands in, replies and pushes out.

Decides nothing and knows no session. Invariant: what it encodes is one line without a
newline, and never blank; what it decodes has the types its dataclass says, whatever a
hostile client sent -- anything else is a ``FrameError``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from realtime.presence import PresenceReply
from realtime.publication import Publication, StreamPosition
from serve_apps.codes import CloseCode, ErrorCode, UnsubscribeCode
from serve_apps.errors import FrameError

PING = b"{}"
MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1
PUSH_PREFIX = b'{"push":'


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """Prove an identity and open the session."""

    id: int
    token: str
    subs: Mapping[str, StreamPosition | None]
    """Channels to be subscribed to by the server, and the positions to continue from; None: from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCommand:
    """A command about one channel."""

    id: int
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe(ChannelCommand):
    """Ask for one channel."""

    token: str
    """Proof that the identity may listen to it; empty: the identity alone decides."""
    wants_join_leave: bool
    since: StreamPosition | None
    """Position to recover from; None: from now on."""
    strict_recovery: bool
    """Answer 112 rather than start anew when the position is lost."""
    wants_filter: bool
    type: int
    """0: a stream, the only one there is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe(ChannelCommand):
    """Give one channel up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History(ChannelCommand):
    """Read a channel's recent publications."""

    limit: int
    """0: only the position; negative: as many as the server gives."""
    since: StreamPosition | None
    reverse: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """Prove the identity again before the token's time is over."""

    id: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRefresh(ChannelCommand):
    """Prove the right to a channel again before its token's time is over."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(ChannelCommand):
    """Say something to a channel's listeners."""

    data: bytes
    """The payload as JSON; empty: there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence(ChannelCommand):
    """Ask who is in a channel."""

    stats_only: bool
    """Numbers are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """Call a method by name."""

    id: int
    method: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyPing:
    """The protocol's old client ping, which no SDK sends."""

    id: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The client's ``{}``: it has handled everything before the ping it answers."""


@dataclass(frozen=True, slots=True)
class Message:
    """A ``send``: no reply is wanted."""


Command = (
    Connect | Subscribe | Unsubscribe | History | Refresh | SubRefresh | Publish | Presence | Rpc | LegacyPing | Pong
    | Message
)  # fmt: skip


def parse_frame(text: str) -> Iterator[Command]:
    """Yield the commands of one frame, in order.

    Lazy: a broken line is an error only when its turn comes, as the commands before it stand.

    Raises:
        FrameError: a line is no command, or the frame holds none.
    """
    is_empty = True
    for line in text.split("\n"):
        if line and not line.isspace():
            is_empty = False
            yield parse_command(line)
    if is_empty:
        raise FrameError("empty frame")


def parse_command(line: str) -> Command:
    """Return the command in one line.

    Raises:
        FrameError: not JSON, not an object, no known command, or a field of the wrong type.
    """
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise FrameError("not JSON") from error
    if not isinstance(value, dict):
        raise FrameError("not an object")
    if not value:
        return Pong()
    method = next((name for name in _PARSERS if value.get(name) is not None), None)
    if method is None:
        raise FrameError("no known command")
    params = value[method]
    if not isinstance(params, dict):
        raise FrameError(f"{method} is not an object")
    if method == "send":
        return Message()
    command_id = _integer(value, "id", 0, MAX_UINT32)
    if command_id == 0:
        raise FrameError("a command needs an id")
    return _PARSERS[method](command_id, method, params)


def parse_connect_request(text: str) -> Connect:
    """Return the bare connect request of a unidirectional transport; the empty text is an empty one.

    Raises:
        FrameError: not an object, or a field of the wrong type.
    """
    try:
        value = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError as error:
        raise FrameError("not JSON") from error
    if not isinstance(value, dict):
        raise FrameError("not an object")
    return _connect(0, "connect", value)


def reply(command_id: int, method: str, result: Mapping[str, Any]) -> bytes:
    """Encode the answer to a command; the result's key is there even when it is empty."""
    return orjson.dumps({"id": command_id, method: result})


def error_reply(command_id: int, code: ErrorCode) -> bytes:
    """Encode the refusal of a command."""
    error: dict[str, Any] = {"code": int(code), "message": code.reason}
    if code.is_temporary:
        error["temporary"] = True
    return orjson.dumps({"id": command_id, "error": error})


def push_prefix(channel: str) -> bytes:
    """Return the beginning of every publication push of ``channel``, up to the payload."""
    return b'{"push":{"channel":' + orjson.dumps(channel) + b',"pub":{"data":'


def push_publication(prefix: bytes, publication: Publication) -> bytes:
    """Encode a publication push; ``prefix`` is the channel's own (see ``push_prefix``).

    Joined by hand: the payload is JSON already, and this line is made once for all
    connections of the replica, on the hottest path there is.
    """
    info = b',"info":' + publication.info if publication.info else b""
    return b'%b%b%b,"offset":%d,"time":%d}}}' % (
        prefix, publication.data, info, publication.offset, publication.time_ms
    )  # fmt: skip


def push_subscribe(channel: str, result: Mapping[str, Any]) -> bytes:
    """Encode a subscription that the server began while the client was connected."""
    return orjson.dumps({"push": {"channel": channel, "subscribe": result}})


def push_member(channel: str, event: Literal["join", "leave"], user: str, client: str) -> bytes:
    """Encode that a member of ``channel`` came or went."""
    return orjson.dumps({"push": {"channel": channel, event: {"info": client_info(user, client)}}})


def client_info(user: str, client: str) -> dict[str, Any]:
    """Return a connection as presence, joins and publications name it."""
    return {"user": user, "client": client}


def push_unsubscribe(channel: str, code: UnsubscribeCode) -> bytes:
    """Encode the end of a subscription."""
    body = {"channel": channel, "unsubscribe": {"code": int(code), "reason": code.reason}}
    return orjson.dumps({"push": body})


def push_connect(result: Mapping[str, Any]) -> bytes:
    """Encode the first message of a unidirectional transport."""
    return orjson.dumps({"push": {"connect": result}})


def push_disconnect(code: CloseCode) -> bytes:
    """Encode the end of a transport that has no close codes of its own."""
    body = {"code": int(code), "reason": code.reason, "reconnect": not code.is_final}
    return orjson.dumps({"push": {"disconnect": body}})


def unwrap(push: bytes) -> bytes:
    """Return a push as unidirectional transports send it: without the outer ``push``."""
    return push[len(PUSH_PREFIX) : -1] if push.startswith(PUSH_PREFIX) else push


def publications(items: Iterable[Publication]) -> list[dict[str, Any]]:
    """Return publications as a reply's result carries them."""
    return [_publication(item) for item in items]


def presence(found: PresenceReply) -> dict[str, Any]:
    """Return the members of a channel as a reply's result carries them."""
    return {"presence": {member.client: client_info(member.user, member.client) for member in found.members}}


def presence_stats(found: PresenceReply) -> dict[str, Any]:
    """Return the numbers of a channel's members as a reply's result carries them."""
    return {"num_clients": found.num_clients, "num_users": found.num_users}


def _publication(item: Publication) -> dict[str, Any]:
    body: dict[str, Any] = {"data": orjson.Fragment(item.data), "offset": item.offset, "time": item.time_ms}
    return body | {"info": orjson.Fragment(item.info)} if item.info else body


def _connect(command_id: int, _method: str, params: dict[str, Any]) -> Connect:
    subs = params.get("subs")
    if subs is None:
        subs = {}
    if not isinstance(subs, dict):
        raise FrameError("subs is not an object")
    named: dict[str, StreamPosition | None] = {}
    for channel, request in subs.items():
        if not isinstance(request, dict):
            raise FrameError("a subscription is not an object")
        named[channel] = _position(request) if _boolean(request, "recover") else None
    return Connect(id=command_id, token=_text(params, "token"), subs=named)


def _subscribe(command_id: int, _method: str, params: dict[str, Any]) -> Subscribe:
    return Subscribe(
        id=command_id,
        channel=_text(params, "channel"),
        token=_text(params, "token"),
        wants_join_leave=_boolean(params, "join_leave"),
        since=_position(params) if _boolean(params, "recover") else None,
        strict_recovery=bool(_integer(params, "flag", 0, MAX_UINT64) & 2),
        wants_filter=params.get("tf") is not None,
        type=_integer(params, "type", 0, MAX_UINT32),
    )


def _unsubscribe(command_id: int, _method: str, params: dict[str, Any]) -> Unsubscribe:
    return Unsubscribe(id=command_id, channel=_text(params, "channel"))


def _history(command_id: int, _method: str, params: dict[str, Any]) -> History:
    since = params.get("since")
    if since is not None and not isinstance(since, dict):
        raise FrameError("since is not an object")
    return History(
        id=command_id,
        channel=_text(params, "channel"),
        limit=_integer(params, "limit", -(2**31), 2**31 - 1),
        since=_position(since) if since is not None else None,
        reverse=_boolean(params, "reverse"),
    )


def _refresh(command_id: int, _method: str, params: dict[str, Any]) -> Refresh:
    return Refresh(id=command_id, token=_text(params, "token"))


def _sub_refresh(command_id: int, _method: str, params: dict[str, Any]) -> SubRefresh:
    return SubRefresh(id=command_id, channel=_text(params, "channel"), token=_text(params, "token"))


def _publish(command_id: int, _method: str, params: dict[str, Any]) -> Publish:
    try:
        data = orjson.dumps(params["data"]) if "data" in params else b""
    except TypeError as error:  # nested deeper than can be written again
        raise FrameError("data is nested too deep") from error
    return Publish(id=command_id, channel=_text(params, "channel"), data=data)


def _presence(command_id: int, method: str, params: dict[str, Any]) -> Presence:
    return Presence(id=command_id, channel=_text(params, "channel"), stats_only=method == "presence_stats")


def _rpc(command_id: int, _method: str, params: dict[str, Any]) -> Rpc:
    return Rpc(id=command_id, method=_text(params, "method"), data=params.get("data"))


def _legacy_ping(command_id: int, _method: str, _params: dict[str, Any]) -> LegacyPing:
    return LegacyPing(id=command_id)


def _message(_command_id: int, _method: str, _params: dict[str, Any]) -> Message:
    return Message()


_PARSERS: dict[str, Callable[[int, str, dict[str, Any]], Command]] = {
    "connect": _connect,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "publish": _publish,
    "presence": _presence,
    "presence_stats": _presence,
    "history": _history,
    "ping": _legacy_ping,
    "send": _message,
    "rpc": _rpc,
    "refresh": _refresh,
    "sub_refresh": _sub_refresh,
}


def _position(params: Mapping[str, Any]) -> StreamPosition:
    return StreamPosition(epoch=_text(params, "epoch"), offset=_integer(params, "offset", 0, MAX_UINT64))


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FrameError(f"{name} is not a string")
    return value


def _integer(params: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = params.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FrameError(f"{name} is not an integer of its range")
    return value


def _boolean(params: Mapping[str, Any], name: str) -> bool:
    value = params.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise FrameError(f"{name} is not a boolean")
    return value
