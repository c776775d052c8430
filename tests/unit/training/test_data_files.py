"""Data sets as files: what goes out comes back, and what cannot be used is refused with its reason."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.files import DatasetFormat, ImportSettings, format_of, read_file, write_file
from training.data.labels import LabelledSpan, LabelSnapshot, Meaning, anomalous
from training.data.snapshots import Dataset, Series, read_dataset
from training.data.tabular import Readings
from training.errors import DatasetFileError

LIMITS = ImportSettings()
CSV, PARQUET, NAB = DatasetFormat.CSV, DatasetFormat.PARQUET, DatasetFormat.NAB

levels = st.text("abcXYZ019_-", min_size=1, max_size=8)
metrics = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12).filter(
    lambda text: text.isprintable()
)


@st.composite
def data_sets(draw: st.DrawFn) -> Dataset:
    """Any names, any finite values, times to the microsecond, labels over any stretches."""
    keys = draw(st.lists(st.tuples(levels, levels, metrics).map("/".join), min_size=1, max_size=3, unique=True))
    series, spans = [], []
    for key in keys:
        micros = draw(st.lists(st.integers(0, 2 * 10**15), min_size=1, max_size=20, unique=True))
        ts = np.sort(np.array(micros, dtype=np.float64)) / 1e6
        values = draw(st.lists(st.floats(-1e300, 1e300), min_size=len(ts), max_size=len(ts)))
        series.append(Series(key, ts, np.array(values)))
        for said in draw(st.lists(st.sampled_from([Meaning.ANOMALY, Meaning.NORMAL]), max_size=2)):
            first, last = sorted(draw(st.tuples(*[st.integers(0, len(ts) - 1)] * 2)))
            span = LabelledSpan(key=key, from_ts=ts[first], to_ts=ts[last], at=len(spans), value=said, provenance="x")
            spans.append(span)
    return Dataset.of("made", series, LabelSnapshot.of(spans, are_complete=draw(st.booleans())))


def masks(dataset: Dataset | Readings) -> dict[str, list[bool]]:
    by_series = dataset.labels.by_series()
    return {one.key: anomalous(by_series.get(one.key, []), one.ts).tolist() for one in dataset.series}


@settings(max_examples=40)
@given(dataset=data_sets())
@pytest.mark.parametrize("kind", [CSV, PARQUET])
def test_csv_and_parquet_give_back_every_bit(
    kind: DatasetFormat, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Readings, names, labelled readings, and whether all of them are labelled."""
    (path,) = write_file(dataset, tmp_path_factory.mktemp("out") / f"x.{kind}", kind)
    found = read_file(path, kind, LIMITS)

    assert Dataset.of("made", found.series).digest == dataset.digest
    assert masks(found) == masks(dataset)
    everything = all(
        any(span.from_ts <= ts <= span.to_ts for span in dataset.labels.by_series().get(one.key, []))
        for one in dataset.series
        for ts in one.ts
    )
    assert found.labels.are_complete == (dataset.labels.are_complete or everything)


@settings(max_examples=40)
@given(dataset=data_sets())
def test_nab_gives_back_readings_and_anomalies(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the series are called, nothing is written outside of the folder."""
    folder = tmp_path_factory.mktemp("out") / "set"
    made = write_file(dataset, folder, NAB)
    found = read_file(folder, NAB, LIMITS)
    by_series = dataset.labels.by_series()
    only = {key: [span for span in spans if span.meaning is Meaning.ANOMALY] for key, spans in by_series.items()}

    assert all(path.resolve().is_relative_to(folder) for path in made)
    assert Dataset.of("made", found.series).digest == dataset.digest
    assert masks(found) == {one.key: anomalous(only.get(one.key, []), one.ts).tolist() for one in dataset.series}


def test_the_shipped_series_are_a_nab_data_set(tmp_path: Path) -> None:
    """The files of the benchmark itself are read as they are, with their windows."""
    folder = Path(__file__).parents[3] / "ingest" / "data" / "nab"
    found = read_file(folder, NAB, LIMITS)
    one = read_file(folder / "nyc_taxi.csv", NAB, LIMITS, folder / "windows.json")
    shipped = read_dataset("recorded:nyc_taxi", "file:///nowhere", 1.0, 0.0)

    assert len(found.series) == 7
    assert len(found.labels.spans) == 19
    assert np.array_equal(one.series[0].values, shipped.series[0].values)
    assert np.array_equal(one.series[0].ts, shipped.series[0].ts)
    assert [(span.from_ts, span.to_ts) for span in one.labels.spans] == [
        (span.from_ts, span.to_ts) for span in shipped.labels.spans
    ]


READ = [
    pytest.param("timestamp,value\n2014-07-01 00:00:00,1\n2014-07-01 00:05:00,2\n", [0.0, 300.0], id="nab"),
    pytest.param("time,value\n2014-07-01T02:00:00.5+02:00,1\n2014-07-01T00:05:00Z,2\n", [0.5, 300.0], id="zones"),
    pytest.param("value,ts\n1,1404172800\n2,1404173100.25\n", [0.0, 300.25], id="seconds"),
    pytest.param("ts,value\n1404173100,2\n1404172800,1\n", [0.0, 300.0], id="out-of-order"),
    pytest.param("ts,value\n1404172800,1\nnan,7\n1404173100,2\n1404173200,inf\n", [0.0, 300.0], id="no-numbers"),
]


@pytest.mark.parametrize(("text", "times"), READ)
def test_times_may_be_seconds_or_iso(text: str, times: list[float], tmp_path: Path) -> None:
    """A file of one series is called after itself; rows without a number are counted and left out."""
    path = tmp_path / "my pump.csv"
    path.write_text(text)
    found = read_file(path, CSV, LIMITS)

    assert [one.key for one in found.series] == ["imported/my-pump/value"]
    assert (found.series[0].ts - 1_404_172_800).tolist() == times
    assert found.series[0].values.tolist() == [1.0, 2.0]
    assert found.dropped == text.count("nan") + text.count("inf")


def test_the_archives_own_columns_name_the_series(tmp_path: Path) -> None:
    """As ``watchfloor export`` writes them; what means nothing here is said."""
    path = tmp_path / "x.csv"
    path.write_text("tenant,device,metric,ts,value,boot_id\nacme,p,bar,1,2.5,b\nacme,p,rpm,1,9,b\n")
    found = read_file(path, CSV, LIMITS)

    assert [one.key for one in found.series] == ["acme/p/bar", "acme/p/rpm"]
    assert found.ignored == ("boot_id",)
    assert found.labels.spans == ()
    assert not found.labels.are_complete


def test_labels_may_be_words_or_numbers_and_classes_of_ones_own(tmp_path: Path) -> None:
    """A gap leaves the rest unlabelled; 1 and 0 are anomaly and normal."""
    path = tmp_path / "x.csv"
    path.write_text("ts,value,label\n1,1,0\n2,1,1\n3,1,True\n4,1,\n5,1,bearing wear\n")
    found = read_file(path, CSV, LIMITS)

    assert [(span.value, span.from_ts, span.to_ts) for span in found.labels.spans] == [
        ("normal", 1.0, 1.0),
        ("anomaly", 2.0, 3.0),
        ("bearing wear", 5.0, 5.0),
    ]
    assert found.labels.spans[2].meaning is Meaning.UNSURE
    assert not found.labels.are_complete


BAD = [
    pytest.param(b"", "Empty CSV file", id="empty"),
    pytest.param(b"ts,value\n", "it holds no readings", id="header-only"),
    pytest.param(b"ts,reading\n1,2\n", "a column value are needed; there are ts, reading", id="no-value"),
    pytest.param(b"when,value\n1,2\n", r"a column ts \(or timestamp\)", id="no-time"),
    pytest.param(b"ts,value\n1,2,3\n", "Expected 2 columns, got 3", id="ragged"),
    pytest.param(b"ts,value\n1,2\n2,abc\n", "invalid value 'abc'", id="no-number"),
    pytest.param(b"ts,value\nyesterday,2\n", "ISO 8601", id="no-time-at-all"),
    pytest.param(b"ts,value\n1764000000000,2\n", "not in seconds since 1970", id="milliseconds"),
    pytest.param(b"ts,value\n1,nan\n", "no row has both a time and a value", id="only-nan"),
    pytest.param(b"ts,value,value\n1,2,3\n", "'value' is there twice", id="twice"),
    pytest.param(b"series,ts,value\na/b,1,2\n", "series 'a/b' is not named tenant/device/metric", id="half-a-name"),
    pytest.param(b"series,ts,value\na/../c,1,2\n", "is not named tenant/device/metric", id="a-path"),
    pytest.param(b"series,ts,value\n,1,2\n", "1 rows have no series", id="no-name"),
    pytest.param(b"ts,value,label\n1,2," + b"x" * 70 + b"\n", "label 'x+' of row 1 is longer", id="long-label"),
    pytest.param(b"ts,value\n\xff\xfe,2\n", "UTF8|UTF-8|ISO 8601", id="no-text"),
    pytest.param(bytes(range(256)), "bad.csv: ", id="no-csv"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_a_bad_csv_is_refused_by_name_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)

    with pytest.raises(DatasetFileError, match=reason) as caught:
        read_file(path, CSV, LIMITS)
    assert str(path) in str(caught.value)


@settings(max_examples=150)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: b"ts,value\n" + text.encode()))
@pytest.mark.parametrize("kind", list(DatasetFormat))
def test_no_file_gets_further_than_its_refusal(
    kind: DatasetFormat, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the bytes are, they are readings or the one error that callers know."""
    path = tmp_path_factory.mktemp("bad") / "bad.csv"
    path.write_bytes(content)
    with suppress(DatasetFileError):
        found = read_file(path, kind, LIMITS)
        assert all(np.isfinite(one.values).all() and np.isfinite(one.ts).all() for one in found.series)


def test_a_parquet_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """Truncated, of other columns, of values that are no numbers."""
    good = tmp_path / "good.parquet"
    pq.write_table(pa.table({"ts": [1.0, 2.0], "value": [1.0, 2.0]}), good)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"ts": [1.0], "value": [[1.0]]}), nested)

    assert len(read_file(good, PARQUET, LIMITS).series) == 1
    for path in (cut, other, nested):
        with pytest.raises(DatasetFileError, match=path.name):
            read_file(path, PARQUET, LIMITS)


def test_what_is_too_large_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    """By bytes, by rows, by series; and a small Parquet file by what it unpacks to."""
    csv = tmp_path / "x.csv"
    csv.write_text("series,ts,value\na/b/c,1,2\na/b/d,1,2\n")
    bomb = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"ts": np.zeros(500_000), "value": np.zeros(500_000)}), bomb, compression="zstd")

    assert bomb.stat().st_size < 20_000
    for path, kind, limits, reason in (
        (csv, CSV, ImportSettings(max_bytes=10), "it has 36 bytes, 10 are let in"),
        (csv, CSV, ImportSettings(max_readings=1), "it holds 2 readings, 1 are let in"),
        (csv, CSV, ImportSettings(max_series=1), "it holds 2 series, 1 are let in"),
        (bomb, PARQUET, ImportSettings(max_readings=1000), "it holds 500000 readings, 1000 are let in"),
        (bomb, PARQUET, ImportSettings(max_bytes=100_000), "100000 are let in .WATCHFLOOR_IMPORT_MAX_BYTES"),
    ):
        with pytest.raises(DatasetFileError, match=reason):
            read_file(path, kind, limits)
    with pytest.raises(ValueError, match="max_series must be at least 1, got 0"):
        ImportSettings(max_series=0)


NAB_WINDOWS = [
    pytest.param("[]", "must be an object", id="a-list"),
    pytest.param("{", "are not JSON", id="no-json"),
    pytest.param('{"x.csv": [["2014-01-01 00:00:00"]]}', "must be pairs of times", id="half-a-window"),
    pytest.param('{"x.csv": [[1, 2]]}', "must be pairs of times", id="numbers"),
    pytest.param('{"x.csv": [["2014-01-02", "2014-01-01"]]}', "ends before it begins", id="backwards"),
    pytest.param('{"y.csv": []}', "none of which is here; here is x.csv", id="another-file"),
]


@pytest.mark.parametrize(("windows", "reason"), NAB_WINDOWS)
def test_bad_windows_are_refused(windows: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("timestamp,value\n2014-01-01 00:00:00,1\n")
    (tmp_path / "windows.json").write_text(windows)

    with pytest.raises(DatasetFileError, match=reason):
        read_file(tmp_path, NAB, LIMITS)


def test_windows_may_name_their_files_with_a_group(tmp_path: Path) -> None:
    """As NAB's own ``combined_windows.json`` does."""
    (tmp_path / "x.csv").write_text("timestamp,value\n2014-01-01 00:00:00,1\n2014-01-02 00:00:00,1\n")
    windows = {"realKnownCause/x.csv": [["2014-01-02 00:00:00.000000", "2014-01-03 00:00:00.000000"]]}
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))

    assert masks(read_file(tmp_path, NAB, LIMITS)) == {"imported/x/value": [False, True]}


def test_nothing_is_written_over_and_formats_are_guessed(tmp_path: Path) -> None:
    dataset = Dataset.of("x", [Series("a/b/c", np.arange(3.0), np.arange(3.0))])
    path = tmp_path / "x.csv"
    write_file(dataset, path, CSV)

    with pytest.raises(DatasetFileError, match="nothing is written over"):
        write_file(dataset, path, CSV)
    assert (format_of(path), format_of(tmp_path), format_of(Path("x.PARQUET"))) == (CSV, NAB, PARQUET)
    with pytest.raises(DatasetFileError, match="say by --format"):
        format_of(Path("x.txt"))
    with pytest.raises(DatasetFileError, match="it is a folder; csv is one file"):
        read_file(tmp_path, CSV, LIMITS)
    with pytest.raises(DatasetFileError, match="there is no such file"):
        read_file(tmp_path / "no", CSV, LIMITS)
    with pytest.raises(DatasetFileError, match="belongs to nab"):
        read_file(path, CSV, LIMITS, path)
