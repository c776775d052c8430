"""How many checkpoints and readings of data sets are kept.

Model versions, and the manifests and labels of data sets, are never deleted here: they are small, and
alerts lead to them for ever. Invariant: what the present run reads or writes stays, and what people
froze or brought, whatever the bounds are.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from training.data.snapshots import FOLDER as DATASETS
from training.data.snapshots import READINGS
from training.registry.storage import Storage

logger = logging.getLogger(__name__)

RUNS = "runs"
"""Folder of Ray Train's checkpoints, one folder per run in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """Bounds of what trainings leave on the storage."""

    max_runs: int = 100
    """Runs whose checkpoints are kept; those of the longest ended leave first."""
    max_datasets: int = 100
    """Data sets that runs froze by themselves and whose readings are kept; a model whose data set's readings have left
    can be judged on other data only."""

    def __post_init__(self) -> None:
        for name in ("max_runs", "max_datasets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def prune(storage: Storage, settings: RetentionSettings, *, keep_run: str, keep_datasets: Collection[str]) -> list[str]:
    """Delete what is beyond the bounds, and return it.

    Args:
        storage: the floor's storage.
        settings: the bounds.
        keep_run: the present run.
        keep_datasets: see ``prune_datasets``.
    """
    runs = _prune(storage, RUNS, storage.by_age(RUNS), settings.max_runs, {keep_run})
    return runs + prune_datasets(storage, settings, keep_datasets)


def prune_datasets(storage: Storage, settings: RetentionSettings, keep: Collection[str]) -> list[str]:
    """Delete readings of data sets beyond their bound, and return them.

    Args:
        storage: the floor's storage.
        settings: the bound.
        keep: digests of the readings that stay, those of the present run among them.
    """
    names = [name for name in storage.by_age(DATASETS) if name.endswith(READINGS)]
    return _prune(storage, DATASETS, names, settings.max_datasets, {f"{digest}{READINGS}" for digest in keep})


def _prune(storage: Storage, folder: str, by_age: Sequence[str], most: int, kept: Collection[str]) -> list[str]:
    deleted = []
    names = [name for name in by_age if name not in kept]
    for name in names[: max(0, len(names) + 1 - most)]:
        try:
            storage.delete(f"{folder}/{name}")
        except OSError as error:
            # Another driver may have been faster; what is left is tried by the next run.
            logger.warning("%s/%s was not deleted: %s", folder, name, error)
        else:
            deleted.append(f"{folder}/{name}")
    return deleted
