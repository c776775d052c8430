"""When a program that ended is started again.

Pure: time comes in, a decision goes out. Invariant: the delay is jittered and capped, and
a program that ran well for a while starts from the shortest delay again.
"""

import random
from dataclasses import dataclass, field

FIRST_DELAY_S = 0.25
MAX_DELAY_S = 15.0
STEADY_AFTER_S = 60.0
"""A program that lived this long is not counted as failing over and over."""


@dataclass(slots=True)
class RestartPolicy:
    """Exponential back-off with full jitter."""

    rng: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def delay_s(self, lived_s: float) -> float:
        """Return how long to wait before the next start of a program that lived ``lived_s`` seconds."""
        if lived_s >= STEADY_AFTER_S:
            self.failures = 0
        ceiling_s = min(FIRST_DELAY_S * 2.0**self.failures, MAX_DELAY_S)
        self.failures += 1
        # Never zero: a program that fails at once would take a whole CPU.
        return FIRST_DELAY_S / 2 + self.rng.random() * ceiling_s
