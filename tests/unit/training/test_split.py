"""The split by time and by device: no reading in two parts, no held-out device in training, one way to cut windows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.detection_settings import DetectorSettings
from ingest.series import Series as JudgedSeries
from ingest.windows import Normaliser, Point, SeriesKey, cut_windows
from tests.unit.training.conftest import make_dataset
from training.data.snapshots import Dataset, Series, split_windows
from training.data.split import Split, device_of, split_by
from training.errors import NotEnoughDataError
from training.settings import TrainSettings

SMALL = TrainSettings(context=16, channels=4, num_layers=2, min_windows=1, max_windows=100_000)


def make_floor(devices: int, channels: int, readings: int, rng: np.random.Generator) -> Dataset:
    """Every value of the floor is unique, so that a shared one is a leak."""
    values = rng.permutation(devices * channels * readings).astype(np.float64).reshape(devices, channels, readings)
    series = []
    for device in range(devices):
        for channel in range(channels):
            ts = np.sort(rng.uniform(0, 1e6, readings))
            series.append(Series(f"acme/d-{device}/c{channel}", ts, values[device, channel]))
    return Dataset.of("floor", series)


floors = st.builds(
    make_floor,
    devices=st.integers(1, 9),
    channels=st.integers(1, 3),
    readings=st.integers(120, 200),
    rng=st.integers(0, 10_000).map(np.random.default_rng),
)
fractions = st.floats(0.1, 0.4)


@given(dataset=floors, validation=fractions, holdout=fractions, devices=st.floats(0, 0.5))
def test_no_reading_is_in_two_parts_and_no_held_out_device_trains(
    dataset: Dataset, validation: float, holdout: float, devices: float
) -> None:
    """By time within a device, whatever its channels; by device across all of them."""
    wanted = replace(SMALL, validation_fraction=validation, holdout_fraction=holdout, device_fraction=devices)
    split = dataset.split_by(wanted)
    times: dict[str, list[set[float]]] = {}
    for one in dataset.series:
        first, second = split.points(one.key, one.ts)
        assert 0 <= first <= second <= len(one.ts)
        times.setdefault(device_of(one.key), [set(), set(), set()])
        for number, part in enumerate((one.ts[:first], one.ts[first:second], one.ts[second:])):
            times[device_of(one.key)][number] |= set(part.tolist())
    for train, choose, judge in times.values():
        assert max(train) < min(choose) <= max(choose) < min(judge)
    assert len(split.held_out) == int(devices * len(times))
    assert split.held_out < times.keys()


@given(seed=st.integers(0, 1000), holdout=fractions)
def test_no_window_straddles_the_split(seed: int, holdout: float) -> None:
    """Each value of each window lies in its own part; of held-out devices only the last part gives windows."""
    rng = np.random.default_rng(seed)
    readings = 200
    # Values that say where they are: the device in the thousands, the place below.
    series = [
        Series(f"acme/d-{device}/c", np.sort(rng.uniform(0, 1e6, readings)), 1000.0 * device + np.arange(readings))
        for device in range(6)
    ]
    dataset = Dataset.of("floor", series)
    wanted = replace(SMALL, holdout_fraction=holdout, device_fraction=0.35)
    split = dataset.split_by(wanted)
    parts = split_windows(dataset, wanted)
    scaled = {}
    for device, one in enumerate(dataset.series):
        first, second = split.points(one.key, one.ts)
        normaliser = Normaliser.of(one.values[:first])
        scaled[device] = (normaliser.apply(one.values), first, second, one.key in {f"{d}/c" for d in split.held_out})

    def expected(part: int) -> list[list[float]]:
        found = []
        for values, first, second, is_held_out in scaled.values():
            edges = (0, first, second, readings)
            inside = values[edges[part] : edges[part + 1]]
            if is_held_out and part < 2:
                continue
            found += [inside[start : start + 17].tolist() for start in range(len(inside) - 16)]
        return found

    assert parts.train.tolist() == expected(0)
    assert parts.validation.tolist() == expected(1)
    assert parts.holdout.tolist() == expected(2)


@given(at=st.integers(0, 599), by=st.sampled_from([1e-3, 1.0, 1e6]))
def test_what_scales_a_series_comes_from_its_first_part_alone(at: int, by: float) -> None:
    """A later reading, however wild, moves no training window; and none of a device that never trains does."""
    dataset = make_dataset(600)
    other = [replace(one, values=one.values + by * (np.arange(600) == at)) for one in dataset.series]
    before, after = split_windows(dataset, SMALL), split_windows(Dataset.of("x", other), SMALL)
    validation = 600 - 2 * 90

    assert np.array_equal(before.train, after.train) is (at >= validation)
    if at >= validation + 90:
        assert np.array_equal(before.validation, after.validation)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 1.0, 1e9]), width=st.integers(2, 30))
def test_training_and_scoring_cut_and_scale_the_same_windows(seed: int, scale: float, width: int) -> None:
    """Bit for bit: what the detector asks a model about is what training would have shown it."""
    values = (scale * np.random.default_rng(seed).normal(1.0, 1.0, 300)).tolist()
    series = JudgedSeries(SeriesKey("acme", "d", "c"), DetectorSettings(context=width))
    points = [Point(float(seq), seq, value, np.nan) for seq, value in enumerate(values)]
    asked = []
    while points:
        piece = series.take(points[: series.room])
        assert piece is not None
        if len(piece.windows):
            asked = list(piece.windows)
            assert series._normaliser is not None
            scaled = series._normaliser.apply(np.array(values))
            trained = cut_windows(scaled, piece.indices[-len(piece.windows) :], width + 1)
            assert np.array_equal(piece.windows, trained)
        points = points[len(piece.indices) :]
        series.judge(piece, None)
    assert asked, "the series was long enough to be judged"


def test_the_same_devices_stay_held_out_when_more_come() -> None:
    """The choice goes by the device's name: it does not depend on the order, nor on the other devices' readings."""
    times = {f"acme/d-{number}/c": np.arange(100.0) for number in range(40)}
    fractions = {"validation_fraction": 0.15, "holdout_fraction": 0.15, "device_fraction": 0.15}
    few = split_by(dict(list(times.items())[:30]), **fractions)
    same = split_by(dict(reversed(list(times.items())[:30])), **fractions)
    more = split_by(times, **fractions)

    assert few == same
    assert len(few.held_out) == 4
    assert len(few.held_out & more.held_out) >= 3


def test_chosen_devices_are_held_out() -> None:
    times = {"a/x/c": np.arange(100.0), "a/y/c": np.arange(50.0)}
    fractions = {"validation_fraction": 0.15, "holdout_fraction": 0.15}

    assert split_by(times, **fractions, held_out=["a/x"]).held_out == {"a/x"}
    with pytest.raises(ValueError, match="no device 'a/z' to hold out; there are a/x, a/y"):
        split_by(times, **fractions, held_out=["a/z"])
    with pytest.raises(ValueError, match="all 2 devices would be held out"):
        split_by(times, **fractions, held_out=["a/x", "a/y"])


def test_a_split_survives_json() -> None:
    split = make_dataset(200).split_by(SMALL)

    assert Split.from_json(split.to_json()) == split
    with pytest.raises(ValueError, match="begins before"):
        Split.from_json({"cuts": {"a/x": [2.0, 1.0]}, "held_out": []})


def test_a_data_set_of_held_out_devices_only_says_so() -> None:
    dataset = make_dataset(300)
    frozen = replace(
        dataset, split=replace(dataset.split_by(SMALL), held_out=frozenset({"demo/device-0", "demo/device-1"}))
    )

    with pytest.raises(NotEnoughDataError, match="0 windows for training"):
        split_windows(frozen, SMALL)
