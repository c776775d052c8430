"""What each kind of channel offers its listeners: the one table of channel options.

Decides nothing about identities beyond the least role that may publish; who may listen to
which channel is ``authorisation.py``'s. Invariant: every ``ChannelKind`` has its row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from realtime.channels import ChannelKind, kind_of
from serve_apps.auth import Role

KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Options of one kind of channel."""

    is_internal: bool = False
    """No client and no caller of the HTTP API listens or publishes here."""
    recovery: bool = True
    """A client that comes back is given what it missed."""
    history: bool = True
    """Who may listen may also read the history."""
    presence: bool = True
    """Members are reported to the hub; who may listen may see who else does."""
    presence_limit: int = 1000
    """Members that one listing names; ``presence_stats`` counts them all."""
    join_leave: bool = False
    """Members hear of each other's coming and going; a client-side subscription must ask for it."""
    join_leave_limit: int = 200
    """Members on one replica above which nobody there hears of joins and leaves: each is told to all the others."""
    publish_role: Role | None = None
    """Least role of a listener that may publish from its connection; None: services only, over the HTTP API."""
    publish_bytes: int = 16 * KIB
    """Largest payload that a listener may publish; the HTTP API has the hub's own bound."""


NAMESPACES: Mapping[ChannelKind, Namespace] = {
    ChannelKind.NOC: Namespace(),
    ChannelKind.USER: Namespace(),
    ChannelKind.TENANT: Namespace(),
    # People who work together: they see each other come and go, and may write to each other.
    ChannelKind.GROUP: Namespace(join_leave=True, publish_role=Role.OPERATOR),
    # What a run says about itself must not be forged by who watches it.
    ChannelKind.RUN: Namespace(join_leave=True),
    ChannelKind.DEVICE: Namespace(),
    ChannelKind.GATEWAY: Namespace(is_internal=True, recovery=True, history=False, presence=False),
}


def namespace_of(channel: str) -> Namespace:
    """Return the options of ``channel``.

    Raises:
        InvalidChannelError: its name is of no kind.
    """
    return NAMESPACES[kind_of(channel)]
