"""A receiving connection as seen from outside: its settings, its state, who hears of its changes.

Types only; the connection itself is ``mqtt_client.py``. Invariant: nothing here knows paho.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """How ingest listens to the broker."""

    client_id: str = "ingest"
    """Beginning of the client ids, ``ingest-0`` and so on: the broker keeps unacknowledged messages under them."""
    window: int = 1024
    """Unacknowledged messages wanted at once (MQTT 5: Receive Maximum; 3.1.1: the broker's setting)."""
    session_expiry_s: int = 86_400
    """How long an MQTT 5 broker keeps the session while ingest is away, in seconds."""
    keepalive_s: int = 10
    """A silent broker is given up after at most twice this, in seconds."""
    connect_timeout_s: float = 5.0
    """Longest wait for a connection, in seconds."""
    user_property: str = ""
    """MQTT 5 user property in which the broker names the publisher's user; a message whose user is not of the
    topic's tenant becomes a dead letter. Empty: the broker's ACL alone decides."""
    time_property: str = ""
    """MQTT 5 user property in which the broker says when a message arrived there; kept with the reading."""

    def __post_init__(self) -> None:
        if not 1 <= self.window <= 65_535:
            raise ValueError(f"window must be 1-65535, got {self.window}")
        if self.keepalive_s < 1 or self.connect_timeout_s <= 0 or self.session_expiry_s < 0:
            raise ValueError("keepalive_s, connect_timeout_s and session_expiry_s must be positive")


@dataclass(frozen=True, slots=True)
class Filters:
    """What one connection asks for."""

    wanted: tuple[str, ...]
    obsolete: tuple[str, ...] = ()
    """Taken off after the wanted ones are confirmed: a session keeps what an older configuration subscribed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one connection is for."""

    client_id: str
    has_session: bool
    """The broker keeps unacknowledged messages while the connection is away."""
    filters: Callable[[], Filters]
    """Asked on the network thread before each connection; an ``OSError`` counts as a broker out of reach."""


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """State of one connection, for people."""

    address: str
    is_connected: bool
    version: str
    """MQTT version spoken, or tried next."""
    epoch: int
    window: int
    """Messages received and not yet acknowledged."""
    oldest_received_at: float | None
    problem: str | None
    """Why there is no connection; None while there is one."""
    connected_since: float | None
    """When this connection began to receive, seconds since the epoch; None while there is none."""


class Ending(StrEnum):
    """Why a connection ended or did not come about; a metric's label."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    LOST = "lost"
    OVERRUN = "overrun"
    FAILED = "failed"
    STOPPED = "stopped"


class InboxObserver(Protocol):
    """Hears what happens on a connection; called on the network thread, returns at once."""

    def on_connected(self, *, session_present: bool) -> None:
        """The broker answered and the subscription was sent."""
        ...

    def on_disconnected(self, ending: Ending) -> None:
        """The connection ended, or could not be made."""
        ...

    def on_acknowledged(self, count: int, oldest_s: float) -> None:
        """Messages were acknowledged; the one that waited longest did so for ``oldest_s``."""
        ...

    def on_repeat(self) -> None:
        """The broker sent a message again that is still being worked on."""
        ...

    def on_stale_acks(self, count: int) -> None:
        """Messages were settled after their connection had ended; the broker sends them again."""
        ...

    def on_dropped(self) -> None:
        """A QoS 0 message found the queue full; QoS 0 promises nothing."""
        ...
