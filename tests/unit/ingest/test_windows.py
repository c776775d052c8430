"""Windows stay ordered and bounded, whatever order the broker redelivers in."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.windows import Normaliser, Point, SeriesKey, SeriesStore, SeriesWindow


def point(ts: float, seq: int = -1, value: float | None = None) -> Point:
    return Point(ts, seq, ts if value is None else value, math.nan)


def test_the_oldest_points_leave_first() -> None:
    """A window never holds more than its capacity."""
    window = SeriesWindow(capacity=300)
    for start in range(0, 2000, 7):
        window.append([point(float(ts)) for ts in range(start, start + 7)])

    assert len(window) == 300
    assert window.value.tolist() == [float(ts) for ts in range(window.total - 300, window.total)]


def test_a_late_point_is_put_in_its_place() -> None:
    """Redelivery after newer readings changes the order of arrival, not of the window."""
    window = SeriesWindow(capacity=10)
    window.append([point(1.0), point(3.0), point(4.0)])

    assert window.insert(point(2.0)) == 1
    assert window.column("ts").tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("late", "index"),
    [
        pytest.param(point(2.0, seq=5), None, id="already-there"),
        pytest.param(point(2.0, seq=6), 2, id="same-time-later-seq"),
        pytest.param(point(2.0, seq=4), 1, id="same-time-earlier-seq"),
        pytest.param(point(2.0), 1, id="same-time-without-seq-is-never-a-duplicate"),
        pytest.param(point(0.5, seq=0), None, id="older-than-a-full-window"),
    ],
)
def test_late_points_by_time_and_seq(late: Point, index: int | None) -> None:
    """Equal times are ordered by sequence number; the same pair is refused."""
    window = SeriesWindow(capacity=3)
    window.append([point(1.0, seq=4), point(2.0, seq=5), point(3.0, seq=6)])

    inserted = window.insert(late)
    # A full window lost its oldest point, so every index moved by one.
    assert inserted == (None if index is None else index - 1)
    assert len(window) == 3


@given(st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=120))
def test_any_order_of_arrival_gives_the_same_window(order: list[int]) -> None:
    """What was taken in is sorted, without gaps or repeats."""
    window = SeriesWindow(capacity=200)
    for ts in order:
        late = point(float(ts), seq=ts)
        if window.is_newer(late):
            window.append([late])
        else:
            assert window.insert(late) is not None
            assert window.insert(late) is None

    assert window.value.tolist() == sorted(float(ts) for ts in order)


def test_windows_end_at_their_index() -> None:
    """One row per index, oldest value first."""
    window = SeriesWindow(capacity=10)
    window.append([point(float(ts)) for ts in range(6)])

    assert window.windows(np.array([2, 5]), 3).tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert window.windows(np.array([4]), 2).tolist() == [[3.0, 4.0]]


def test_a_constant_series_can_be_normalised() -> None:
    """Its scale is tiny but not zero, and a jump away from it stays finite."""
    normaliser = Normaliser.of(np.full(50, 7.0))

    assert normaliser.apply(np.array([7.0, 8.0])).tolist() == [0.0, 1000.0]


def test_the_series_longest_silent_leaves() -> None:
    """The number of series is bounded; what left is reported once."""
    store = SeriesStore(lambda key: key.metric, max_series=2)
    for metric in ("a", "b", "a", "c"):
        store.get_or_create(SeriesKey("t", "d", metric))

    assert sorted(store) == ["a", "c"]
    assert store.take_evicted() == ["b"]
    assert store.take_evicted() == []
