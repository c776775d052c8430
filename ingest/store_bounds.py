"""How old and how large each store of a floor may become, and what follows from where it stands.

Pure: measuring, deleting and telling are ``store_watch.py``. Invariant: what a store holds
leaves it by age, or (where its content is expendable) the oldest first by size; a store that
is full after that is full, and whoever writes to it stops acknowledging until it is not.
"""

from dataclasses import dataclass
from enum import StrEnum

DAY_S = 86_400.0
GIB = 1024**3
SHED_TO = 0.9
"""Part of the size bound down to which the oldest leave, so that not every check deletes a little."""


class StoreName(StrEnum):
    """Every store with a bound; also the metrics' label."""

    ALERTS = "alerts"
    COMMANDS = "commands"
    DEAD_LETTERS = "dead_letters"
    RUNS = "runs"
    TELEMETRY = "telemetry"
    ARCHIVE = "archive"
    DISK = "disk"


class Level(StrEnum):
    """How a store stands to its bound."""

    OK = "ok"
    NEAR = "near"
    """Somebody should look; nothing is refused."""
    FULL = "full"
    """What goes into it is not acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresSettings:
    """How much of everything a floor keeps; the archive and Valkey have theirs in their own sections."""

    alerts_days: int = 90
    """Days for which an alert stays after it was closed, with its history."""
    alerts_bytes: int = 5 * GIB
    """Size of alerts and their histories, estimated from a sample; above it alerts are not acknowledged."""
    commands_days: int = 90
    """Days for which a command stays after its end, with its history."""
    commands_bytes: int = GIB // 4
    """Size of commands and their histories, estimated from a sample; above it the oldest ended ones leave."""
    dead_letters_days: int = 7
    """Days that a dead letter is kept after it last came."""
    dead_letters_bytes: int = GIB
    """Size of all dead letters, estimated from a sample; above it the oldest leave."""
    runs_days: int = 365
    """Days for which a run stays listed after its end."""
    runs_bytes: int = GIB // 4
    """Size of the table of runs, estimated from a sample; above it the oldest ended ones leave."""
    disk_free_bytes: int = GIB // 2
    """Room that stays free on the data folder's disk; below it nothing is acknowledged."""
    near_ratio: float = 0.8
    """Part of a size bound at which people are told."""
    check_s: float = 15.0
    """Pace at which stores are measured, in seconds."""
    delete_rows: int = 500
    """Rows of one deleting transaction, so that nobody waits long for it."""

    def __post_init__(self) -> None:
        for name in (
            f"{store}_{unit}" for store in ("alerts", "commands", "dead_letters") for unit in ("days", "bytes")
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.delete_rows < 1 or self.disk_free_bytes < 0:
            raise ValueError("delete_rows must be at least 1, disk_free_bytes not negative")
        if not 0 < self.near_ratio <= 1:
            raise ValueError(f"near_ratio must be in (0, 1], got {self.near_ratio}")
        if self.check_s <= 0:
            raise ValueError(f"check_s must be positive, got {self.check_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBound:
    """The bound of one store."""

    limit_bytes: int
    """0: the store itself knows no bound."""
    near_bytes: int
    """Size at which people are told."""
    max_age_s: float | None = None
    """Age at which content leaves; None: only size counts."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """What a store holds."""

    size_bytes: int
    oldest_at: float | None = None
    """When the oldest content that leaves by age became old; None: there is none, or nobody knows."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """Where a store stands, for people."""

    level: Level
    size_bytes: int
    limit_bytes: int
    oldest_s: float | None
    """Age of the oldest content, in seconds."""
    max_age_s: float | None
    text: str
    """In words; empty while all is well."""


def report(name: StoreName, usage: StoreUsage, bound: StoreBound, now: float) -> StoreReport:
    """Return where a store stands at ``now`` (seconds since the epoch)."""
    level = level_of(usage, bound)
    text = ""
    if level is not Level.OK:
        share = usage.size_bytes / bound.limit_bytes
        text = f"{name} holds {in_words(usage.size_bytes)}, {share:.0%} of its bound of {in_words(bound.limit_bytes)}"
    oldest_s = None if usage.oldest_at is None else max(0.0, now - usage.oldest_at)
    return StoreReport(level, usage.size_bytes, bound.limit_bytes, oldest_s, bound.max_age_s, text)


def level_of(usage: StoreUsage, bound: StoreBound) -> Level:
    """Return how a usage stands to a bound."""
    if not bound.limit_bytes or usage.size_bytes < bound.near_bytes:
        return Level.OK
    return Level.FULL if usage.size_bytes >= bound.limit_bytes else Level.NEAR


def expired_before(bound: StoreBound, now: float) -> float | None:
    """Return the time before which content is too old; None: nothing ever is."""
    return None if bound.max_age_s is None else now - bound.max_age_s


def must_shed(usage: StoreUsage, bound: StoreBound, *, has_begun: bool) -> bool:
    """Say whether the oldest content must leave for its size; once begun, down to ``SHED_TO`` of the bound."""
    return bool(bound.limit_bytes) and usage.size_bytes >= bound.limit_bytes * (SHED_TO if has_begun else 1.0)


def disk_bound(total_bytes: int, free_wanted_bytes: int) -> StoreBound:
    """Return the bound of a disk's used bytes that keeps ``free_wanted_bytes`` free; near it: four times that."""
    return StoreBound(
        limit_bytes=max(1, total_bytes - free_wanted_bytes), near_bytes=max(1, total_bytes - 4 * free_wanted_bytes)
    )


def in_words(size_bytes: float) -> str:
    """Return a size as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} GiB"
