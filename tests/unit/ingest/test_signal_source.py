"""Generated telemetry: the same for the same seed, with faults where it says."""

import itertools
import statistics

import pytest

from ingest.signal_source import Fault, SignalShape, generate_points


def test_a_seed_and_a_device_determine_everything() -> None:
    """Another seed or another device gives another series."""

    def first(seed: int, device: str) -> list[float]:
        return [point.value for point in itertools.islice(generate_points(seed, device, SignalShape()), 50)]

    assert first(1, "a") == first(1, "a")
    assert len({tuple(first(seed, device)) for seed in (1, 2) for device in ("a", "b")}) == 4


def test_faults_are_marked_and_look_like_faults() -> None:
    """All kinds occur, about as often as asked, and spikes lie far from the good points."""
    shape = SignalShape(mean_gap=200)
    points = list(itertools.islice(generate_points(3, "a", shape), 50_000))
    good = [point.value for point in points if point.fault is None]
    spikes = [point.value for point in points if point.fault is Fault.SPIKE]

    assert {point.fault for point in points} == {None, *Fault}
    starts = sum(a.fault is None and b.fault is not None for a, b in itertools.pairwise(points))
    assert 150 < starts < 300
    centre = statistics.fmean(good)
    assert statistics.median(abs(value - centre) for value in spikes) > 2 * statistics.pstdev(good)


def test_a_series_can_be_faultless() -> None:
    """For load, and for false-alarm counts."""
    points = itertools.islice(generate_points(3, "a", SignalShape(mean_gap=0)), 5000)

    assert all(point.fault is None for point in points)


def test_a_shape_that_cannot_be_is_refused() -> None:
    """With the value in the text."""
    with pytest.raises(ValueError, match="got"):
        SignalShape(memory=1.0)
