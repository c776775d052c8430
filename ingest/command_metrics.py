"""Prometheus metrics of commands: how many came how far, and how long the ended ones took.

Fed after the commit by whoever wrote, so each step counts once on the whole floor.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from cluster.metrics import REGISTRY
from ingest.command import Change

commands = Counter(
    "watchfloor_commands", "Commands that came to a state; late: an answer after the end.", ["state"], registry=REGISTRY
)
command_seconds = Histogram(
    "watchfloor_command_seconds",
    "From the order of a command to its end.",
    ["state"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 3600, 86400),
    registry=REGISTRY,
)


def count(changes: Iterable[Change]) -> None:
    """Count what has been committed."""
    for change in changes:
        command = change.after
        commands.labels("late" if change.is_late else command.state.value).inc()
        if command.ended_at is not None and not change.is_late:
            command_seconds.labels(command.state.value).observe(command.ended_at - command.created_at)
