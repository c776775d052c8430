"""The recent past of every series: one (tenant, device, metric) each, ordered by device time.

A broker redelivers after newer readings, so a point may belong before others that were
already judged: it is put in its place and judged there. Knows nothing of models or
alerts; pure state, no clock. Invariants: times never decrease along a window, a
(time, seq) that is already there is refused, and both the points of a window and the
number of windows are bounded.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIRST_CAPACITY = 256
"""Points a new window has room for; it doubles up to its bound."""

MAX_ABS_VALUE = 1e30
"""Larger values are clipped before they become points: their squares must still be finite."""

MAX_ABS_NORMALISED = 1e3
"""Same, in units of the series' own scale, so that float32 models stay finite."""

State = TypeVar("State")
Float = TypeVar("Float", np.float32, np.float64)


class SeriesKey(NamedTuple):
    """Names one series."""

    tenant: str
    device: str
    metric: str


class Point(NamedTuple):
    """One value of one series."""

    ts: float
    """Device time, seconds since the epoch."""
    seq: int
    """The device's sequence number, -1 when it has none."""
    value: float
    """Within +-MAX_ABS_VALUE."""
    recorded_s: float
    """Original time of replayed telemetry, seconds since the epoch; NaN when live."""


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Centre and scale of a series' own history."""

    centre: float
    scale: float

    @classmethod
    def of(cls, values: Floats) -> "Normaliser":
        """Return mean and standard deviation; a constant series gets a tiny positive scale."""
        centre = float(values.mean())
        return cls(centre, max(float(values.std()), 1e-9 * (1.0 + abs(centre))))

    def apply(self, values: Floats) -> NDArray[np.float32]:
        """Return ``values`` in units of the scale, clipped to what float32 models bear."""
        scaled = (values - self.centre) / self.scale
        # Not np.clip: its Python layer costs more than the work when a call brings one window.
        return np.minimum(np.maximum(scaled, -MAX_ABS_NORMALISED), MAX_ABS_NORMALISED).astype(np.float32)


def cut_windows(values_N: NDArray[Float], ends_B: NDArray[np.intp], width: int) -> NDArray[Float]:
    """Return the ``width`` values that end at each place, oldest first: what a model looks at.

    The one way from a series to windows, of the detector and of training, so that a model is trained on
    exactly what it will be asked about. ``Normaliser.apply`` goes value by value: before or after is the same.

    Args:
        values_N: one series, in order.
        ends_B: place of each window's last value; every one has ``width - 1`` values before it.
        width: values of a window.

    Returns:
        Shape (B, width); of one window a view.
    """
    if len(ends_B) == 1:
        last = int(ends_B[0]) + 1
        return values_N[None, last - width : last]
    windows: NDArray[Float] = values_N[ends_B[:, None] + np.arange(1 - width, 1)]
    return windows


class SeriesWindow:
    """The last ``capacity`` points of one series, as columns."""

    COLUMNS = ("ts", "seq", "value", "recorded_s", "score", "distance")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._start = 0
        self._end = 0
        self._columns = np.empty((len(self.COLUMNS), min(FIRST_CAPACITY, capacity)), dtype=np.float64)
        self.total = 0
        """Points ever taken in; decides when a series is warm and when it is refitted."""

    def __len__(self) -> int:
        return self._end - self._start

    def column(self, name: str) -> Floats:
        """Return one column, oldest first: a view that the next ``append`` may invalidate."""
        return self._columns[self.COLUMNS.index(name), self._start : self._end]

    @property
    def value(self) -> Floats:
        return self._columns[2, self._start : self._end]

    @property
    def score(self) -> Floats:
        """Scores as judged; NaN where the series was not warm."""
        return self._columns[4, self._start : self._end]

    @property
    def distance(self) -> Floats:
        """Distances to what the series did before, as judged; NaN where nobody could say."""
        return self._columns[5, self._start : self._end]

    def is_newer(self, point: Point) -> bool:
        """Tell whether ``point`` belongs behind all others."""
        if self._end == self._start:
            return True
        last = self._columns[:, self._end - 1]
        return bool((point.ts, point.seq) > (last[0], last[1]))

    def append(self, points: list[Point]) -> None:
        """Put points, sorted and all newer than the window, at its end; the oldest leave."""
        count = len(points)
        self._make_room(count)
        self._columns[:4, self._end : self._end + count] = np.array(points).T
        self._columns[4:, self._end : self._end + count] = np.nan
        self._end += count
        self._start = max(self._start, self._end - self.capacity)
        self.total += count

    def insert(self, point: Point) -> int | None:
        """Put a late point where it belongs.

        Returns:
            Its index, or None when it is already there or older than a full window.
        """
        times = self.column("ts")
        left = int(np.searchsorted(times, point.ts, side="left"))
        right = int(np.searchsorted(times, point.ts, side="right"))
        same_time = self.column("seq")[left:right]
        if point.seq >= 0 and (same_time == point.seq).any():
            return None
        index = left + int(np.searchsorted(same_time, point.seq, side="right"))
        is_full = len(self) == self.capacity
        if index == 0 and is_full:
            return None
        self._make_room(1)
        at = self._start + index
        self._columns[:, at + 1 : self._end + 1] = self._columns[:, at : self._end].copy()
        self._columns[:, at] = (*point, np.nan, np.nan)
        self._end += 1
        self.total += 1
        if is_full:
            self._start += 1
            index -= 1
        return index

    def windows(self, indices: NDArray[np.intp], width: int) -> Floats:
        """Return the ``width`` values that end at each index, shape (len(indices), width).

        Every index must have ``width - 1`` points before it.
        """
        return cut_windows(self.value, indices, width)

    def _make_room(self, count: int) -> None:
        size = self._columns.shape[1]
        if self._end + count <= size:
            return
        keep = min(len(self), self.capacity)
        # A quarter more than the bound: the points are moved to the front once per quarter, not per point.
        wanted = min(max(2 * size, keep + count), keep + count + self.capacity // 4)
        target = self._columns if wanted <= size else np.empty((len(self.COLUMNS), wanted), dtype=np.float64)
        target[:, :keep] = self._columns[:, self._end - keep : self._end].copy()
        self._columns = target
        self._start, self._end = 0, keep


class SeriesStore(Generic[State]):
    """What is kept per series; beyond the bound the series longest without a reading leaves."""

    def __init__(self, create: Callable[[SeriesKey], State], max_series: int) -> None:
        self._create = create
        self._max_series = max_series
        self._states: OrderedDict[SeriesKey, State] = OrderedDict()
        self._evicted: list[State] = []

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(self._states.values())

    def take_evicted(self) -> list[State]:
        """Return, once, what left since the last call; the owner calls it after every batch."""
        evicted, self._evicted = self._evicted, []
        return evicted

    def get(self, key: SeriesKey) -> State | None:
        """Return the state of ``key`` without making or moving it."""
        return self._states.get(key)

    def get_or_create(self, key: SeriesKey) -> State:
        """Return the state of ``key``, now the most recently used one."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = self._create(key)
            if len(self._states) > self._max_series:
                self._evicted.append(self._states.popitem(last=False)[1])
        else:
            self._states.move_to_end(key)
        return state
