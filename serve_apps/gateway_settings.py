"""Limits and times of the gateway.

Read once per replica and passed down. Invariant: every buffer the gateway holds for a
client has its bound here.
"""

from dataclasses import dataclass

from serve_apps.origins import check_origin

KIB = 1024
MIB = 1024 * KIB
RATES = (
    "connects_per_s", "connect_burst", "commands_per_s", "command_burst", "tenant_commands_per_s",
    "tenant_command_burst", "http_per_s", "http_burst",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """How one gateway replica treats its connections."""

    num_replicas: int = 1
    """Gateway replicas; fixed, because every change of an ingress replica cuts old tunnels."""
    max_connections: int = 10_000
    """Sockets per replica; one more is closed with 3504."""
    connects_per_s: float = 500.0
    """Connections that may begin per second, on average; more get 503 with Retry-After before the upgrade."""
    connect_burst: int = 1_000
    """Connections that may begin at once."""
    max_connections_per_tenant: int = 5_000
    """Sockets of one tenant per replica; one more is closed with 3013, as another may end any moment."""
    max_connections_per_user: int = 100
    """Sockets of one user per replica; one more is closed with 3504."""
    ping_interval_s: float = 25.0
    """Seconds between two pings of a connection; the first comes at a random moment of it."""
    pong_timeout_s: float = 8.0
    """Seconds until a ping without an answer closes the socket with 3012."""
    credit_bytes: int = MIB
    """Bytes sent to a client and not yet acknowledged by a pong; more are held back."""
    credit_ping_bytes: int = 128 * KIB
    """Bytes after which a ping is put into the stream, so that the client's pong returns credit."""
    credit_timeout_s: float = 10.0
    """Seconds without credit, while data is outstanding, until the socket is closed with 3008."""
    control_bytes: int = MIB
    """Bytes of replies that may wait for a client; more close the socket with 3008."""
    uni_budget_bytes: int = 64 * MIB
    """Bytes a unidirectional client gets, as it cannot acknowledge; then it must reconnect."""
    ring_items: int = 16_384
    """Publications of one channel a replica holds for its connections; a cursor that falls behind closes with 3008."""
    ring_bytes: int = 16 * MIB
    """Bytes of one channel's publications a replica holds."""
    ring_total_bytes: int = 128 * MIB
    """Bytes of all channels' publications a replica holds."""
    memory_bytes: int = 384 * MIB
    """Bytes a replica holds for its clients, rings included; beyond them the slowest are cut with 3008."""
    memory_soft_bytes: int = 256 * MIB
    """Bytes from which on every client's credit shrinks, down to one ping's distance at the limit."""
    ring_age_s: float = 15.0
    """Seconds a publication stays in the replica; longer than a client may go without credit."""
    frame_lines: int = 256
    """Messages joined into one outgoing frame, at most."""
    frame_bytes: int = 64 * KIB
    """Bytes joined into one outgoing frame, at most; a longer single message still goes out whole."""
    flush_rest: float = 2.0
    """Rest after news went to all connections, in multiples of the CPU time it took: messages gather meanwhile."""
    flush_rest_max_s: float = 0.01
    """Longest such rest, in seconds: what it may add to a message's latency."""
    max_inbound_bytes: int = 64 * KIB
    """Size of an incoming frame; a larger one closes the socket with 1009."""
    max_channels: int = 128
    """Channels of one connection."""
    recovery_limit: int = 300
    """Publications given back on a recovery; who missed more starts anew."""
    recovery_bytes: int = MIB
    """Bytes given back on a recovery of one channel; who missed more starts anew."""
    commands_per_s: float = 50.0
    """Commands a connection may send per second, on average; others are answered with 111."""
    command_burst: int = 300
    """Commands a connection may send at once; as many refusals in a row close the socket with 3013."""
    tenant_commands_per_s: float = 2_000.0
    """Commands that all connections of one tenant may send a replica per second; others are answered with 111."""
    tenant_command_burst: int = 10_000
    """Commands that all connections of one tenant may send at once."""
    http_per_s: float = 1_000.0
    """HTTP calls of one user that a replica takes per second, on average; others get 429 with Retry-After."""
    http_burst: int = 2_000
    """HTTP calls of one user that a replica takes at once."""
    allowed_origins: tuple[str, ...] = ()
    """Origins beside the floor's own whose pages may connect and call, such as ``https://ops.example``; no wildcard."""
    stale_after_s: float = 10.0
    """Seconds without a successful connect until the socket is closed with 3502."""
    expiry_grace_s: float = 25.0
    """Seconds after a token's expiry until the socket is closed with 3005; a channel token's subscription: 2501."""
    min_age_s: float = 1800.0
    """Least age at which a socket is renewed with 3001, before HAProxy's hard stop would cut it."""
    max_age_s: float = 3000.0
    """Greatest age at which a socket is renewed; the moment between the two is random."""
    drain_s: float = 20.0
    """Seconds over which a drain spreads the closing of all sockets."""
    hub_timeout_s: float = 4.0
    """Seconds a client's command waits for the hub; the SDKs give up after 5."""
    presence_renew_s: float = 10.0
    """Seconds after which a replica says again that its members are there; well below the hub's presence_ttl_s."""
    poll_timeout_s: float = 25.0
    """Seconds one poll of the hub waits for publications."""

    def __post_init__(self) -> None:
        if self.num_replicas < 1:
            raise ValueError(f"num_replicas must be at least 1, got {self.num_replicas}")
        for name in RATES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for origin in self.allowed_origins:
            check_origin(origin)
        if not 0 < self.min_age_s <= self.max_age_s:
            raise ValueError(f"min_age_s must be above 0 and at most max_age_s, got {self.min_age_s}")
        if self.credit_ping_bytes * 2 > self.credit_bytes:
            raise ValueError(f"credit_ping_bytes must be at most half of credit_bytes, got {self.credit_ping_bytes}")
        if self.flush_rest < 0 or self.flush_rest_max_s < 0:
            raise ValueError(f"flush_rest and flush_rest_max_s must not be negative, got {self.flush_rest}")
        if self.ring_age_s <= self.credit_timeout_s:
            raise ValueError(f"ring_age_s must be above credit_timeout_s, got {self.ring_age_s}")
        if not self.presence_renew_s > 0:
            raise ValueError(f"presence_renew_s must be positive, got {self.presence_renew_s}")
        if not self.ring_total_bytes < self.memory_soft_bytes < self.memory_bytes:
            raise ValueError(
                "memory_soft_bytes must be above ring_total_bytes and below memory_bytes, "
                f"got {self.ring_total_bytes}, {self.memory_soft_bytes}, {self.memory_bytes}"
            )
        if self.hub_timeout_s >= 5:
            raise ValueError(f"hub_timeout_s must be below the SDKs' 5 s, got {self.hub_timeout_s}")
