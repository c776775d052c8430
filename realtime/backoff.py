"""Pauses between retries: exponential, capped, with full jitter.

Decides how long, never whether; the caller holds the deadline.
"""

import random


class Backoff:
    """Pauses of one sequence of retries."""

    def __init__(self, first_s: float = 0.02, cap_s: float = 1.0, rng: random.Random | None = None) -> None:
        self._ceiling_s = first_s
        self._cap_s = cap_s
        self._rng = rng or random.Random()  # noqa: S311  jitter, not a secret

    def next_pause_s(self) -> float:
        """Return the pause before the next try, uniform up to a ceiling that doubles."""
        # Full jitter: publishers that lost the hub together must not come back together.
        pause_s = self._rng.uniform(0.1 * self._ceiling_s, self._ceiling_s)
        self._ceiling_s = min(self._cap_s, 2 * self._ceiling_s)
        return pause_s
