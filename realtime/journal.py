"""The hub's memory beyond its process: what it must remember, and the Protocol for it.

No decisions here: what is written, trimmed and trusted is decided by the hub. Invariant
of every implementation: a record is stored whole or not at all.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from realtime.recovery import Mark
from realtime.stream import Entry

Stored = asyncio.Future[None]
"""Resolves when a record that was handed over is stored; await it, do not cancel it."""


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One step of the hub, stored atomically."""

    log_mark: Mark
    entries: tuple[Entry, ...] = ()
    """Publications in the order of the log."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """By channel; each ``top`` is right once this record is stored."""
    forgotten: tuple[str, ...] = ()
    """Channels whose marks are no longer needed. Applied before ``marks``."""
    keep_after: int = 0
    """Entries up to this sequence number may be removed."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """All that a journal remembers."""

    owner: str
    """Machine of the hub that wrote it."""
    log_mark: Mark
    entries: tuple[Entry, ...]
    """Ascending sequence numbers."""
    marks: dict[str, Mark]


class Journal(Protocol):
    """Durable memory of one hub.

    Durability: a record whose future has resolved, and what ``rewrite`` has returned from,
    is there after a kill of the hub and after a loss of power. A record that was handed
    over is there after a kill of the hub alone. Order: records are applied in the order of
    the calls, several of which may be under way. Fencing: after ``open``, no hub that
    opened earlier can write; after ``rewrite``, no record handed over before it is applied.
    """

    async def open(self) -> JournalState | None:
        """Fence older hubs off and return what was remembered; None if nothing was.

        Raises:
            JournalUnavailableError: no answer.
            UnreadablePayloadError: something was remembered that cannot be read; older hubs
                are fenced off, and ``rewrite`` replaces it.
        """
        ...

    async def append(self, record: JournalRecord) -> Stored:
        """Hand one record over; the future resolves when it is stored.

        Raises, or gives by the future:
            JournalUnavailableError: no answer; the record may or may not be stored.
            JournalLostError: the journal has forgotten this hub; ``rewrite`` is needed.
            FencedError: a younger hub has opened the journal.
        """
        ...

    @property
    def is_clear(self) -> bool:
        """True when ``append_at_once`` may be called: nothing has to be waited for."""
        ...

    def append_at_once(self, record: JournalRecord) -> Stored:
        """``append`` within the caller's turn of the loop; every failure comes by the future."""
        ...

    async def rewrite(self, records: Sequence[JournalRecord]) -> None:
        """Replace everything by ``records``, at once: a failure leaves what was there.

        Raises:
            JournalUnavailableError: no answer.
            FencedError: a younger hub has opened the journal.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
