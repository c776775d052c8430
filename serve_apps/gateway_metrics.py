"""What the gateway counts, on the process's one registry.

Labels are closed sets: a transport, a channel kind, a close code. Summing over replicas is
the metrics actor's business.
"""

import time
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from cluster.metrics import REGISTRY
from serve_apps.codes import CloseCode, ErrorCode
from serve_apps.outbox import Part

connections = Gauge("watchfloor_gateway_connections", "Open client connections.", ["transport"], registry=REGISTRY)
connects = Counter(
    "watchfloor_gateway_connects_total", "Connections accepted, by transport.", ["transport"], registry=REGISTRY
)
closes = Counter(
    "watchfloor_gateway_closes_total",
    "Connections the gateway closed, by close code; 1000: the client went by itself.",
    ["code"],
    registry=REGISTRY,
)
command_errors = Counter(
    "watchfloor_gateway_command_errors_total", "Commands refused, by error code.", ["code"], registry=REGISTRY
)
received = Counter("watchfloor_gateway_commands_total", "Commands received.", registry=REGISTRY)
sent_messages = Counter(
    "watchfloor_gateway_sent_messages_total",
    "Publications handed to client sockets, by channel kind.",
    ["kind"],
    registry=REGISTRY,
)
sent_frames = Counter("watchfloor_gateway_sent_frames_total", "Frames handed to client sockets.", registry=REGISTRY)
sent_bytes = Counter("watchfloor_gateway_sent_bytes_total", "Bytes handed to client sockets.", registry=REGISTRY)
send_latency = Histogram(
    "watchfloor_gateway_send_latency_seconds",
    "From the hub taking a publication to the frame with it leaving for a socket.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
round_trip = Histogram(
    "watchfloor_gateway_round_trip_seconds",
    "From a ping to its pong: the client has handled everything before it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
loop_lag = Gauge(
    "watchfloor_gateway_loop_lag_seconds", "How late the replica's event loop ran its last tick.", registry=REGISTRY
)
feed_channels = Gauge(
    "watchfloor_gateway_followed_channels", "Channels with a follower on a replica.", registry=REGISTRY
)
feed_resyncs = Counter(
    "watchfloor_gateway_resyncs_total", "Channels read again after a gap in the hub's feed.", registry=REGISTRY
)
coalesced = Counter(
    "watchfloor_gateway_coalesced_total",
    "Publications the hub spared a replica because a newer one took their place.",
    registry=REGISTRY,
)


def on_frame(num_bytes: int, parts: Iterable[Part]) -> None:
    """Count one frame that left for a socket."""
    sent_frames.inc()
    sent_bytes.inc(num_bytes)
    now_ms = time.time() * 1000
    for part in parts:
        sent_messages.labels(part.kind).inc(part.num_lines)
        send_latency.observe(max(0.0, now_ms - part.oldest_ms) / 1000)


def on_close(code: CloseCode | None) -> None:
    """Count the end of a connection; None: the client's own doing."""
    closes.labels("1000" if code is None else str(int(code))).inc()


def on_command_error(code: ErrorCode) -> None:
    """Count a refused command."""
    command_errors.labels(str(int(code))).inc()
