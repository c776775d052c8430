"""Ray shell of the metrics sum: one named actor per floor.

Decides nothing; the sum is ``metrics_sum.py``. Invariant: asking never waits for another
process, only for what was pushed.
"""

import time
from collections.abc import Sequence

from cluster import names
from cluster.actors import configure_process, get_or_create
from cluster.metrics_client import MetricsClient
from cluster.metrics_sum import Family, MetricsSum, ProcessId
from cluster.settings import Settings


class MetricsActor:
    """Turns calls into ``MetricsSum`` operations."""

    def __init__(self) -> None:
        configure_process("metrics")
        self._sum = MetricsSum()

    async def ready(self) -> bool:
        """Return once the actor can serve."""
        return True

    async def push(self, process: ProcessId, families: Sequence[Family]) -> None:
        """Replace what is known of ``process``."""
        self._sum.push(process, families, time.monotonic())

    async def render(self) -> bytes:
        """Return the sum in Prometheus' text format."""
        return self._sum.render(time.monotonic())


def get_or_create_metrics(settings: Settings) -> MetricsClient:  # noqa: ARG001 - all get_or_create_* take the settings
    """Return a client of the floor's metrics actor, starting it when nobody has.

    Raises:
        ServiceUnavailableError: it did not become ready.
    """
    return MetricsClient(get_or_create(MetricsActor, name=names.METRICS))
