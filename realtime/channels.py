"""Names of channels: how they are built, checked and classed.

Knows no subscriptions and no rights; who may read a channel is decided by the gateway.
Invariant: every name that ``kind_of`` accepts can be subscribed to by a Centrifuge SDK
and carries its audience before the first colon; behind a ``#`` it names the only users
who may listen (``group:ops#42,43``).
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache

from cluster import names
from realtime.errors import InvalidChannelError


class ChannelKind(StrEnum):
    """Audience of a channel; the only part of a name that may become a metric label."""

    NOC = "noc"
    USER = "user"
    TENANT = "tenant"
    GROUP = "group"
    RUN = "run"
    DEVICE = "device"
    GATEWAY = "gateway"
    """The gateway replicas themselves; no client ever."""


NOC_ALL = names.CHANNEL_NOC
GATEWAY_ALL = "gateway:all"
"""What every gateway replica hears (see ``notices``)."""

MAX_CHANNEL_LENGTH = 200

_ID = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}"
_LEVEL = r"[A-Za-z0-9_-]{1,64}"  # as in an MQTT topic, see ingest
_FORMS = {
    ChannelKind.NOC: re.compile(rf"all|client-{_ID}"),
    ChannelKind.USER: re.compile(_ID),
    ChannelKind.TENANT: re.compile(_ID),
    ChannelKind.GROUP: re.compile(rf"{_ID}(#{_ID}(,{_ID})*)?"),
    ChannelKind.RUN: re.compile(_ID),
    ChannelKind.DEVICE: re.compile(rf"{_LEVEL}/{_LEVEL}"),
    ChannelKind.GATEWAY: re.compile("all"),
}


@lru_cache(maxsize=4096)
def kind_of(channel: str) -> ChannelKind:
    """Return the audience of ``channel``.

    Raises:
        InvalidChannelError: the name is of no kind, or its identifier has a sign that
            is not allowed.
    """
    kind_name, colon, identifier = channel.partition(":")
    if not colon or kind_name not in ChannelKind.__members__.values():
        raise InvalidChannelError(channel[:MAX_CHANNEL_LENGTH], f"must begin with one of {', '.join(ChannelKind)}")
    kind = ChannelKind(kind_name)
    if len(channel) > MAX_CHANNEL_LENGTH or not _FORMS[kind].fullmatch(identifier):
        raise InvalidChannelError(channel[:MAX_CHANNEL_LENGTH], "has an identifier that cannot be used")
    return kind


def is_channel(name: str) -> bool:
    """Tell whether ``name`` is one that ``kind_of`` accepts."""
    try:
        kind_of(name)
    except InvalidChannelError:
        return False
    return True


def limited_to(channel: str) -> frozenset[str] | None:
    """Return the only users who may listen to ``channel``; None: its name limits nobody.

    A valid name is assumed.
    """
    _, sign, users = channel.partition("#")
    return frozenset(users.split(",")) if sign else None


def noc_client(client_id: int | str) -> str:
    """Return the channel of the NOC dashboards that watch one client."""
    return _checked(f"noc:client-{client_id}")


def user(user_id: int | str) -> str:
    """Return the channel that all connections of a user receive."""
    return _checked(f"user:{user_id}")


def tenant(tenant_id: int | str) -> str:
    """Return the channel that all users of a tenant receive."""
    return _checked(f"tenant:{tenant_id}")


def group(group_name: str, users: Iterable[int | str] = ()) -> str:
    """Return the channel of a named group; with ``users`` of these users alone."""
    limit = ",".join(str(one) for one in users)
    return _checked(f"group:{group_name}#{limit}" if limit else f"group:{group_name}")


def run(run_id: str) -> str:
    """Return the channel of one run's progress and state."""
    return _checked(f"run:{run_id}")


def device(tenant_id: str, device_id: str) -> str:
    """Return the channel of one device."""
    return _checked(f"device:{tenant_id}/{device_id}")


def _checked(channel: str) -> str:
    kind_of(channel)
    return channel
