"""Series as a table of readings, and back: what a CSV or a Parquet file of a data set holds.

    series,ts,value,label
    acme/pump-1/bar,1764000000.0,4.21,normal

One row per reading. The series may also stand in three columns (``tenant``, ``device``, ``metric``, as
``watchfloor export`` writes them) or in none, when the file holds one series. A ``label`` column that
is filled for every reading makes the labels complete. Knows no files. Invariant: a table that
``to_table`` made gives back the same readings and the same labelled readings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.topics import is_level
from training.data.labels import LabelledSpan, LabelSnapshot, Meaning
from training.data.snapshots import Dataset, Series

KEYS = ("series", "tenant", "device", "metric")
TIMES = ("ts", "timestamp", "time")
VALUE = "value"
LABEL = "label"
READ = frozenset((*KEYS, *TIMES, VALUE, LABEL))
MAX_METRIC = 128
MAX_WORD = 64
MAX_TIME_S = 1e11
"""Seconds; a larger number is milliseconds or finer."""
IMPORTED = "imported"
"""Provenance of labels that came with the data, and the tenant of series that name none."""
SHORT = {"1": "anomaly", "true": "anomaly", "1.0": "anomaly", "0": "normal", "false": "normal", "0.0": "normal"}
"""Other ways to write a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What a file holds."""

    series: tuple[Series, ...]
    labels: LabelSnapshot
    dropped: int = 0
    """Rows without a time or a value that is a number."""
    ignored: tuple[str, ...] = field(default=())
    """Columns that mean nothing here."""


def from_table(table: pa.Table, stem: str) -> Readings:
    """Return the series of a table.

    Args:
        table: columns as above, in any order.
        stem: names the series when no column does.

    Raises:
        ValueError: a column is missing or holds what cannot be used; the text says which and what would do.
    """
    names = table.column_names
    if len(set(names)) != len(names):
        raise ValueError(f"the column {next(name for name in names if names.count(name) > 1)!r} is there twice")
    time_name = next((name for name in TIMES if name in names), None)
    if time_name is None or VALUE not in names:
        raise ValueError(
            f"a column ts (or timestamp) and a column value are needed; there are {', '.join(names) or 'none'}"
        )
    keys = _keys(table, stem)
    ts_N = _seconds(table.column(time_name))
    values_N = _numbers(table.column(VALUE), VALUE)
    labels = _words(table.column(LABEL)) if LABEL in names else None
    good_N = np.isfinite(ts_N) & np.isfinite(values_N)
    if len(good_N) and not good_N.any():
        raise ValueError("no row has both a time and a value that is a number")
    if (np.abs(ts_N[good_N]) >= MAX_TIME_S).any():
        raise ValueError(f"{time_name} is not in seconds since 1970: divide milliseconds by 1000, or write ISO 8601")
    encoded = keys.combine_chunks().dictionary_encode()
    codes_N = encoded.indices.to_numpy(zero_copy_only=False)
    series, spans = [], []
    for code, key in enumerate(encoded.dictionary.to_pylist()):
        rows = np.flatnonzero((codes_N == code) & good_N)
        if not len(rows):
            continue
        rows = rows[np.argsort(ts_N[rows], kind="stable")]
        one = Series(_checked(key), ts_N[rows], values_N[rows])
        series.append(one)
        if labels is not None:
            spans += _spans(one, [labels[row] for row in rows])
    are_complete = labels is not None and None not in labels
    if are_complete:  # what is not an anomaly is normal, and need not be said
        spans = [span for span in spans if span.value != Meaning.NORMAL]
    return Readings(
        series=tuple(series),
        labels=LabelSnapshot.of(spans, are_complete=are_complete),
        dropped=int(len(good_N) - good_N.sum()),
        ignored=tuple(name for name in names if name not in READ),
    )


def to_table(dataset: Dataset) -> pa.Table:
    """Return all readings of a data set as a table; with a column ``label`` where there are labels."""
    columns = {
        "series": pa.array(np.repeat([one.key for one in dataset.series], _lengths(dataset)), pa.string()),
        "ts": np.concatenate([one.ts for one in dataset.series] or [np.empty(0)]),
        "value": np.concatenate([one.values for one in dataset.series] or [np.empty(0)]),
    }
    if dataset.labels.spans or dataset.labels.are_complete:
        rest = Meaning.NORMAL.value if dataset.labels.are_complete else None
        by_series = dataset.labels.by_series()
        words = [word for one in dataset.series for word in _labelled(one, by_series.get(one.key, []), rest)]
        columns["label"] = pa.array(words, pa.string())
    return pa.table(columns)


def _labelled(one: Series, spans: Sequence[LabelledSpan], rest: str | None) -> list[str | None]:
    words: list[str | None] = [rest] * len(one.ts)
    for span in sorted(spans, key=lambda span: (span.at, span.label_id)):
        first, last = np.searchsorted(one.ts, span.from_ts), np.searchsorted(one.ts, span.to_ts, side="right")
        words[first:last] = [span.value] * int(last - first)
    return words


def _spans(one: Series, words: Sequence[str | None]) -> list[LabelledSpan]:
    """Return the runs of readings with the same label."""
    spans = []
    start = 0
    for word, run in groupby(words):
        count = len(list(run))
        if word is not None:
            first, last = float(one.ts[start]), float(one.ts[start + count - 1])
            spans.append(LabelledSpan(key=one.key, from_ts=first, to_ts=last, value=word, provenance=IMPORTED))
        start += count
    return spans


def _keys(table: pa.Table, stem: str) -> pa.ChunkedArray:
    if "series" in table.column_names:
        return _text(table.column("series"), "series")
    if "device" not in table.column_names:
        return pa.chunked_array([pa.array([stem] * table.num_rows, pa.string())])
    parts = []
    for name, otherwise in (("tenant", IMPORTED), ("device", ""), ("metric", VALUE)):
        has = name in table.column_names
        parts.append(_text(table.column(name), name) if has else pa.scalar(otherwise))
    return pc.binary_join_element_wise(*parts, "/")


def _checked(key: str) -> str:
    """Return a series' key in full: ``tenant/device/metric``."""
    parts = key.split("/", 2)
    if len(parts) == 1:
        parts = [IMPORTED, key, VALUE]
    if len(parts) == 3 and is_level(parts[0]) and is_level(parts[1]):
        metric = parts[2]
        if 1 <= len(metric) <= MAX_METRIC and metric.isprintable():
            return "/".join(parts)
    raise ValueError(
        f"series {key[:80]!r} is not named tenant/device/metric, the first two of at most 64 of A-Z, a-z, 0-9, _ and -"
    )


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no {name}")
    # What our own CSV puts before a name that a spreadsheet would compute.
    return pc.replace_substring_regex(column.cast(pa.string()), r"^'([=+\-@])", r"\1")


def _numbers(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    try:
        cast = column.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"the column {name} holds what is no number: {error}") from error
    return np.array(cast.to_numpy(), dtype=np.float64)  # a copy: nulls became NaN


def _seconds(column: pa.ChunkedArray) -> NDArray[np.float64]:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _parsed(column)
        kind = column.type
    if pa.types.is_timestamp(kind):
        micros_N = np.array(column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()).to_numpy(), dtype=np.float64)
        return micros_N / 1e6
    return _numbers(column, "ts")


def _parsed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts as numbers or as times; without a zone they are UTC."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid as error:
            problem = error
    raise ValueError(f"times must all be seconds, or all ISO 8601 with or without a zone: {problem}")


def _words(column: pa.ChunkedArray) -> list[str | None]:
    found: list[str | None] = []
    for row, said in enumerate(column.to_pylist(), 1):
        word = "" if said is None else str(said).strip()
        if len(word) > MAX_WORD or not word.isprintable():
            raise ValueError(f"label {word[:40]!r} of row {row} is longer than {MAX_WORD} characters, or no text")
        found.append(SHORT.get(word.lower(), word) or None)
    return found


def _lengths(dataset: Dataset) -> list[int]:
    return [len(one.ts) for one in dataset.series]
