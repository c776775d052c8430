"""What the gateways of a floor tell each other and hear from the hub, on a channel of their own.

Values and their form on the wire; performs nothing. Invariant: ``read(write(notice)) ==
notice``, and what cannot be read -- a later version's notice -- is None, never an error.

They travel as publications of ``gateway:all``, so they have an order, an idempotency key
and a history that a replica recovers from like any client.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from realtime.presence import Changes, Member

MEMBERS_PER_NOTICE = 100
"""About 40 KB of the longest names; a publication has at most 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whose connections are meant."""

    user: str
    client: str = ""
    """Only this connection; empty: all of the user's."""
    tenant: str | None = None
    """Only connections of this tenant; None: of any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """Close connections."""

    audience: Audience
    code: int
    spared: tuple[str, ...] = ()
    """Connections that stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """Subscribe connections to a channel that they may listen to."""

    audience: Audience
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """End the subscription of connections to a channel."""

    audience: Audience
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Close every connection at a pace, and send newcomers away for a while."""

    over_s: float
    """Seconds over which the closing is spread."""
    hold_s: float
    """Seconds, from now, for which newcomers are sent away."""


Command = Disconnect | Subscribe | Unsubscribe
Notice = Changes | Command | Drain

_COMMANDS: dict[str, type[Disconnect] | type[Subscribe] | type[Unsubscribe]] = {
    "disconnect": Disconnect,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
}


def changes_in_parts(changes: Changes) -> Iterator[Changes]:
    """Yield the same changes in parts that fit into one publication each."""
    for start in range(0, len(changes.left), MEMBERS_PER_NOTICE):
        yield Changes(left=changes.left[start : start + MEMBERS_PER_NOTICE])
    for start in range(0, len(changes.joined), MEMBERS_PER_NOTICE):
        yield Changes(joined=changes.joined[start : start + MEMBERS_PER_NOTICE])


def write(notice: Notice) -> bytes:
    """Return the payload of one notice."""
    if isinstance(notice, Changes):
        body = {"joined": _write_members(notice.joined), "left": _write_members(notice.left)}
        return orjson.dumps({"presence": body})
    if isinstance(notice, Drain):
        return orjson.dumps({"drain": asdict(notice)})
    (name,) = [name for name, kind in _COMMANDS.items() if isinstance(notice, kind)]
    return orjson.dumps({name: asdict(notice)})


def read(payload: bytes) -> Notice | None:
    """Return the notice in a payload; None for one that this version does not know."""
    try:
        ((name, body),) = orjson.loads(payload).items()
        if name == "presence":
            return Changes(_read_members(body["joined"]), _read_members(body["left"]))
        if name == "drain":
            return Drain(over_s=float(body["over_s"]), hold_s=float(body["hold_s"]))
        return _read_command(name, body)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _read_command(name: str, body: dict[str, Any]) -> Command:
    fields = body | {"audience": Audience(**body["audience"])}
    if "spared" in fields:
        fields["spared"] = tuple(fields["spared"])
    return _COMMANDS[name](**fields)


def _write_members(members: tuple[Member, ...]) -> list[tuple[str, str, str]]:
    return [(member.channel, member.client, member.user) for member in members]


def _read_members(wire: list[tuple[str, str, str]]) -> tuple[Member, ...]:
    return tuple(Member(channel, client, user, announced=True) for channel, client, user in wire)
