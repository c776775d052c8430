"""How many of the last calls failed: a sliding window of time in slots.

Pure: the time comes as ``now_s``; the owner serialises access. Invariant: a call counts for
at least ``window_s`` less one slot and at most ``window_s``, and memory does not grow with
the number of calls.
"""

from collections import deque

SLOTS = 10


class FailureRate:
    """Calls and failures of the last ``window_s`` seconds."""

    __slots__ = ("_slot_s", "_slots", "calls", "failures")

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slots: deque[list[int]] = deque()  # [number of the slot, calls, failures], oldest first
        self.calls = 0
        self.failures = 0

    def count(self, now_s: float, *, failed: bool) -> None:
        """Count one call that has ended, and forget those that are too old."""
        now = int(now_s // self._slot_s)
        slots = self._slots
        while slots and slots[0][0] <= now - SLOTS:
            _, calls, failures = slots.popleft()
            self.calls -= calls
            self.failures -= failures
        if not slots or slots[-1][0] != now:
            slots.append([now, 0, 0])
        slots[-1][1] += 1
        slots[-1][2] += failed
        self.calls += 1
        self.failures += failed

    def clear(self) -> None:
        """Forget all calls."""
        self._slots.clear()
        self.calls = self.failures = 0
