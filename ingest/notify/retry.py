"""What to do with a message that was not delivered: again after a pause, or set it aside.

A policy as an object: numbers in, decision out. Pauses are drawn from the whole range below a
bound that doubles (full jitter), so that messages which failed together do not come back together.
"""

import random
from dataclasses import dataclass

from ingest.notify.settings import WebhookSettings


@dataclass(frozen=True, slots=True)
class Again:
    """Try once more."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Set it aside."""

    reason: str


class RetryPolicy:
    """Decides by the number of tries and the message's age."""

    def __init__(self, settings: WebhookSettings, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._rng = rng or random.Random()  # noqa: S311 -- a pause, not a secret

    def decide(self, attempts: int, age_s: float, asked_s: float | None = None) -> Again | GiveUp:
        """Decide after a failed try.

        Args:
            attempts: tries so far, this one included.
            age_s: of the message.
            asked_s: pause that the receiver asked for (``Retry-After``).
        """
        settings = self._settings
        if attempts >= settings.max_attempts:
            return GiveUp(f"not delivered in {attempts} tries")
        if age_s >= settings.max_age_s:
            return GiveUp(f"not delivered in {age_s / 3600:.1f} h")
        # The exponent is bounded by itself: 2 ** 2000 is no float.
        bound = min(settings.longest_pause_s, settings.first_pause_s * 2 ** min(attempts - 1, 40))
        pause = self._rng.uniform(0.0, bound)
        return Again(pause if asked_s is None else max(pause, min(asked_s, settings.longest_pause_s)))
