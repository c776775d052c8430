"""What became of the broadcasts of one process: counted once, for its health, its book and its metrics.

Sends nothing and waits for nothing; whoever holds the broadcaster's lock calls it, but for
``write_log`` and ``observe``. Invariant: what was taken and is neither confirmed, coalesced
nor dropped is with the sender or in the buffer.
"""

from collections import Counter
from collections.abc import Iterable

from cluster import metrics
from cluster.clock import Clock
from realtime.books import Book, Label, label_of
from realtime.failure_log import FailureLog
from realtime.publication import Draft
from realtime.send_buffer import Waiting

INVALID: Label = ("invalid", "invalid")
"""What is counted for a message whose channel or class nobody can tell."""


class BroadcastTally:
    """Counters by channel kind and class."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: Counter[Label] = Counter()
        self._confirmed: Counter[Label] = Counter()
        self._coalesced: Counter[Label] = Counter()
        self._dropped: Counter[tuple[str, str, str]] = Counter()  # by kind, class and reason
        self._failure_log = FailureLog(clock)
        self.last_error = ""

    @property
    def taken_total(self) -> int:
        """Messages that calls handed in, one for each channel."""
        return self._taken.total()

    @property
    def confirmed_total(self) -> int:
        """Messages that the hub has."""
        return self._confirmed.total()

    @property
    def coalesced_total(self) -> int:
        """Values of progress bars that a newer one replaced before they were sent."""
        return self._coalesced.total()

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """Messages that were given up."""
        dropped: Counter[str] = Counter()
        for (_, _, reason), count in self._dropped.items():
            dropped[reason] += count
        return dict(dropped)

    def book(self, waiting: Iterable[Waiting], in_flight: Iterable[Waiting]) -> Book:
        """Return the account of every message that was handed in."""
        held = Counter((*label_of(one.draft), "waiting") for one in waiting)
        held.update((*label_of(one.draft), "in flight") for one in in_flight)
        settled: Counter[tuple[str, str, str, str]] = Counter()
        for outcome, counts in (("delivered", self._confirmed), ("coalesced", self._coalesced)):
            settled.update({(*label, outcome, ""): count for label, count in counts.items()})
        settled.update({(kind, cls, "dropped", why): count for (kind, cls, why), count in self._dropped.items()})
        return Book(taken=dict(self._taken), settled=settled, open=held)

    def take(self, draft: Draft) -> None:
        """Count a message that a call handed in."""
        self._taken[label_of(draft)] += 1

    def refuse(self, reason: str, run_id: str | None, detail: str) -> None:
        """Count a message that cannot be sent to anybody."""
        self._taken[INVALID] += 1
        self._dropped[(*INVALID, reason)] += 1
        self.last_error = detail
        metrics.websocket_broadcast_failure.labels(kind="invalid", reason=reason).inc()
        self._failure_log.add("invalid", reason, run_id, detail)

    def coalesce(self, draft: Draft, count: int) -> None:
        """Count older values that ``draft`` has replaced."""
        self._coalesced[label_of(draft)] += count

    def drop(self, draft: Draft, reason: str, run_id: str | None) -> None:
        """Count a message that is given up; its log line is written by ``write_log``."""
        kind, priority = label_of(draft)
        self._dropped[kind, priority, reason] += 1
        metrics.websocket_broadcast_failure.labels(kind=kind, reason=reason).inc()
        self._failure_log.add(kind, reason, run_id, self.last_error)

    def confirm(self, classes: Counter[Label]) -> None:
        """Count messages that the hub has, by label."""
        self._confirmed.update(classes)

    def observe(self, messages: Iterable[Waiting]) -> Counter[Label]:
        """Tell the metrics of messages that the hub has, and return them by label; without the lock."""
        now_s = self._clock.monotonic_s()
        # Counted by label first: looking a label up costs more than all else here, and the sending
        # thread shares one interpreter with the callers.
        called_at_s: dict[str, list[float]] = {}
        classes: Counter[Label] = Counter()
        for waiting in messages:
            label = label_of(waiting.draft)
            called_at_s.setdefault(label[0], []).append(waiting.called_at_s)
            classes[label] += 1
        for (kind_name, priority), count in classes.items():
            metrics.websocket_broadcast_success.labels(kind=kind_name, priority=priority).inc(count)
        for kind_name, times_s in called_at_s.items():
            duration = metrics.websocket_broadcast_duration.labels(kind=kind_name)
            for time_s in times_s:
                duration.observe(now_s - time_s)
        return classes

    def write_log(self) -> None:
        """Write the lines that are due; without the lock, as a log handler may block."""
        self._failure_log.write()
