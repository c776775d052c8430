"""Prometheus metrics of the hub, brought up to date from its plain counters.

The hub itself counts in integers: a labelled Prometheus counter costs more than an append.
"""

from collections import Counter as Tally

from prometheus_client import Counter, Gauge

from cluster.metrics import REGISTRY
from realtime.replies import HubStats

publications = Counter(
    "watchfloor_hub_publications", "Publications that the hub appended.", ["kind", "priority"], registry=REGISTRY
)
duplicates = Counter(
    "watchfloor_hub_duplicates", "Drafts not published again because their key was known.", registry=REGISTRY
)
coalesced = Counter(
    "watchfloor_hub_coalesced", "Publications replaced by a newer one of their coalesce key.", registry=REGISTRY
)
channels_evicted = Counter(
    "watchfloor_hub_channels_evicted", "Channels forgotten because there were too many.", registry=REGISTRY
)
channels = Gauge("watchfloor_hub_channels", "Channels that the hub knows.", registry=REGISTRY)
history_bytes = Gauge("watchfloor_hub_history_bytes", "Payload in all histories.", registry=REGISTRY)
pollers = Gauge("watchfloor_hub_pollers", "Readers that wait for news.", registry=REGISTRY)
presence_members = Gauge(
    "watchfloor_hub_presence_members", "Members of all channels, as the gateways report them.", registry=REGISTRY
)
presence_refused = Counter(
    "watchfloor_hub_presence_refused", "Members not listed because there were too many.", registry=REGISTRY
)
journal_up = Gauge("watchfloor_hub_journal_up", "1 while the journal takes what is published.", registry=REGISTRY)
journal_lag = Gauge("watchfloor_hub_journal_lag", "Publications not yet in the journal.", registry=REGISTRY)

calls = Counter(
    "watchfloor_hub_calls", "Calls to the hub, over its Unix socket or over its actor.", ["way"], registry=REGISTRY
)
connections = Gauge("watchfloor_hub_connections", "Connections on the hub's Unix socket.", registry=REGISTRY)
connections_ended = Counter(
    "watchfloor_hub_connections_ended", "Connections that the hub ended, by reason.", ["reason"], registry=REGISTRY
)


class HubMetrics:
    """Turns totals into increments of the process's metrics."""

    def __init__(self) -> None:
        self._publications: Tally[tuple[str, str]] = Tally()
        self._totals: Tally[Counter] = Tally()
        self._labelled: Tally[tuple[Counter, str]] = Tally()

    def update(self, stats: HubStats) -> None:
        """Bring the metrics to ``stats``."""
        for label, total in stats.publications_by_class.items():
            kind, priority = label
            publications.labels(kind=kind, priority=priority).inc(total - self._publications[label])
            self._publications[label] = total
        self._advance(duplicates, stats.duplicates_total)
        self._advance(coalesced, stats.coalesced_total)
        self._advance(channels_evicted, stats.channels_evicted_total)
        for way, total in stats.calls_by_way.items():
            self._advance_label(calls, way, total)
        for reason, total in stats.connections_ended.items():
            self._advance_label(connections_ended, reason, total)
        connections.set(stats.connections)
        channels.set(stats.channels)
        history_bytes.set(stats.history_bytes)
        pollers.set(stats.pollers)
        presence_members.set(stats.presence_members)
        self._advance(presence_refused, stats.presence_refused_total)
        journal_up.set(1 if stats.journal_ok else 0)
        journal_lag.set(stats.journal_lag)

    def _advance(self, counter: Counter, total: int) -> None:
        counter.inc(total - self._totals[counter])
        self._totals[counter] = total

    def _advance_label(self, counter: Counter, label: str, total: int) -> None:
        counter.labels(label).inc(total - self._labelled[counter, label])
        self._labelled[counter, label] = total
