"""Time as a value that is passed in, so that tests advance it instead of sleeping."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time of one process."""

    def time_s(self) -> float:
        """Seconds since the Unix epoch; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()
