"""Books: what went into a part of the broadcast path is where?

A book says, by channel kind and priority class, what a part took, what became of it, and
what it still holds. Pure values: no I/O, no clock. Invariant, at every moment, of every
book and each of its labels:

    taken = settled (delivered, coalesced, dropped by reason, ...) + open (waiting, in flight, ...)

The parts count the three sides apart, so that ``imbalance`` checks them rather than
repeating one of them. ``docs/accounting.md`` lists the books and their words.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from realtime.channels import kind_of
from realtime.publication import Draft, Publication

Label = tuple[str, str]
"""Channel kind and priority class."""


def label_of(message: Draft | Publication) -> Label:
    """Return what a message is counted under."""
    return kind_of(message.channel), message.priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One part's account at one moment."""

    taken: Mapping[Label, int]
    settled: Mapping[tuple[str, str, str, str], int]
    """By kind, class, outcome and reason; the reason is empty unless the outcome is ``dropped``."""
    open: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """What the part holds, by kind, class and state."""

    def imbalance(self) -> dict[Label, int]:
        """Return what is missing (above 0) or too much for each label; empty when the book balances."""
        rest: Counter[Label] = Counter(self.taken)
        for (kind, priority, _, _), count in self.settled.items():
            rest[kind, priority] -= count
        for (kind, priority, _), count in self.open.items():
            rest[kind, priority] -= count
        return {label: count for label, count in rest.items() if count}

    def num_taken(self) -> int:
        """Return everything that was taken."""
        return sum(self.taken.values())

    def num_settled(self, outcome: str, reason: str | None = None) -> int:
        """Return what ended with ``outcome``, for one reason or for any."""
        return sum(count for line, count in self.settled.items() if line[2] == outcome and reason in {None, line[3]})

    def num_open(self, state: str | None = None) -> int:
        """Return what is held, in one state or in any."""
        return sum(count for line, count in self.open.items() if state in {None, line[2]})

    def to_json(self) -> dict[str, Any]:
        """Return the sums over all labels, for people and for benches."""
        settled: Counter[str] = Counter()
        for (_, _, outcome, reason), count in self.settled.items():
            settled[f"{outcome} {reason}".strip()] += count
        states: Counter[str] = Counter()
        for (_, _, state), count in self.open.items():
            states[state] += count
        return {
            "taken": self.num_taken(),
            **{name: count for name, count in sorted({**settled, **states}.items()) if count},
            "imbalance": sum(map(abs, self.imbalance().values())),
        }


def added(books: Iterable[Book]) -> Book:
    """Return the sum of several books of one kind: of all replicas, of all publishers."""
    taken: Counter[Label] = Counter()
    settled: Counter[tuple[str, str, str, str]] = Counter()
    held: Counter[tuple[str, str, str]] = Counter()
    for book in books:
        taken.update(book.taken)
        settled.update(book.settled)
        held.update(book.open)
    return Book(taken=taken, settled=settled, open=held)
