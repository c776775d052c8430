"""Checkpoints: bitwise what they were, and refused where they do not belong."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.training.conftest import make_dataset
from training.data.snapshots import Dataset
from training.errors import CheckpointError, TornCheckpointError
from training.evaluation.forecasts import mean_loss
from training.runs.checkpoint import NUMBERS, TENSORS, load_checkpoint, save_checkpoint
from training.runs.loop import Progress, fit
from training.runs.recipe import copy_weights, set_up
from training.settings import TrainSettings

CPU = torch.device("cpu")


class Training:
    """A whole training without Ray, as ``train_fn`` puts it together."""

    def __init__(self, dataset: Dataset, settings: TrainSettings) -> None:
        setup = set_up(dataset, settings, CPU)
        self.model, self.state, self.batches, self.parts = setup.model, setup.state, setup.batches, setup.parts
        self.epochs = setup.epochs
        self.losses: list[float] = []

    def run(self, stop_after: int | None = None) -> None:
        made = iter(range(1, 10_000))
        self.state.progress = fit(
            self.model,
            self.state.optimizer,
            self.batches,
            epochs=self.epochs,
            report=self._after_epoch,
            start=self.state.progress,
            scheduler=self.state.scheduler,
            should_stop=lambda: stop_after is not None and next(made) >= stop_after,
        )

    def _after_epoch(self, progress: Progress) -> None:
        loss = mean_loss(self.model, *self.parts.validation)
        self.losses.append(loss)
        if loss < self.state.best_loss:
            self.state.best, self.state.best_loss = copy_weights(self.model), loss
            self.state.best_epoch = progress.epoch


@pytest.mark.parametrize("stop_after", [1, 10, 20], ids=lambda steps: f"after-{steps}-steps")
def test_a_training_continued_in_a_new_process_is_bitwise_the_same(
    stop_after: int, dataset: Dataset, settings: TrainSettings, tmp_path: Path
) -> None:
    """Weights, best weights, losses, learning rate and random state: nothing depends on the interruption."""
    whole = Training(dataset, settings)
    whole.run()

    first = Training(dataset, settings)
    first.run(stop_after)
    save_checkpoint(first.state, tmp_path)
    torch.manual_seed(12345)  # another process has another random state
    second = Training(dataset, settings)
    load_checkpoint(second.state, tmp_path)
    second.run()

    assert first.losses + second.losses == whole.losses
    assert (second.state.best_loss, second.state.best_epoch) == (whole.state.best_loss, whole.state.best_epoch)
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(expected, second.model.state_dict()[name]), name
        assert torch.equal(whole.state.best[name], second.state.best[name]), name
    assert whole.state.scheduler.get_last_lr() == second.state.scheduler.get_last_lr()
    assert replace(whole.state.progress, elapsed_s=0.0) == replace(second.state.progress, elapsed_s=0.0)


def test_elapsed_time_goes_on_after_a_restart(dataset: Dataset, settings: TrainSettings, tmp_path: Path) -> None:
    """Limits that count training time survive a restart."""
    first = Training(dataset, settings)
    first.run(3)
    first.state.progress = replace(first.state.progress, elapsed_s=1000.0)
    save_checkpoint(first.state, tmp_path)
    second = Training(dataset, settings)
    load_checkpoint(second.state, tmp_path)
    second.run()

    assert 1000.0 < second.state.progress.elapsed_s < 1060.0


def test_a_checkpoint_of_other_data_is_refused(dataset: Dataset, settings: TrainSettings, tmp_path: Path) -> None:
    """Going on with other readings would be another training under the same name."""
    save_checkpoint(Training(dataset, settings).state, tmp_path)

    with pytest.raises(CheckpointError, match="made with other data"):
        load_checkpoint(Training(make_dataset(600, seed=1), settings).state, tmp_path)


def test_a_checkpoint_of_another_network_is_refused(dataset: Dataset, settings: TrainSettings, tmp_path: Path) -> None:
    save_checkpoint(Training(dataset, settings).state, tmp_path)

    with pytest.raises(CheckpointError, match="of another training"):
        load_checkpoint(Training(dataset, replace(settings, channels=8)).state, tmp_path)


def test_a_truncated_checkpoint_is_refused(dataset: Dataset, settings: TrainSettings, tmp_path: Path) -> None:
    training = Training(dataset, settings)
    save_checkpoint(training.state, tmp_path)
    whole = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[:-100])
    with pytest.raises(TornCheckpointError, match="not a safetensors file"):
        load_checkpoint(training.state, tmp_path)
    (tmp_path / TENSORS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TornCheckpointError, match="not what was written"):
        load_checkpoint(training.state, tmp_path)

    (tmp_path / TENSORS).write_bytes(whole)
    (tmp_path / NUMBERS).write_text(json.dumps({"format": 99}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(training.state, tmp_path)


def test_a_checkpoint_of_another_number_of_workers_is_refused(
    dataset: Dataset, settings: TrainSettings, tmp_path: Path
) -> None:
    """Its place inside a pass would leave out windows or show them twice."""
    training = Training(dataset, settings)
    save_checkpoint(training.state, tmp_path)
    training.state.world_size = 2

    with pytest.raises(CheckpointError, match="made by 1 workers, there are 2"):
        load_checkpoint(training.state, tmp_path)


def test_all_random_states_go_on_where_they_were(dataset: Dataset, settings: TrainSettings, tmp_path: Path) -> None:
    """Those of Python and numpy too: a model of somebody else's may use them."""
    training = Training(dataset, settings)
    random.seed(1)
    np.random.seed(2)
    random.gauss()
    np.random.standard_normal(3)
    save_checkpoint(training.state, tmp_path)
    expected = (random.gauss(), random.random(), np.random.standard_normal(4).tolist(), torch.rand(2).tolist())
    load_checkpoint(training.state, tmp_path)

    assert (random.gauss(), random.random(), np.random.standard_normal(4).tolist(), torch.rand(2).tolist()) == expected
