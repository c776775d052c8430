"""Loss accounting of one gateway replica: where is every delivery that it owed?

A delivery is owed when a publication enters a channel's ring: one for each connection that
follows the channel at that moment. One that a client recovers, in the reply to its connect
or subscribe, is owed and written in the same moment. Then, by channel kind and class,

    owed = delivered + in flight + waiting + coalesced + dropped by reason

- *delivered*: acknowledged by a pong to a ping written after it;
- *in flight*: written to the transport, not acknowledged yet;
- *waiting*: in the ring or in a queued reply, not written;
- *coalesced*: a newer value of its coalesce key stood behind it, so it was left out;
- *dropped*: ``unacknowledged`` was written to a transport that ended before a pong covered
  it, or that cannot acknowledge (unidirectional) -- it may have arrived; with every other
  reason it was never written: the close code's name, ``client`` (it went by itself),
  ``unsubscribed``, ``lost`` (the ring was begun again after a gap).

Pure: no I/O, no clock. It costs the fan-out two additions a chunk and connection, because
counts of all kinds and classes are one integer (a *tally*), and what was written is worked
out at a ping, not at each frame. Invariant: ``book`` balances after every step, whatever
was killed, slow, unsubscribed or coalesced.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from realtime.books import Book, Label
from realtime.channels import ChannelKind
from realtime.publication import Priority, Publication

BITS = 64
"""Of one counter in a tally; none reaches the next one's place."""
_MASK = (1 << BITS) - 1
LABELS: tuple[Label, ...] = tuple((kind.value, priority.value) for kind in ChannelKind for priority in Priority)
_UNITS = {label: 1 << (BITS * place) for place, label in enumerate(LABELS)}

UNACKNOWLEDGED = "unacknowledged"
CLIENT = "client"
UNSUBSCRIBED = "unsubscribed"
LOST = "lost"


def unit(kind: str, priority: Priority) -> int:
    """Return the tally of one publication."""
    return _UNITS[kind, priority.value]


def tally(kind: str, publications: Iterable[Publication]) -> int:
    """Return the tally of several publications of one channel."""
    return sum(unit(kind, publication.priority) for publication in publications)


def counts(number: int) -> dict[Label, int]:
    """Return a tally's counts that are not 0."""
    found = {}
    for place, label in enumerate(LABELS):
        count = (number >> (BITS * place)) & _MASK
        if count:
            found[label] = count
    return found


class Debtor(Protocol):
    """A connection's outbox, as the ledger sees it."""

    @property
    def waiting(self) -> int:
        """Tally of what is to be written."""
        ...

    @property
    def in_flight(self) -> int:
        """Tally of what is written and not acknowledged."""
        ...


@dataclass(slots=True)
class Ledger:
    """Totals of one replica, as tallies."""

    owed: int = 0
    delivered: int = 0
    coalesced: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, number: int, reason: str) -> None:
        """Book what will not be delivered any more."""
        if number:
            self.dropped[reason] = self.dropped.get(reason, 0) + number

    def book(self, debtors: Iterable[Debtor]) -> Book:
        """Return the replica's book, given every connection that is not over."""
        waiting = in_flight = 0
        for debtor in debtors:
            waiting += debtor.waiting
            in_flight += debtor.in_flight
        settled: Counter[tuple[str, str, str, str]] = Counter()
        for outcome, number in (("delivered", self.delivered), ("coalesced", self.coalesced)):
            settled.update({(*label, outcome, ""): count for label, count in counts(number).items()})
        for reason, number in self.dropped.items():
            settled.update({(*label, "dropped", reason): count for label, count in counts(number).items()})
        return Book(
            taken=counts(self.owed),
            settled=settled,
            open={
                (*label, state): count
                for state, number in (("waiting", waiting), ("in flight", in_flight))
                for label, count in counts(number).items()
            },
        )


class Receipts:
    """What one connection was written, up to each ping that it has not answered yet."""

    __slots__ = ("_acked", "_ledger", "_pings")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._acked = 0
        self._pings: deque[int] = deque()

    def on_ping(self, written: int) -> None:
        """Remember the tally of everything written before a ping."""
        self._pings.append(written)

    def on_pong(self) -> None:
        """Book as delivered what the oldest ping stands behind."""
        if self._pings:
            written = self._pings.popleft()
            self._ledger.delivered += written - self._acked
            self._acked = written

    def in_flight(self, written: int) -> int:
        """Return the tally of what no pong has covered, of everything ``written`` so far."""
        return written - self._acked

    def end(self, written: int) -> None:
        """Give up what was not acknowledged."""
        self._ledger.drop(written - self._acked, UNACKNOWLEDGED)
        self._acked = written
        self._pings.clear()
