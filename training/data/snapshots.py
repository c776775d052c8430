"""Data sets by name, frozen as snapshots, and the windows that are cut from them.

A data set is a set of series of readings. It is read once, at the start of a run, and
kept under the hash of its content, so that every worker, every retry and every later
evaluation sees the same readings although the archive has grown. No torch, no Ray.
Invariants: a snapshot never changes; parts of a series follow each other in time and no
window reaches across two parts, so nothing of the held-out part was ever trained on.

Shapes: N windows, W = context + 1 readings each, oldest first.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ingest.archive import read_telemetry
from ingest.windows import Normaliser
from training.errors import NotEnoughDataError, UnknownDatasetError
from training.registry.storage import Storage
from training.settings import TrainSettings

Floats = NDArray[np.float64]
Windows = NDArray[np.float32]

FOLDER = "datasets"
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
    """Named series, and the hash of their content."""

    name: str
    series: tuple[Series, ...]
    digest: str
    """SHA-256 over keys, times and values, in hexadecimal."""

    @classmethod
    def of(cls, name: str, series: Sequence[Series]) -> "Dataset":
        """Build a data set from series, put in order of time and freed of readings that are no numbers."""
        kept = []
        for one in sorted(series, key=lambda item: item.key):
            rows = np.flatnonzero(np.isfinite(one.values) & np.isfinite(one.ts))
            rows = rows[np.argsort(one.ts[rows], kind="stable")]
            if len(rows):
                kept.append(Series(one.key, one.ts[rows], one.values[rows]))
        return cls(name, tuple(kept), _digest(kept))

    @property
    def num_readings(self) -> int:
        """Readings of all series together."""
        return sum(len(one.values) for one in self.series)


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
        return Dataset.of(name, _recorded(name, detail))
    raise UnknownDatasetError(name, "expected telemetry, telemetry:TENANT/DEVICE, recorded or recorded:SERIES")


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
    return f"{FOLDER}/{digest}.parquet"


def split_windows(dataset: Dataset, settings: TrainSettings) -> WindowSplit:
    """Cut each series into three parts in time, and each part into windows.

    A series is normalised by its training part only, as the detector normalises by a
    series' past; nothing is learned from the later parts.

    Raises:
        NotEnoughDataError: too few windows to train, to choose or to judge.
    """
    width = settings.context + 1
    parts: tuple[list[Windows], list[Windows], list[Windows]] = ([], [], [])
    for one in dataset.series:
        validation, held_out = split_points(len(one.values), settings)
        if validation < width:
            continue
        values = Normaliser.of(one.values[:validation]).apply(one.values)
        for part, piece in zip(
            parts, (values[:validation], values[validation:held_out], values[held_out:]), strict=True
        ):
            if len(piece) >= width:
                part.append(np.lib.stride_tricks.sliding_window_view(piece, width))
    rng = np.random.default_rng(settings.seed)
    few = max(1, settings.min_windows // 4)
    bounds = (
        ("training", settings.min_windows, settings.max_windows),
        ("validation", few, max(few, settings.max_windows // 4)),
        ("the held-out part", few, max(few, settings.max_windows // 4)),
    )
    chosen = []
    for part, (label, least, most) in zip(parts, bounds, strict=True):
        total = sum(len(piece) for piece in part)
        if total < least:
            raise NotEnoughDataError(dataset.name, label, total, least, dataset.num_readings, len(dataset.series))
        chosen.append(_choose(part, total, most, rng))
    return WindowSplit(*chosen)


def split_points(count: int, settings: TrainSettings) -> tuple[int, int]:
    """Return where the validation and the held-out part of a series of ``count`` readings begin."""
    held_out = count - int(settings.holdout_fraction * count)
    return held_out - int(settings.validation_fraction * count), held_out


def _choose(pieces: list[Windows], total: int, most: int, rng: np.random.Generator) -> Windows:
    """Return at most ``most`` windows of all pieces as one array, in their order."""
    if total <= most:
        return np.concatenate(pieces)
    picked = np.sort(rng.choice(total, most, replace=False))
    starts = np.cumsum([0] + [len(piece) for piece in pieces])
    return np.concatenate(
        [
            piece[picked[(picked >= start) & (picked < start + len(piece))] - start]
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


def _recorded(name: str, detail: str) -> list[Series]:
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
    return found


def _digest(series: Sequence[Series]) -> str:
    digest = hashlib.sha256()
    for one in series:
        digest.update(f"{one.key}\n{len(one.values)}\n".encode())
        digest.update(np.ascontiguousarray(one.ts, dtype="<f8").tobytes())
        digest.update(np.ascontiguousarray(one.values, dtype="<f8").tobytes())
    return digest.hexdigest()
