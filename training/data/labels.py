"""What people said about stretches of series, frozen: the labels of one data set.

Pure: no SQL here, whoever reads the floor's labels hands them over. Invariants: a snapshot is its
content, named by the SHA-256 of its bytes; of several labels of one stretch the newest counts, and
all of them are kept, each with who gave it and how.

Shapes: N readings of a series.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_LABELS = 1_000_000
"""Of one snapshot: 300 MB of text or so."""


class Meaning(StrEnum):
    """What a label says of its stretch, as far as anomalies go."""

    ANOMALY = "anomaly"
    NORMAL = "normal"
    UNSURE = "unsure"
    """Neither counted as right nor as wrong: somebody looked and could not say, or named a class of their own."""


MEANINGS = {
    "anomaly": Meaning.ANOMALY,
    "anomalous": Meaning.ANOMALY,
    "true_positive": Meaning.ANOMALY,
    "normal": Meaning.NORMAL,
    "false_positive": Meaning.NORMAL,
    "expected": Meaning.NORMAL,
}
"""What people say, of windows and of alerts; every other word is ``UNSURE``."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class LabelledSpan:
    """One label of one stretch of a series."""

    key: str
    """Of the series, as ``Series.key``."""
    from_ts: float
    """Device time of the first reading, seconds since the Unix epoch."""
    to_ts: float
    """Device time of the last reading."""
    at: float = 0.0
    """When it was said, seconds since the Unix epoch; the newest counts."""
    label_id: str = ""
    """Of the row in the floor's ``labels``; empty for labels that came with the data."""
    value: str
    """What was said: a word of ``MEANINGS``, or the name of a class."""
    user_id: str = ""
    """Who said it."""
    provenance: str
    """How it came about, see ``labelling.labels.Provenance``; ``imported`` when it came with the data."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.from_ts) and self.from_ts <= self.to_ts < math.inf):
            raise ValueError(f"a labelled stretch of {self.key!r} ends before it begins")

    @property
    def meaning(self) -> Meaning:
        """What it says as far as anomalies go."""
        return MEANINGS.get(self.value, Meaning.UNSURE)


@dataclass(frozen=True, slots=True)
class LabelSnapshot:
    """The labels of one data set."""

    spans: tuple[LabelledSpan, ...]
    """In order of series, time and when they were given."""
    are_complete: bool
    """Whether every anomaly is labelled, so that all else is normal; else nobody has looked at the rest."""
    digest: str
    """SHA-256 of ``to_bytes``, in hexadecimal."""

    @classmethod
    def of(cls, spans: Iterable[LabelledSpan], *, are_complete: bool) -> "LabelSnapshot":
        """Freeze labels.

        Raises:
            ValueError: there are more than ``MAX_LABELS``.
        """
        ordered = tuple(sorted(spans))
        if len(ordered) > MAX_LABELS:
            raise ValueError(f"{len(ordered)} labels are more than a data set may have ({MAX_LABELS})")
        return cls(ordered, are_complete, hashlib.sha256(_encode(ordered, are_complete)).hexdigest())

    def to_bytes(self) -> bytes:
        """Return the canonical JSON text; equal snapshots are equal bytes."""
        return _encode(self.spans, self.are_complete)

    def counting(self) -> list[LabelledSpan]:
        """Return the newest label of every stretch."""
        newest = {(span.key, span.from_ts, span.to_ts): span for span in self.spans}
        return list(newest.values())

    def by_series(self) -> dict[str, list[LabelledSpan]]:
        """Return the labels that count, by the key of their series."""
        found: dict[str, list[LabelledSpan]] = {}
        for span in self.counting():
            found.setdefault(span.key, []).append(span)
        return found

    def people(self) -> dict[str, int]:
        """Return who gave how many labels, the busiest first."""
        return dict(Counter(span.user_id for span in self.spans).most_common())

    def by_value(self) -> dict[str, int]:
        """Return how many labels say what."""
        return dict(sorted(Counter(span.value for span in self.spans).items()))

    def by_provenance(self) -> dict[str, int]:
        """Return how many labels came about in which way."""
        return dict(sorted(Counter(span.provenance for span in self.spans).items()))


def _encode(spans: tuple[LabelledSpan, ...], are_complete: bool) -> bytes:
    document: dict[str, Any] = {"are_complete": are_complete, "spans": [asdict(span) for span in spans]}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


NO_LABELS = LabelSnapshot.of((), are_complete=False)


def anomalous(spans: Iterable[LabelledSpan], ts_N: Floats) -> NDArray[np.bool_]:
    """Return which readings lie in a stretch that is labelled an anomaly and in none that is labelled normal since."""
    mask_N = np.zeros(len(ts_N), dtype=bool)
    for span in sorted(spans, key=lambda span: (span.at, span.label_id)):
        if span.meaning is not Meaning.UNSURE:
            first, last = np.searchsorted(ts_N, span.from_ts), np.searchsorted(ts_N, span.to_ts, side="right")
            mask_N[first:last] = span.meaning is Meaning.ANOMALY
    return mask_N


def parse_labels(content: bytes) -> LabelSnapshot:
    """Return the snapshot that ``to_bytes`` wrote.

    Raises:
        ValueError: it is no such text; what is wrong stands in the error.
    """
    document = json.loads(content)
    try:
        spans = [LabelledSpan(**span) for span in document["spans"]]
        return LabelSnapshot.of(spans, are_complete=bool(document["are_complete"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a snapshot of labels: {error}") from error
