"""What the gateway counts, on the process's one registry.

Labels are closed sets: a transport, a channel kind, a close code. Summing over replicas is
the metrics actor's business.
"""

import time

from prometheus_client import Counter, Gauge, Histogram

from cluster.metrics import REGISTRY
from serve_apps.codes import CloseCode, ErrorCode
from serve_apps.limits import Limit
from serve_apps.outgoing import Frame

LATENCY_SAMPLE = 16
"""One frame in so many is timed: enough for percentiles, and a sixteenth of the cost."""

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
limited = Counter(
    "watchfloor_gateway_limited_total",
    "Connections, commands and calls refused because they were too many, by limit.",
    ["limit"],
    registry=REGISTRY,
)
received = Counter("watchfloor_gateway_commands_total", "Commands received.", registry=REGISTRY)
sent_messages = Counter(
    "watchfloor_gateway_sent_messages_total",
    "Publications handed to client sockets, by channel kind.",
    ["kind"],
    registry=REGISTRY,
)
sent_frames = Counter("watchfloor_gateway_sent_frames_total", "Frames handed to client sockets.", registry=REGISTRY)
waited_frames = Counter(
    "watchfloor_gateway_waited_frames_total",
    "Frames that could not be written to a client's socket at once: its buffer was full, or the server hides it.",
    registry=REGISTRY,
)
sent_bytes = Counter("watchfloor_gateway_sent_bytes_total", "Bytes handed to client sockets.", registry=REGISTRY)
send_latency = Histogram(
    "watchfloor_gateway_send_latency_seconds",
    "From the hub taking a publication to the frame with it leaving for a socket; a sample.",
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
members_dropped = Counter(
    "watchfloor_gateway_member_pushes_dropped_total",
    "Joins and leaves that a client was not told of, because its queue or the channel was too full.",
    registry=REGISTRY,
)
control_lost = Counter(
    "watchfloor_gateway_control_lost_total",
    "Times at which commands to the gateways may have been lost on the way to a replica.",
    registry=REGISTRY,
)
coalesced = Counter(
    "watchfloor_gateway_coalesced_total",
    "Publications the hub spared a replica because a newer one took their place.",
    registry=REGISTRY,
)


held_bytes = Gauge(
    "watchfloor_gateway_held_bytes",
    "Bytes held for clients: recent publications, and what single clients have not read.",
    ["where"],
    registry=REGISTRY,
)
window_bytes = Gauge(
    "watchfloor_gateway_window_bytes",
    "Bytes each client may leave unacknowledged; shrinks near the limit.",
    registry=REGISTRY,
)
memory_cuts = Counter(
    "watchfloor_gateway_memory_cuts_total",
    "Slow clients cut because all of them together held too much.",
    registry=REGISTRY,
)


class SendMeter:
    """Counts what leaves, in plain numbers; ``flush`` hands them to the registry.

    prometheus_client takes a lock for each increment: with five of them a frame to one
    client cost more to count than to send.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._waited = 0
        self._bytes = 0
        self._messages: dict[str, int] = {}
        self._until_sample = 0

    def on_frame(self, frame: Frame, *, waited: bool) -> None:
        """Count one frame that left for a socket."""
        self._frames += 1
        self._waited += waited
        self._bytes += frame.num_bytes
        for part in frame.parts:
            self._messages[part.kind] = self._messages.get(part.kind, 0) + part.num_lines
            self._until_sample -= 1
            if self._until_sample <= 0:
                self._until_sample = LATENCY_SAMPLE
                send_latency.observe(max(0.0, time.time() - part.oldest_ms / 1000))

    def flush(self) -> None:
        """Add what was counted since the last time."""
        sent_frames.inc(self._frames)
        waited_frames.inc(self._waited)
        sent_bytes.inc(self._bytes)
        for kind, count in self._messages.items():
            sent_messages.labels(kind).inc(count)
        self._frames = self._waited = self._bytes = 0
        self._messages.clear()


meter = SendMeter()
"""This process's; its connections are served by one event loop."""


def on_close(code: CloseCode | None) -> None:
    """Count the end of a connection; None: the client's own doing."""
    closes.labels("1000" if code is None else str(int(code))).inc()


def on_limited(limit: Limit) -> None:
    """Count what was one too many."""
    limited.labels(limit.value).inc()


def on_command_error(code: ErrorCode) -> None:
    """Count a refused command."""
    command_errors.labels(str(int(code))).inc()
