"""Ids sort by time and are never given twice."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import ids


def test_ids_increase() -> None:
    """Each id sorts after the one before, also within a millisecond."""
    made = [ids.new_id() for _ in range(1000)]

    assert made == sorted(set(made))


def test_ids_have_26_readable_characters() -> None:
    """An id can stand in a URL, a channel name and a folder name."""
    made = ids.new_id()

    assert len(made) == ids.LENGTH
    assert set(made) <= set(ids.ALPHABET)


def test_ids_increase_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back does not make ids repeat."""
    first = ids.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)

    assert ids.new_id() > first


def test_threads_get_different_ids() -> None:
    """Ids made at the same time differ."""
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: ids.new_id(), range(2000)))

    assert len(set(made)) == 2000
