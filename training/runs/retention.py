"""How many checkpoints and data set snapshots are kept.

Model versions are never deleted here: they are small, and alerts name them for ever.
Invariant: what the present run reads or writes stays, whatever the bounds are.
"""

import logging
from dataclasses import dataclass

from training.data.snapshots import FOLDER as DATASETS
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
    """Data set snapshots kept; a version whose snapshot has left can be judged on other data only."""

    def __post_init__(self) -> None:
        for name in ("max_runs", "max_datasets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def prune(storage: Storage, settings: RetentionSettings, *, keep_run: str, keep_dataset: str) -> list[str]:
    """Delete what is beyond the bounds, and return it.

    Args:
        storage: the floor's storage.
        settings: the bounds.
        keep_run: the present run.
        keep_dataset: digest of the present run's data set.
    """
    deleted = []
    for folder, most, kept in (
        (RUNS, settings.max_runs, keep_run),
        (DATASETS, settings.max_datasets, f"{keep_dataset}.parquet"),
    ):
        names = [name for name in storage.by_age(folder) if name != kept]
        for name in names[: max(0, len(names) + 1 - most)]:
            try:
                storage.delete(f"{folder}/{name}")
            except OSError as error:
                # Another driver may have been faster; what is left is tried by the next run.
                logger.warning("%s/%s was not deleted: %s", folder, name, error)
            else:
                deleted.append(f"{folder}/{name}")
    return deleted
