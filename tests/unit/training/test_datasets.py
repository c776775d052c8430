"""Data sets: names, content hashes, snapshots, and that nothing held out is ever trained on."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.conftest import make_dataset
from training.data.snapshots import (
    Dataset,
    Series,
    load_snapshot,
    read_dataset,
    save_snapshot,
    snapshot_path,
    split_windows,
)
from training.errors import NotEnoughDataError, UnknownDatasetError
from training.registry.storage import Storage
from training.settings import TrainSettings

SMALL = TrainSettings(context=16, channels=4, num_layers=2, min_windows=16)


def test_recorded_series_are_there_by_name_or_all_together() -> None:
    """Hyphens may stand for underscores, as in the names of the demo's devices."""
    one = read_dataset("recorded:nyc-taxi", "file:///nowhere", 1.0, 0.0)
    every = read_dataset("recorded", "file:///nowhere", 1.0, 0.0)

    assert [series.key for series in one.series] == ["recorded/nyc_taxi/value"]
    assert one.num_readings == 10_320
    assert len(every.series) == 7
    assert "recorded/nyc_taxi/value" in [series.key for series in every.series]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("recorded:unknown", id="unknown-series"),
        pytest.param("telemetry:only-a-tenant", id="no-device"),
        pytest.param("telemetry:a/", id="empty-device"),
        pytest.param("images", id="unknown-kind"),
        pytest.param("", id="empty"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_what_there_is(name: str, storage: Storage) -> None:
    with pytest.raises(UnknownDatasetError, match=r"recorded|TENANT/DEVICE"):
        read_dataset(name, storage.url, 1.0, 0.0)


def test_telemetry_comes_from_the_archive_by_device_and_by_age(storage: Storage) -> None:
    """One series per tenant, device and metric, in order of device time."""
    storage.write("telemetry/date=2026-01-01/1000-0_1000-5.parquet", _archive())

    everything = read_dataset("telemetry", storage.url, history_s=100.0, now_s=1000.0)
    device = read_dataset("telemetry:demo/pump", storage.url, history_s=100.0, now_s=1000.0)
    recent = read_dataset("telemetry", storage.url, history_s=15.0, now_s=1000.0)

    assert [series.key for series in everything.series] == ["demo/fan/rpm", "demo/pump/bar"]
    assert [series.values.tolist() for series in device.series] == [[1.0, 2.0, 3.0]]
    assert recent.num_readings == 2


def test_telemetry_without_an_archive_is_an_empty_data_set(storage: Storage) -> None:
    assert read_dataset("telemetry", storage.url, 1.0, 0.0).num_readings == 0


def test_the_digest_depends_on_content_only() -> None:
    """Not on the name, not on the order of series or readings; but on every single value."""
    data = make_dataset(100)
    shuffled = Dataset.of("other", [_reversed(series) for series in reversed(data.series)])
    changed = data.series[0].values.copy()
    changed[50] += 1e-9
    other = Dataset.of("made", [replace(data.series[0], values=changed), data.series[1]])

    assert data.digest == shuffled.digest
    assert data.digest != other.digest


def test_readings_that_are_no_numbers_are_left_out() -> None:
    series = Series("a/b/c", np.arange(4.0), np.array([1.0, np.nan, np.inf, 2.0]))

    assert Dataset.of("x", [series]).series[0].values.tolist() == [1.0, 2.0]


def test_a_snapshot_gives_back_the_very_same_data_set(dataset: Dataset, storage: Storage) -> None:
    """Name, digest and every bit of every reading."""
    save_snapshot(dataset, storage)
    found = load_snapshot(dataset.digest, storage)

    assert (found.name, found.digest) == (dataset.name, dataset.digest)
    for expected, actual in zip(dataset.series, found.series, strict=True):
        assert np.array_equal(expected.values, actual.values)
        assert np.array_equal(expected.ts, actual.ts)


def test_a_changed_or_missing_snapshot_is_refused(dataset: Dataset, storage: Storage) -> None:
    """A data set is its content: what has other content is another data set."""
    with pytest.raises(UnknownDatasetError, match="no readable snapshot"):
        load_snapshot(dataset.digest, storage)
    other = make_dataset(readings=100, seed=1)
    storage.write(snapshot_path(dataset.digest), storage.read(save_snapshot(other, storage)))

    with pytest.raises(UnknownDatasetError, match=f"has the digest {other.digest}"):
        load_snapshot(dataset.digest, storage)


@given(readings=st.integers(200, 700), holdout=st.floats(0.1, 0.4), validation=st.floats(0.1, 0.4))
def test_no_reading_is_in_two_parts(readings: int, holdout: float, validation: float) -> None:
    """Every value of a made series is unique, so a shared one would be a leak."""
    values = np.arange(readings, dtype=np.float64) ** 1.5
    data = Dataset.of("x", [Series("a/b/c", np.arange(readings, dtype=np.float64), values)])
    parts = split_windows(data, replace(SMALL, holdout_fraction=holdout, validation_fraction=validation, min_windows=1))
    seen = [set(np.unique(part)) for part in (parts.train, parts.validation, parts.holdout)]

    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert not seen[0] & seen[2]
    assert max(seen[0]) < min(seen[1])
    assert max(seen[1]) < min(seen[2])


def test_the_training_part_is_the_same_whatever_comes_after_it() -> None:
    """Nothing of the later parts reaches it, not even through the mean and scale of the series."""
    data = make_dataset(600)
    later = [replace(one, values=np.where(np.arange(600) < 420, one.values, 1e6)) for one in data.series]

    expected = split_windows(data, SMALL).train
    assert np.array_equal(expected, split_windows(Dataset.of("x", later), SMALL).train)


def test_a_large_data_set_is_thinned_by_a_seeded_choice(dataset: Dataset) -> None:
    """The same seed chooses the same windows, another one others, and no more than asked for."""
    chosen = replace(SMALL, max_windows=100)
    first, again = split_windows(dataset, chosen), split_windows(dataset, chosen)
    other = split_windows(dataset, replace(chosen, seed=1))

    assert len(first.train) == 100
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


def test_too_little_data_says_how_much_there_is_and_what_to_do() -> None:
    data = make_dataset(40)

    with pytest.raises(NotEnoughDataError) as caught:
        split_windows(data, SMALL)

    assert "'made' is too small" in str(caught.value)
    assert "80 readings of 2 series" in str(caught.value)
    assert "recorded:nyc_taxi" in str(caught.value)


def _reversed(series: Series) -> Series:
    return Series(series.key, series.ts[::-1], series.values[::-1])


def _archive() -> bytes:
    rows = [
        ("demo", "pump", "bar", 970.0, 1.0, 1),
        ("demo", "pump", "bar", 980.0, 2.0, 2),
        ("demo", "pump", "bar", 990.0, 3.0, 3),
        ("demo", "fan", "rpm", 985.0, 7.0, 1),
        ("demo", "fan", "rpm", 800.0, 6.0, 0),
    ]
    tenants, devices, metrics, ts, values, seqs = zip(*rows, strict=True)
    from ingest.archive import SCHEMA

    table = pa.table(
        {
            "tenant": tenants,
            "device": devices,
            "metric": metrics,
            "ts": ts,
            "value": values,
            "boot_id": ["b"] * len(rows),
            "seq": seqs,
            "recorded_at": [None] * len(rows),
            "received_at": ts,
            "reading_id": [f"1000-{index}" for index in range(len(rows))],
        },
        schema=SCHEMA,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
