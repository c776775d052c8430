"""How long to wait before trying again: exponential, capped, with full jitter."""

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Delays of one retrying loop; ``reset`` after a success."""

    base_s: float
    cap_s: float
    rng: random.Random = field(default_factory=random.Random)
    attempt: int = 0

    def next_delay_s(self) -> float:
        """Return the next delay: between 0 and the cap, on average twice the last."""
        # The exponent is bounded because a day-long outage would overflow a float.
        ceiling_s = min(self.cap_s, self.base_s * 2.0 ** min(self.attempt, 30))
        self.attempt += 1
        return self.rng.uniform(0.0, ceiling_s)

    def reset(self) -> None:
        """Start again from the base."""
        self.attempt = 0
