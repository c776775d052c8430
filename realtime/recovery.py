"""Whether a reader at a position can be given everything it missed.

Pure decisions over numbers. Invariant: the answer is yes only if every publication that
the hub ever confirmed after the position is still held or was replaced by a newer one;
any doubt is a no, and the reader then loads fresh state.

How offsets survive a restart: offsets below ``end`` are reserved in the journal before
they are used. A restarted stream goes on at ``end``, so none is used twice. What lies
between the highest journalled offset and ``end`` is lost: it may have been delivered,
but was never confirmed to its publisher, who repeats it. A reader from before that part
misses nothing; one inside it has seen what the stream no longer knows.
"""

from dataclasses import dataclass, replace

MAX_LOST_RANGES = 16
"""Restarts that a stream remembers; positions from before the oldest cannot be recovered."""


@dataclass(frozen=True, slots=True)
class LostRange:
    """Offsets that may have been used, but that no journal knows."""

    after: int
    """Highest offset that was journalled."""
    before: int
    """First offset after the part."""

    def __contains__(self, offset: int) -> bool:
        return self.after < offset < self.before


@dataclass(frozen=True, slots=True)
class Mark:
    """What must be remembered of a stream for its epoch to go on."""

    epoch: str
    floor: int
    """Positions below it cannot be recovered: what followed them has left the history."""
    top: int
    """Highest offset in use."""
    end: int
    """Offsets below it are reserved; the next life of the process begins there."""
    lost: tuple[LostRange, ...] = ()


def can_recover(mark: Mark, epoch: str, offset: int) -> bool:
    """Return whether a reader at (epoch, offset) can be given all that it missed.

    An empty epoch stands for any: Centrifuge's clients send it before they know one.
    """
    return (
        epoch in ("", mark.epoch) and mark.floor <= offset <= mark.top and not any(offset in lost for lost in mark.lost)
    )


def resumed(mark: Mark, block: int) -> Mark:
    """Return the mark of a stream whose process was lost, ready to be used again.

    The caller journals the result before it uses an offset of it.
    """
    lost = (*mark.lost, LostRange(mark.top, mark.end))
    floor = mark.floor
    if len(lost) > MAX_LOST_RANGES:
        floor = max(floor, lost[0].before)
        lost = lost[1:]
    # The position ``end`` itself belongs to no publication: it is where readers stand who
    # came after the restart, so it can be told from every position of the lost part.
    return replace(mark, floor=floor, top=mark.end, end=mark.end + block, lost=lost)
