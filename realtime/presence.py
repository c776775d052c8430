"""Who is in which channel now, as the gateways report it.

Pure state: no I/O, no clock, no Ray. Knows no rights and no options of channels; a report
says which of its members are to be announced.
Invariants: a member is gone when its gateway says so, or ``presence_ttl_s`` after its
gateway was last heard of; memory is bounded, and what the bounds refuse is counted.

A gateway holds one lease for all of its members, so a renewal costs the same for one member
and for a hundred thousand. The hub's memory of members dies with its process: a report of a
gateway that it does not know is answered so, and the gateway then tells everything again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from realtime.settings import HubSettings


@dataclass(frozen=True, slots=True)
class Member:
    """One connection in one channel."""

    channel: str
    client: str
    user: str
    announced: bool = False
    """The channel's other members hear of its coming and going."""


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """One gateway replica, as it describes itself."""

    uid: str
    num_clients: int
    num_users: int
    num_channels: int
    uptime_s: int


@dataclass(frozen=True, slots=True)
class Report:
    """What changed on one gateway since its last report; an empty one renews its lease."""

    figures: GatewayFigures
    number: int
    """Rises with each report of a gateway: a late copy of an older one changes nothing."""
    joins: tuple[Member, ...] = ()
    leaves: tuple[tuple[str, str], ...] = ()
    """(channel, client) of members that went."""
    is_first: bool = False
    """The gateway begins to tell everything: what the hub knew of it is void."""
    is_news: bool = True
    """False: the joins happened before, and are not announced again."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Members whose coming or going is to be announced."""

    joined: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class PresenceReply:
    """Members of one channel, those that came first in front."""

    members: tuple[Member, ...]
    """At most as many as were asked for."""
    num_clients: int
    num_users: int


@dataclass(slots=True)
class _Lease:
    figures: GatewayFigures
    number: int
    ends_s: float
    members: set[tuple[str, str]] = field(default_factory=set)


class Presence:
    """All members of all channels of a floor."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self._channels: dict[str, dict[str, Member]] = {}
        self._leases: dict[str, _Lease] = {}
        self.num_members = 0
        self.refused_total = 0
        """Members not held because there were too many."""

    def report(self, report: Report, now_s: float) -> Changes | None:
        """Take a gateway's report; None when the gateway is unknown and must tell everything first."""
        uid = report.figures.uid
        lease = self._leases.get(uid)
        if lease is None:
            if not report.is_first:
                return None
            if len(self._leases) >= self._settings.presence_gateways:
                self.refused_total += len(report.joins)
                return Changes()
            lease = self._leases[uid] = _Lease(report.figures, report.number, now_s)
        elif report.number <= lease.number:
            return Changes()
        elif report.is_first:
            self._drop_all(lease)
        lease.figures, lease.number = report.figures, report.number
        lease.ends_s = now_s + self._settings.presence_ttl_s
        left = [self._drop(lease, key) for key in report.leaves]
        joined = [member for member in report.joins if self._hold(lease, member)]
        return Changes(
            tuple(member for member in joined if member.announced and report.is_news),
            tuple(member for member in left if member is not None and member.announced),
        )

    def expire(self, now_s: float) -> Changes:
        """Let the members of gateways go whose lease is over."""
        left: list[Member] = []
        for uid, lease in list(self._leases.items()):
            if lease.ends_s <= now_s:
                del self._leases[uid]
                left += self._drop_all(lease)
        return Changes(left=tuple(member for member in left if member.announced))

    def members(self, channel: str, limit: int) -> PresenceReply:
        """Return up to ``limit`` members of ``channel`` and how many there are."""
        found = self._channels.get(channel, {})
        users = {member.user for member in found.values()}
        return PresenceReply(tuple(found.values())[:limit], len(found), len(users))

    def channels(self, pattern: str, limit: int) -> dict[str, int]:
        """Return up to ``limit`` channels with members and how many those are.

        Args:
            pattern: ``*``, ``?`` and ``[...]`` as in file names; empty: all.
            limit: channels returned, in the order of their first member.
        """
        found: dict[str, int] = {}
        for channel, members in self._channels.items():
            if len(found) >= limit:
                break
            if not pattern or fnmatchcase(channel, pattern):
                found[channel] = len(members)
        return found

    def gateways(self) -> tuple[GatewayFigures, ...]:
        """Return every gateway that holds a lease, as it last described itself."""
        return tuple(lease.figures for lease in self._leases.values())

    def _hold(self, lease: _Lease, member: Member) -> bool:
        """Note a member; False when it was known already or there is no room for it."""
        key = (member.channel, member.client)
        if key in lease.members:
            return False
        channel = self._channels.get(member.channel, {})
        is_full = self.num_members >= self._settings.presence_members
        if is_full or len(channel) >= self._settings.presence_channel_members or member.client in channel:
            self.refused_total += 1
            return False
        channel[member.client] = member
        self._channels[member.channel] = channel
        lease.members.add(key)
        self.num_members += 1
        return True

    def _drop(self, lease: _Lease, key: tuple[str, str]) -> Member | None:
        if key not in lease.members:
            return None
        lease.members.discard(key)
        name, client = key
        channel = self._channels[name]
        member = channel.pop(client)
        if not channel:
            del self._channels[name]
        self.num_members -= 1
        return member

    def _drop_all(self, lease: _Lease) -> Iterable[Member]:
        dropped = [self._drop(lease, key) for key in list(lease.members)]
        return [member for member in dropped if member is not None]
