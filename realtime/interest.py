"""Which channels each gateway replica wants to hear, under leases: what nobody on it follows is not sent to it.

Pure state beside the hub's log; the owner passes the time in. A gateway says all that it
follows once in a lease, and from then on what it adds (with the question that begins a
channel) and what it leaves (with its next poll). Calls may overtake each other, so each
carries a number; and one may outlive the hub that it was for, so what is to be all names the
lease that asked for it, and is written after everything that was told in an earlier one.
Invariant: what is held back from a gateway is of channels that it did not ask for, or left
after it last asked; a gateway that did not say everything, or was not heard of, gets everything.
"""

import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for channels that it is about to follow."""

    gateway: str
    number: int
    """Ascending over all calls of a gateway, this kind and ``Wish`` together."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a gateway wants to hear in its polls."""

    gateway: str
    number: int
    leaves: tuple[str, ...] = ()
    """Channels that it has stopped to follow."""
    follows: tuple[str, ...] | None = None
    """All channels that it follows, when the hub has asked for them; None: as it knows."""
    lease: str = ""
    """Under which the hub has asked."""


class _Lease:
    __slots__ = ("channels", "ends_s", "is_complete", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.channels: dict[str, int] = {}
        """Number of the call that named it last."""
        self.is_complete = False
        self.ends_s = 0.0


class Interests:
    """What all gateways of a floor want to hear."""

    def __init__(self, ttl_s: float, max_gateways: int, max_channels: int) -> None:
        """Make an empty one.

        Args:
            ttl_s: time after which a gateway that does not poll is forgotten, in seconds.
            max_gateways: gateways known at a time; further ones get everything.
            max_channels: channels of one gateway; one that follows more gets everything.
        """
        self._ttl_s = ttl_s
        self._max_gateways = max_gateways
        self._max_channels = max_channels
        self._leases: dict[str, _Lease] = {}

    def __len__(self) -> int:
        return sum(lease.is_complete for lease in self._leases.values())

    def follow(self, asker: Asker, channels: Iterable[str], now_s: float) -> None:
        """Note that a gateway is about to follow channels; in the same step it is told where they stand."""
        lease = self._lease(asker.gateway, now_s)
        if lease is not None:
            for channel in channels:
                lease.channels[channel] = max(asker.number, lease.channels.get(channel, 0))

    def hear(self, wish: Wish, now_s: float) -> None:
        """Take what a gateway says with a poll, which renews its lease."""
        lease = self._lease(wish.gateway, now_s)
        if lease is None:
            return
        lease.ends_s = now_s + self._ttl_s
        if wish.follows is not None and wish.lease == lease.name:
            # What it began to follow since it wrote the list is not on it.
            later = {channel: number for channel, number in lease.channels.items() if number > wish.number}
            lease.channels = dict.fromkeys(wish.follows, wish.number) | later
            lease.is_complete = True
        for channel in wish.leaves:
            if lease.channels.get(channel, wish.number) < wish.number:
                del lease.channels[channel]

    def wants_all(self, gateway: str) -> str:
        """Return the lease under which a gateway shall say all that it follows; empty: it need not."""
        lease = self._leases.get(gateway)
        return "" if lease is None or lease.is_complete else lease.name

    def wanted(self, gateway: str) -> Container[str] | None:
        """Return the channels that a gateway wants to hear; None: all."""
        lease = self._leases.get(gateway)
        if lease is None or not lease.is_complete or len(lease.channels) > self._max_channels:
            return None
        return lease.channels

    def expire(self, now_s: float) -> None:
        """Forget gateways that did not poll for too long."""
        for gateway, lease in list(self._leases.items()):
            if lease.ends_s <= now_s:
                del self._leases[gateway]

    def _lease(self, gateway: str, now_s: float) -> _Lease | None:
        lease = self._leases.get(gateway)
        if lease is None and len(self._leases) < self._max_gateways:
            lease = self._leases[gateway] = _Lease(secrets.token_hex(8))
            lease.ends_s = now_s + self._ttl_s
        return lease
