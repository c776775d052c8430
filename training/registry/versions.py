"""Model versions: immutable folders on the floor's storage.

    {storage}/models/<model type>/<version>/{weights.safetensors, manifest.json}

The registry keeps bytes and hashes; what the weights mean is the model's affair, and
which version is live stands in ``promotion.py``. Nothing is ever unpickled. Invariants: a
version exists once its manifest does, and the manifest is written last; an existing
version is never written again; what ``read`` returns has the hashes of its manifest.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from training.errors import ModelFileError, ModelVersionExistsError, ModelVersionNotFoundError
from training.registry.manifest import MANIFEST, WEIGHTS, FileEntry, Manifest, parse_manifest
from training.registry.storage import Storage

FOLDER = "models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class ModelRegistry:
    """The versions of all model types on one storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, *, model_type: str, weights: bytes, created_at_s: float, **fields: Any) -> Manifest:
        """Write a new version and return its manifest.

        Args:
            model_type: entry point that will load it.
            weights: content of a safetensors file.
            created_at_s: seconds since the Unix epoch; the version begins with it, so names sort by age.
            fields: the other fields of ``Manifest``.

        Raises:
            ModelVersionExistsError: the very same weights were registered in the same millisecond.
        """
        digest = hashlib.sha256(weights).hexdigest()
        created = datetime.fromtimestamp(created_at_s, UTC)
        milliseconds = created.microsecond // 1000
        version = f"{created:%Y%m%dT%H%M%S}{milliseconds:03}Z-{digest[:8]}"
        manifest = Manifest(
            model_type=_checked(model_type),
            version=version,
            files={WEIGHTS: FileEntry(bytes=len(weights), sha256=digest)},
            created_at=created.isoformat(timespec="seconds").replace("+00:00", "Z"),
            **fields,
        )
        folder = folder_of(model_type, version)
        if self._storage.exists(f"{folder}/{MANIFEST}"):
            raise ModelVersionExistsError(model_type, version)
        text = manifest.to_bytes()
        self._storage.write(f"{folder}/{WEIGHTS}", weights)
        self._storage.write(f"{folder}/{MANIFEST}", text)
        return manifest

    def of_run(self, model_type: str, run_id: str, weights: bytes) -> Manifest | None:
        """Return the version that a run has registered with the very same weights; None when it has none."""
        digest = hashlib.sha256(weights).hexdigest()
        for version in reversed(self.versions(model_type)):
            if version.endswith(f"-{digest[:8]}"):
                found = self.manifest(model_type, version)
                if found.run_id == run_id and found.files[WEIGHTS].sha256 == digest:
                    return found
        return None

    def versions(self, model_type: str) -> list[str]:
        """Return the names of all complete versions, oldest first."""
        root = f"{FOLDER}/{_checked(model_type)}"
        return [name for name in self._storage.folders(root) if self._storage.exists(f"{root}/{name}/{MANIFEST}")]

    def manifest(self, model_type: str, version: str) -> Manifest:
        """Return what a version says about itself.

        Raises:
            ModelVersionNotFoundError: there is none of that name.
            ModelFileError: its manifest cannot be used.
        """
        if not (_NAME.fullmatch(version) and self._storage.exists(f"{folder_of(model_type, version)}/{MANIFEST}")):
            raise ModelVersionNotFoundError(model_type, version)
        return _read_manifest(self._storage, folder_of(model_type, version))

    def uri(self, manifest: Manifest) -> str:
        """Return the URL of the version's folder, as ``read_version`` takes it."""
        return self._storage.uri(folder_of(manifest.model_type, manifest.version))


def read_version(uri: str, *, model_type: str, version: str) -> tuple[Manifest, bytes]:
    """Return manifest and weights of the folder at ``uri``, with all hashes checked.

    Raises:
        ModelFileError: missing, truncated or changed files, or another model than asked for.
    """
    storage = Storage(uri)
    manifest = _read_manifest(storage, "")
    if (manifest.model_type, manifest.version) != (model_type, version):
        raise ModelFileError(uri, f"it holds {manifest.model_id}, not {model_type}@{version}")
    entry = manifest.files.get(WEIGHTS)
    if entry is None:
        raise ModelFileError(uri, f"its manifest lists no {WEIGHTS}")
    try:
        weights = storage.read(WEIGHTS)
    except OSError as error:
        raise ModelFileError(uri, f"{WEIGHTS} cannot be read ({error})") from error
    if len(weights) != entry.bytes:
        raise ModelFileError(uri, f"{WEIGHTS} has {len(weights)} bytes, its manifest says {entry.bytes}")
    if hashlib.sha256(weights).hexdigest() != entry.sha256:
        raise ModelFileError(uri, f"{WEIGHTS} is not what was registered (SHA-256 differs)")
    return manifest, weights


def read_manifest(uri: str) -> Manifest:
    """Return the manifest of the version in the folder at ``uri``.

    Raises:
        ModelFileError: it is missing or cannot be used.
    """
    return _read_manifest(Storage(uri), "")


def describe(manifest: Manifest) -> Mapping[str, Any]:
    """Return the few fields that a list of versions shows."""
    return {
        "model_id": manifest.model_id,
        "model_type": manifest.model_type,
        "version": manifest.version,
        "created_at": manifest.created_at,
        "run_id": manifest.run_id,
        "dataset": manifest.dataset,
        "metrics": manifest.metrics,
    }


def folder_of(model_type: str, version: str) -> str:
    """Return where a version lies on the storage.

    Raises:
        ValueError: one of the two is no such name.
    """
    return f"{FOLDER}/{_checked(model_type)}/{_checked(version)}"


def _read_manifest(storage: Storage, folder: str) -> Manifest:
    path = f"{folder}/{MANIFEST}" if folder else MANIFEST
    try:
        return parse_manifest(storage.read(path))
    except OSError as error:
        raise ModelFileError(storage.uri(folder), f"{MANIFEST} cannot be read ({error})") from error
    except ValueError as error:
        raise ModelFileError(storage.uri(folder), str(error)) from error


def _checked(name: str) -> str:
    # The name becomes a path: nothing in it may lead out of the registry's folder.
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a model type or version")
    return name
