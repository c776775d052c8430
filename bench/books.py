"""The books of a floor's broadcast path, read from its metrics: what came in, what became of it, what is missing.

``docs/accounting.md`` says what each book holds. Its invariant is what ``imbalance`` says: 0 while
every process lives, and after a kill what the process held.
"""

import time
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from realtime.books import Book

NAME = "watchfloor_accounting_"
STEP_S = 2.5
"""Longer than the pace at which processes tell their metrics."""
MOST_STEPS = 8
TIMEOUT_S = 10.0


def settled_books(url: str) -> dict[str, dict[str, Any]]:
    """Return the floor's books by name, as ``Book.to_json`` has them, once they no longer change.

    Args:
        url: of the floor's page.

    Raises:
        OSError: nobody answers there.
    """
    books = read_books(url)
    for _ in range(MOST_STEPS):
        time.sleep(STEP_S)
        before, books = books, read_books(url)
        if books == before:
            break
    return {name: book.to_json() for name, book in sorted(books.items())}


def read_books(url: str) -> dict[str, Book]:
    """Return the books as they are told at this moment."""
    with urlopen(f"{url}/metrics", timeout=TIMEOUT_S) as answer:
        text = answer.read().decode()
    taken: dict[str, dict[Any, int]] = {}
    settled: dict[str, dict[Any, int]] = {}
    held: dict[str, dict[Any, int]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            label = labels.get("kind", ""), labels.get("priority", "")
            if sample.name == f"{NAME}in_total":
                taken.setdefault(labels["book"], {})[label] = int(sample.value)
            elif sample.name == f"{NAME}out_total":
                line = (*label, labels["outcome"], labels["reason"])
                settled.setdefault(labels["book"], {})[line] = int(sample.value)
            elif sample.name == f"{NAME}open":
                held.setdefault(labels["book"], {})[(*label, labels["state"])] = int(sample.value)
    return {
        name: Book(taken=taken.get(name, {}), settled=settled.get(name, {}), open=held.get(name, {}))
        for name in {*taken, *settled, *held}
    }
