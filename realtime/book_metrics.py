"""The process's books as Prometheus metrics.

Three metrics for all books, so that one expression checks them all:
``in - out - open == 0``. Each book is exported from one value, never line by line:
a scrape between two counters would show a loss that is none.
"""

import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cluster.metrics import REGISTRY
from realtime.books import Book


class BookCollector(Collector):
    """Exports whatever books this process keeps; one of each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: dict[str, Callable[[], Book]] = {}

    def keep(self, name: str, read: Callable[[], Book]) -> None:
        """Export the book ``name`` from now on; ``read`` is called from any thread, at each push."""
        with self._lock:
            self._books[name] = read

    def begin_again(self) -> None:
        """Forget all books, in a forked child: they are the parent's, and their locks may be held for ever."""
        self._lock = threading.Lock()
        self._books = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the three families (see ``Collector``)."""
        taken = CounterMetricFamily(
            "watchfloor_accounting_in", "Taken by a part of the broadcast path.", labels=["book", "kind", "priority"]
        )
        settled = CounterMetricFamily(
            "watchfloor_accounting_out",
            "What became of it; a reason is given for what was dropped.",
            labels=["book", "kind", "priority", "outcome", "reason"],
        )
        held = GaugeMetricFamily(
            "watchfloor_accounting_open",
            "What the part still holds: in - out - open is 0 at every moment.",
            labels=["book", "kind", "priority", "state"],
        )
        with self._lock:
            books = {name: read() for name, read in self._books.items()}
        for name, book in books.items():
            for label, count in book.taken.items():
                taken.add_metric([name, *label], count)
            for line, count in book.settled.items():
                settled.add_metric([name, *line], count)
            for state, count in book.open.items():
                held.add_metric([name, *state], count)
        yield from (taken, settled, held)


BOOKS = BookCollector()
"""This process's."""
REGISTRY.register(BOOKS)  # a metric like any other; registry=REGISTRY
