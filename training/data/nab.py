"""The Numenta Anomaly Benchmark's files: one CSV a series, and one JSON with the labelled windows.

    acme/pump-1/bar.csv     timestamp,value
    windows.json            {"acme/pump-1/bar.csv": [["2014-07-01 00:00:00.000000", "..."], ...], ...}

Text in, values out, and back; opens no file. Times carry no zone and are UTC; they are exact to a
microsecond. Labels are complete: what no window holds is normal.

References:
    github.com/numenta/NAB, ``data/`` and ``labels/combined_windows.json``.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from training.data.labels import LabelledSpan, LabelSnapshot, Meaning

WINDOWS = "windows.json"
WINDOW_FILES = (WINDOWS, "combined_windows.json")
"""Names under which a folder's windows are looked for."""

Windows = Mapping[str, Sequence[tuple[float, float]]]
"""First and last moment of each window by the file's path, seconds since the Unix epoch."""


def parse_windows(content: bytes) -> dict[str, list[tuple[float, float]]]:
    """Return the labelled windows of each file.

    Raises:
        ValueError: it is not such a document; the text says where.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ValueError(f"the windows are not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError('the windows must be an object: {"FILE.csv": [["FROM", "TO"], ...]}')  # noqa: TRY004 -- one kind of error for a file
    found = {}
    for name, windows in document.items():
        try:
            spans = [(_seconds(first), _seconds(last)) for first, last in windows]
        except (TypeError, ValueError) as error:
            expected = 'pairs of times such as "2014-07-01 00:00:00"'
            raise ValueError(f"windows of {str(name)[:80]!r} must be {expected}: {error}") from error
        if any(last < first for first, last in spans):
            raise ValueError(f"a window of {str(name)[:80]!r} ends before it begins")
        found[str(name)] = spans
    return found


def labels_of(windows: Windows, keys: Mapping[str, str], provenance: str) -> LabelSnapshot:
    """Return windows as labels.

    Args:
        windows: as ``parse_windows`` gave them.
        keys: the series' key by the path of its file.
        provenance: how the labels came about.

    Raises:
        ValueError: windows speak of none of the files.
    """
    by_name = {PurePosixPath(path).name: path for path in keys}
    spans = []
    known = 0
    for name, pairs in windows.items():
        # NAB names its files with their group, which a copy of a few of them may lack.
        path = name if name in keys else by_name.get(PurePosixPath(name).name)
        if path is None:
            continue
        known += 1
        spans += [
            LabelledSpan(key=keys[path], from_ts=first, to_ts=last, value=Meaning.ANOMALY, provenance=provenance)
            for first, last in pairs
        ]
    if windows and keys and not known:
        files = ", ".join(sorted(keys)[:5])
        raise ValueError(
            f"the windows speak of {min(windows)[:80]!r} and others, none of which is here; here is {files}"
        )
    return LabelSnapshot.of(spans, are_complete=True)


def dump_windows(labels: LabelSnapshot, paths: Mapping[str, str]) -> bytes:
    """Return the anomalies of labels as NAB's JSON, one entry a series.

    Args:
        labels: of the data set.
        paths: the file of each series by its key.
    """
    by_series = labels.by_series()
    document = {
        path: [
            [time_text(span.from_ts), time_text(span.to_ts)]
            for span in sorted(by_series.get(key, []))
            if span.meaning is Meaning.ANOMALY
        ]
        for key, path in sorted(paths.items(), key=lambda item: item[1])
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def path_of(key: str) -> str:
    """Return the path of a series' file, below the data set's folder and nowhere else."""
    return "/".join(quote(part, safe=" ").replace(".", "%2E") for part in key.split("/", 2)) + ".csv"


def key_of(path: str) -> str:
    """Return the series' key that ``path_of`` made a path of; of any other file its name."""
    parts = PurePosixPath(path).with_suffix("").parts
    return "/".join(map(unquote, parts)) if len(parts) == 3 else unquote(parts[-1])


def _seconds(text: object) -> float:
    if not isinstance(text, str):
        raise TypeError(f"{str(text)[:40]!r} is no time")
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def time_text(ts: float) -> str:
    """Return a time as NAB writes it, to the microsecond."""
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
