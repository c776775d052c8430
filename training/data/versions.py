"""Versions of data sets: readings, labels and split, fixed together by one document.

    {storage}/datasets/<content>.parquet            readings, under the hash of their content
    {storage}/datasets/labels/<labels>.json         labels, under the hash of their bytes
    {storage}/datasets/manifests/<id>.json          the version: what it is made of; its SHA-256 is the id

Knows files, no SQL; names and numbers of versions stand in ``catalogue.py``. Invariants: a version
exists once its manifest does, and that is written last; the same source, readings, labels and split
are the same version, whoever freezes them; what ``load`` returns has the hashes of its manifest.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from training.data.labels import LabelSnapshot, parse_labels
from training.data.snapshots import FOLDER, Dataset, load_snapshot, save_snapshot
from training.data.split import Split, device_of
from training.errors import UnknownDatasetError
from training.registry.storage import Storage

FORMAT = 1
"""Raised when a reader of an older version could misunderstand a new manifest."""

ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """What a version is made of."""

    source: Mapping[str, Any]
    """Where the readings came from: ``kind`` is ``telemetry``, ``recorded`` or ``import``, the rest depends on it."""
    content: str
    """SHA-256 of the readings, see ``Dataset.digest``."""
    labels: str
    """SHA-256 of the labels, see ``LabelSnapshot.digest``."""
    num_labels: int
    series: tuple[Mapping[str, Any], ...]
    """``key``, ``readings``, ``from_ts`` and ``to_ts`` of each, in order of keys."""
    split: Mapping[str, Any]
    """See ``Split.to_json``."""
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """Return the canonical JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"

    @property
    def id(self) -> str:
        """Return the version's id: the SHA-256 of its text, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def freeze(dataset: Dataset, split: Split, source: Mapping[str, Any], storage: Storage) -> Dataset:
    """Keep a data set as a version and return it with its id; one that is there is left alone.

    Args:
        dataset: readings and labels.
        split: which part is for what.
        source: see ``DatasetManifest.source``.
        storage: the floor's.
    """
    manifest = DatasetManifest(
        source=dict(source),
        content=dataset.digest,
        labels=dataset.labels.digest,
        num_labels=len(dataset.labels.spans),
        series=tuple(
            {"key": one.key, "readings": len(one.ts), "from_ts": float(one.ts[0]), "to_ts": float(one.ts[-1])}
            for one in dataset.series
        ),
        split=split.to_json(),
    )
    save_snapshot(dataset, storage)
    for path, content in (
        (labels_path(manifest.labels), dataset.labels.to_bytes()),
        (manifest_path(manifest.id), manifest.to_bytes()),
    ):
        if not storage.exists(path):
            storage.write(path, content)
    return dataclasses.replace(dataset, split=split, id=manifest.id)


def load(version_id: str, storage: Storage, name: str = "") -> Dataset:
    """Return a version with its readings, labels and split.

    Args:
        version_id: see ``DatasetManifest.id``.
        storage: the floor's.
        name: what it is called from now on; empty: as its source.

    Raises:
        UnknownDatasetError: there is no such version, a part of it has left, or one is not what it was.
    """
    manifest = read_manifest(version_id, storage)
    labels, split = read_parts(manifest, storage)
    dataset = load_snapshot(manifest.content, storage)
    return dataclasses.replace(dataset, labels=labels, split=split, id=version_id, name=name or dataset.name)


def read_parts(manifest: DatasetManifest, storage: Storage) -> tuple[LabelSnapshot, Split]:
    """Return a version's labels and its split, without its readings.

    Raises:
        UnknownDatasetError: they cannot be read, or are not what they were.
    """
    try:
        labels = parse_labels(storage.read(labels_path(manifest.labels)))
        split = Split.from_json(manifest.split)
        missing = {device_of(str(one["key"])) for one in manifest.series} - split.cuts.keys()
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UnknownDatasetError(manifest.id, f"its labels or its split cannot be read ({error})") from error
    if labels.digest != manifest.labels:
        raise UnknownDatasetError(manifest.id, f"its labels have the digest {labels.digest}")
    if missing:
        raise UnknownDatasetError(manifest.id, f"its split says nothing of {min(missing)}")
    return labels, split


def read_manifest(version_id: str, storage: Storage) -> DatasetManifest:
    """Return what a version is made of, without its readings.

    Raises:
        UnknownDatasetError: there is none of this id, or it is not what it was.
    """
    if not ID.fullmatch(version_id):
        raise UnknownDatasetError(version_id, "an id is 64 hexadecimal digits")
    try:
        content = storage.read(manifest_path(version_id))
        document = json.loads(content)
    except (OSError, ValueError) as error:
        raise UnknownDatasetError(version_id, f"no readable manifest ({error})") from error
    if hashlib.sha256(content).hexdigest() != version_id:
        raise UnknownDatasetError(version_id, "its manifest was changed (SHA-256 differs)")
    # From here on it is what we wrote once; only a newer program may have written something else.
    if document.get("format") != FORMAT or document.keys() != {field.name for field in fields(DatasetManifest)}:
        raise UnknownDatasetError(
            version_id, f"its manifest has format {document.get('format')}, this program reads {FORMAT}"
        )
    return DatasetManifest(**document | {"series": tuple(document["series"])})


def manifest_path(version_id: str) -> str:
    """Return where a version's manifest lies on the storage."""
    return f"{FOLDER}/manifests/{version_id}.json"


def labels_path(digest: str) -> str:
    """Return where the labels of a digest lie on the storage."""
    return f"{FOLDER}/labels/{digest}.json"
