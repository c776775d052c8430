"""What a model version says about itself: one JSON document beside its weights.

Pure: text in, checked object out, and back. Invariant: a ``Manifest`` read from text has
every field with the right type, so whoever holds one need not ask again; the text is
canonical (sorted keys), so equal manifests are equal bytes.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

FORMAT = 1
"""Raised when a reader of an older version could misunderstand a new manifest."""

WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the version."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything needed to load a version, to judge it, and to make it again."""

    model_type: str
    """Entry point that loads it, in the group ``watchfloor.scorers``."""
    version: str
    """Unique within the model type."""
    files: dict[str, FileEntry]
    """Every other file of the version, by name."""
    config: dict[str, Any]
    """Shape of the network."""
    dataset: dict[str, Any]
    """Name, digest and size of the data set."""
    metrics: dict[str, float]
    """Held-out figures of ``evaluate.Evaluation``."""
    settings: dict[str, Any]
    """The ``TrainSettings`` of the run."""
    seed: int
    run_id: str
    user_id: str
    created_at: str
    """ISO 8601 in UTC."""
    libraries: dict[str, str]
    """Versions of torch, ray and python."""
    format: int = FORMAT

    @property
    def model_id(self) -> str:
        """Return the name of this version among all models: ``<model type>@<version>``."""
        return f"{self.model_type}@{self.version}"

    def to_bytes(self) -> bytes:
        """Return the canonical JSON text."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def parse_manifest(content: bytes) -> Manifest:
    """Return the manifest written in ``content``.

    Raises:
        ValueError: not a manifest, or of a newer format; the text says what is wrong.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ValueError(f"the manifest is not JSON ({error})") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ValueError(f"the manifest has format {found!r}, this program reads {FORMAT}")
    expected = {field.name for field in fields(Manifest)}
    if document.keys() != expected:
        raise ValueError(f"the manifest lacks or adds fields: {', '.join(sorted(document.keys() ^ expected))}")
    kinds = {"seed": int, "format": int} | dict.fromkeys(
        ("files", "config", "dataset", "metrics", "settings", "libraries"), dict
    )
    wrong = [name for name, value in document.items() if not isinstance(value, kinds.get(name, str))]
    if wrong:
        raise ValueError(f"the manifest's {wrong[0]} is not of type {kinds.get(wrong[0], str).__name__}")
    try:
        entries = {str(name): FileEntry(**entry) for name, entry in document["files"].items()}
    except TypeError as error:
        raise ValueError(f"the manifest's files are not described as expected ({error})") from error
    return Manifest(**(document | {"files": entries}))
