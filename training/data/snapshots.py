"""Readings by the name of their source, frozen under the hash of their content, and the windows cut from them.

A data set is a set of series, their labels, and the split that says which part is for what;
``versions.py`` fixes the three together. No torch, no Ray.
Invariants: frozen readings never change; parts of a series follow each other in time and no
window reaches across two parts; a held-out device gives no window to train on or to choose by; what
scales a series comes from its own first part alone.

Shapes: N windows, W = context + 1 readings each, oldest first.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ingest.archive import read_telemetry
from ingest.windows import Normaliser, cut_windows
from training.data import nab
from training.data.labels import NO_LABELS, LabelSnapshot
from training.data.split import Split, split_by
from training.errors import NotEnoughDataError, UnknownDatasetError
from training.registry.storage import Storage
from training.settings import TrainSettings

Floats = NDArray[np.float64]
Windows = NDArray[np.float32]

FOLDER = "datasets"
READINGS = ".parquet"
TELEMETRY = "telemetry"
RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Series:
    """The readings of one metric of one device, in order of time."""

    key: str
    """``tenant/device/metric``, or ``recorded/<name>/value``."""
    ts: Floats
    """Device times, seconds since the Unix epoch."""
    values: Floats
    """Readings, finite."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Named series with their labels and their split."""

    name: str
    series: tuple[Series, ...]
    digest: str
    """SHA-256 over keys, times and values, in hexadecimal."""
    labels: LabelSnapshot = NO_LABELS
    """What people said of stretches of these series."""
    split: Split | None = None
    """Which part is for what; None until the data set is frozen, then it is made by a run's settings."""
    id: str = ""
    """Of the version, see ``versions.py``; empty until it is frozen."""

    @classmethod
    def of(cls, name: str, series: Sequence[Series], labels: LabelSnapshot = NO_LABELS) -> "Dataset":
        """Build a data set from series, put in order of time and freed of readings that are no numbers."""
        kept = []
        for one in sorted(series, key=lambda item: item.key):
            rows = np.flatnonzero(np.isfinite(one.values) & np.isfinite(one.ts))
            rows = rows[np.argsort(one.ts[rows], kind="stable")]
            if len(rows):
                kept.append(Series(one.key, one.ts[rows], one.values[rows]))
        return cls(name, tuple(kept), _digest(kept), labels)

    @property
    def num_readings(self) -> int:
        """Readings of all series together."""
        return sum(len(one.values) for one in self.series)

    def split_by(self, settings: TrainSettings) -> Split:
        """Return the split that was fixed with the data set, else the one that a run's settings make."""
        if self.split is not None:
            return self.split
        return split_by(
            {one.key: one.ts for one in self.series},
            validation_fraction=settings.validation_fraction,
            holdout_fraction=settings.holdout_fraction,
            device_fraction=settings.device_fraction,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a model's manifest says of the data that it was made from."""
        return {
            "name": self.name,
            "id": self.id,
            "digest": self.digest,
            "series": len(self.series),
            "readings": self.num_readings,
            "labels": self.labels.digest,
            "num_labels": len(self.labels.spans),
            "held_out_devices": sorted(self.split.held_out) if self.split is not None else [],
        }


@dataclass(frozen=True, slots=True)
class WindowSplit:
    """Windows of the three parts, (N, W) each, every value in units of its series' training part."""

    train: Windows
    """What the model is fitted to."""
    validation: Windows
    """Chooses the best epoch."""
    holdout: Windows
    """What the reported figures come from."""


def read_dataset(name: str, storage_url: str, history_s: float, now_s: float) -> Dataset:
    """Return the data set called ``name`` as it is now.

    Args:
        name: ``telemetry`` (all archived devices), ``telemetry:tenant/device``,
            ``recorded`` (all shipped series) or ``recorded:<series>``.
        storage_url: where the archive is.
        history_s: how far back telemetry is read.
        now_s: seconds since the Unix epoch.

    Raises:
        UnknownDatasetError: no such name; the text says which there are.
    """
    kind, _, detail = name.partition(":")
    if kind == TELEMETRY:
        return Dataset.of(name, _telemetry(name, detail, storage_url, now_s - history_s))
    if kind == RECORDED:
        return Dataset.of(name, *_recorded(name, detail))
    raise UnknownDatasetError(name, "expected telemetry, telemetry:TENANT/DEVICE, recorded or recorded:SERIES")


def is_source(name: str) -> bool:
    """Say whether a name stands for a source, which goes on growing, and not for what was frozen."""
    return name.partition(":")[0] in (TELEMETRY, RECORDED)


def save_snapshot(dataset: Dataset, storage: Storage) -> str:
    """Keep the data set under its digest and return its path; one that is there is left alone."""
    path = snapshot_path(dataset.digest)
    if not storage.exists(path):
        keys = [one.key for one in dataset.series for _ in range(len(one.values))]
        table = pa.table(
            {
                "series": pa.array(keys, pa.string()).dictionary_encode(),
                "ts": np.concatenate([one.ts for one in dataset.series] or [np.empty(0)]),
                "value": np.concatenate([one.values for one in dataset.series] or [np.empty(0)]),
            }
        ).replace_schema_metadata({"name": dataset.name, "digest": dataset.digest})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        storage.write(path, buffer.getvalue())
    return path


def load_snapshot(digest: str, storage: Storage) -> Dataset:
    """Return the data set kept under ``digest``.

    Raises:
        UnknownDatasetError: there is none, or its content does not have that digest.
    """
    try:
        table = pq.read_table(io.BytesIO(storage.read(snapshot_path(digest))))
    except (OSError, pa.ArrowInvalid) as error:
        raise UnknownDatasetError(digest, f"no readable snapshot ({error})") from error
    name = (table.schema.metadata or {}).get(b"name", b"").decode()
    dataset = Dataset.of(name, _by_series(table.column("series").cast(pa.string()), table))
    if dataset.digest != digest:
        raise UnknownDatasetError(digest, f"its content has the digest {dataset.digest}")
    return dataset


def snapshot_path(digest: str) -> str:
    """Return where the snapshot of a digest lies on the storage."""
    return f"{FOLDER}/{digest}{READINGS}"


def split_windows(dataset: Dataset, settings: TrainSettings) -> WindowSplit:
    """Cut each series into its parts, and each part into windows.

    A series is normalised by its first part only, as the detector normalises by a series'
    past; nothing is learned from the later parts.

    Raises:
        NotEnoughDataError: too few windows to train, to choose or to judge.
    """
    width = settings.context + 1
    split = dataset.split_by(settings)
    parts: tuple[list[_Part], list[_Part], list[_Part]] = ([], [], [])
    for one in dataset.series:
        validation, held_out = split.points(one.key, one.ts)
        if validation < width:
            continue
        values = Normaliser.of(one.values[:validation]).apply(one.values)
        edges = (0, validation, held_out, len(values))
        for number in (0, 1, 2) if split.trains(one.key) else (2,):
            first, last = edges[number : number + 2]
            if last - first >= width:
                parts[number].append(_Part(values, np.arange(first + width - 1, last)))
    rng = np.random.default_rng(settings.seed)
    few = max(1, settings.min_windows // 4)
    bounds = (
        ("training", settings.min_windows, settings.max_windows),
        ("validation", few, max(few, settings.max_windows // 4)),
        ("the held-out part", few, max(few, settings.max_windows // 4)),
    )
    chosen = []
    for part, (label, least, most) in zip(parts, bounds, strict=True):
        total = sum(len(piece.ends) for piece in part)
        if total < least:
            raise NotEnoughDataError(dataset.name, label, total, least, dataset.num_readings, len(dataset.series))
        chosen.append(_choose(part, width, total, most, rng))
    return WindowSplit(*chosen)


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of one series."""

    values: Windows
    """The whole series in units of its scale, shape (readings,)."""
    ends: NDArray[np.intp]
    """Where the windows of the part end."""


def _choose(pieces: list[_Part], width: int, total: int, most: int, rng: np.random.Generator) -> Windows:
    """Return at most ``most`` windows of all pieces as one array, in their order."""
    starts = np.cumsum([0] + [len(piece.ends) for piece in pieces])
    picked = np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))
    return np.concatenate(
        [
            cut_windows(
                piece.values, piece.ends[picked[(picked >= start) & (picked < start + len(piece.ends))] - start], width
            )
            for piece, start in zip(pieces, starts, strict=False)
        ]
    )


def _telemetry(name: str, detail: str, storage_url: str, since: float) -> list[Series]:
    tenant, slash, device = detail.partition("/")
    if detail and not (slash and tenant and device):
        raise UnknownDatasetError(name, "expected telemetry:TENANT/DEVICE")
    if detail:
        table = read_telemetry(storage_url, tenant=tenant, devices=[device], since=since)
    else:
        table = read_telemetry(storage_url, since=since)
    keys = pc.binary_join_element_wise(*(table.column(name) for name in ("tenant", "device", "metric")), "/")
    return _by_series(keys, table)


def _by_series(keys: pa.ChunkedArray, table: pa.Table) -> list[Series]:
    encoded = keys.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    ts = table.column("ts").to_numpy().astype(np.float64)
    values = table.column("value").to_numpy().astype(np.float64)
    return [
        Series(key, ts[codes == code], values[codes == code]) for code, key in enumerate(encoded.dictionary.to_pylist())
    ]


def _recorded(name: str, detail: str) -> tuple[list[Series], LabelSnapshot]:
    folder = files("ingest") / "data" / "nab"
    known = sorted(entry.name.removesuffix(".csv") for entry in folder.iterdir() if entry.name.endswith(".csv"))
    wanted = [detail.replace("-", "_")] if detail else known
    if not set(wanted) <= set(known):
        raise UnknownDatasetError(name, f"recorded series are {', '.join(known)}")
    found = []
    for stem in wanted:
        table = pa_csv.read_csv(io.BytesIO((folder / f"{stem}.csv").read_bytes()))
        times = table.column("timestamp").cast(pa.timestamp("s")).cast(pa.int64()).to_numpy().astype(np.float64)
        values = table.column("value").to_numpy().astype(np.float64)
        found.append(Series(f"{RECORDED}/{stem}/value", times, values))
    windows = nab.parse_windows((folder / nab.WINDOWS).read_bytes())
    keys = {f"{stem}.csv": f"{RECORDED}/{stem}/value" for stem in wanted}
    return found, nab.labels_of(windows, keys, RECORDED)


def _digest(series: Sequence[Series]) -> str:
    digest = hashlib.sha256()
    for one in series:
        digest.update(f"{one.key}\n{len(one.values)}\n".encode())
        digest.update(np.ascontiguousarray(one.ts, dtype="<f8").tobytes())
        digest.update(np.ascontiguousarray(one.values, dtype="<f8").tobytes())
    return digest.hexdigest()
