"""Every store stays within its bound: what leaves, who is stopped, and when it goes on."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes_cluster import FakeClock

from cluster.metrics import REGISTRY
from ingest.errors import StoreFullError
from ingest.store_bounds import (
    Level,
    StoreBound,
    StoreName,
    StoresSettings,
    StoreUsage,
    disk_bound,
    expired_before,
    level_of,
    must_shed,
)
from ingest.store_watch import BoundedStore, StoreWatch

BOUND = StoreBound(limit_bytes=1000, near_bytes=800, max_age_s=100.0)
ROW_BYTES = 10


@dataclass
class Rows:
    """A store of rows of ten bytes, each with its time."""

    times: deque[float] = field(default_factory=deque)
    is_away: bool = False

    def usage(self) -> StoreUsage:
        if self.is_away:
            raise OSError("away")
        return StoreUsage(len(self.times) * ROW_BYTES, self.times[0] if self.times else None)

    def expire(self, before: float, limit: int) -> int:
        return self._leave(lambda at: at < before, limit)

    def shed(self, limit: int) -> int:
        return self._leave(lambda _at: True, limit)

    def _leave(self, is_chosen, limit: int) -> int:  # type: ignore[no-untyped-def]
        num = 0
        while self.times and num < limit and is_chosen(self.times[0]):
            self.times.popleft()
            num += 1
        return num


def watch(rows: Rows, *, sheds: bool = True, clock: FakeClock | None = None) -> StoreWatch:
    store = BoundedStore(
        name=StoreName.DEAD_LETTERS,
        bound=lambda: BOUND,
        usage=rows.usage,
        expire=rows.expire,
        shed=rows.shed if sheds else None,
    )
    return StoreWatch([store], StoresSettings(delete_rows=7), clock=clock or FakeClock(1000.0))


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(799, Level.OK), (800, Level.NEAR), (999, Level.NEAR), (1000, Level.FULL), (5000, Level.FULL)],
)
def test_levels(size_bytes: int, expected: Level) -> None:
    """Told before the bound, full at it."""
    assert level_of(StoreUsage(size_bytes), BOUND) is expected


def test_a_store_without_a_bound_is_never_full() -> None:
    """A Valkey without ``maxmemory``."""
    unbounded = StoreBound(limit_bytes=0, near_bytes=0)

    assert level_of(StoreUsage(10**12), unbounded) is Level.OK
    assert not must_shed(StoreUsage(10**12), unbounded, has_begun=True)
    assert expired_before(unbounded, 5.0) is None


def test_a_small_disk_is_full_before_it_is_full() -> None:
    """Told at four times the room that must stay."""
    bound = disk_bound(total_bytes=1000, free_wanted_bytes=100)

    assert [level_of(StoreUsage(used), bound) for used in (599, 600, 900)] == [Level.OK, Level.NEAR, Level.FULL]


def test_what_is_too_old_leaves_in_batches() -> None:
    """All of it within one step, seven rows a transaction."""
    rows = Rows(deque([float(at) for at in range(880, 920)]))
    watch(rows).step()

    assert rows.times[0] == 900.0


def test_the_oldest_leave_for_their_size_and_nobody_is_stopped() -> None:
    """Down to nine tenths, so that not every check deletes a little."""
    rows = Rows(deque([990.0] * 100))
    watched = watch(rows)
    watched.step()

    watched.check(StoreName.DEAD_LETTERS)
    assert 80 <= len(rows.times) < 90
    assert watched.reports()[StoreName.DEAD_LETTERS].level is Level.NEAR


def test_a_full_store_stops_its_writers_until_there_is_room() -> None:
    """Nothing of it is expendable; the writers of others go on."""
    rows = Rows(deque([990.0] * 100))
    watched = watch(rows, sheds=False)
    watched.step()

    with pytest.raises(StoreFullError, match="dead_letters holds 1000 B, 100% of its bound of 1000 B"):
        watched.check(StoreName.DEAD_LETTERS)
    watched.check(StoreName.ALERTS)
    assert REGISTRY.get_sample_value("watchfloor_store_full", {"store": "dead_letters"}) == 1.0

    rows.times.pop()
    watched.step()
    watched.check(StoreName.DEAD_LETTERS)
    assert REGISTRY.get_sample_value("watchfloor_store_bytes", {"store": "dead_letters"}) == 990.0
    assert REGISTRY.get_sample_value("watchfloor_store_near", {"store": "dead_letters"}) == 1.0


def test_an_outage_changes_no_level() -> None:
    """Neither stops nor frees anybody."""
    rows = Rows(deque([990.0] * 100))
    watched = watch(rows, sheds=False)
    watched.step()
    rows.is_away = True
    watched.step()

    with pytest.raises(StoreFullError):
        watched.check(StoreName.DEAD_LETTERS)


def test_a_disk_without_room_stops_everybody(tmp_path: Path) -> None:
    """Seen at the next batch, not at the next round of measuring."""
    clock = FakeClock()
    full = StoreWatch([], StoresSettings(disk_free_bytes=10**18), disk=tmp_path, clock=clock)

    with pytest.raises(StoreFullError, match="store disk is full: disk holds"):
        full.check()
    StoreWatch([], StoresSettings(disk_free_bytes=0), disk=tmp_path, clock=clock).check(StoreName.ALERTS)
