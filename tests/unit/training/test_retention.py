"""What trainings leave behind is bounded."""

import os
from pathlib import Path

import pytest

from training.registry.storage import Storage
from training.runs.retention import RetentionSettings, prune


def _fill(storage: Storage, root: Path) -> None:
    for age, name in enumerate(("newest", "middle", "oldest")):
        storage.write(f"runs/{name}/checkpoint_1/state.json", b"{}")
        storage.write(f"datasets/{name}.parquet", b"rows")
        for path in (root / "runs" / name, root / "datasets" / f"{name}.parquet"):
            os.utime(path, (1_000_000 - age, 1_000_000 - age))


def test_the_oldest_leave_first(storage: Storage, tmp_path: Path) -> None:
    """The present run counts, whether or not it has written yet."""
    _fill(storage, tmp_path / "storage")
    deleted = prune(storage, RetentionSettings(max_runs=2, max_datasets=3), keep_run="mine", keep_datasets={"newest"})

    assert deleted == ["runs/oldest", "runs/middle"]
    assert storage.by_age("runs") == ["newest"]
    assert len(storage.by_age("datasets")) == 3


def test_what_the_present_run_uses_stays(storage: Storage, tmp_path: Path) -> None:
    _fill(storage, tmp_path / "storage")
    prune(storage, RetentionSettings(max_runs=1, max_datasets=1), keep_run="oldest", keep_datasets={"oldest"})

    assert storage.by_age("runs") == ["oldest"]
    assert storage.by_age("datasets") == ["oldest.parquet"]


def test_an_empty_storage_has_nothing_to_delete(storage: Storage) -> None:
    assert prune(storage, RetentionSettings(), keep_run="mine", keep_datasets={"mine"}) == []


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_runs must be at least 1, got 0"):
        RetentionSettings(max_runs=0)
