"""Two ranks, cut at random steps and continued from a checkpoint: the same training, bit for bit."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.unit.training.conftest import make_dataset
from training.models.weights import dump_weights
from training.runs.checkpoint import load_checkpoint, save_checkpoint
from training.runs.loop import Progress, fit
from training.runs.recipe import Setup, set_up
from training.runs.train_fn import _BetweenSteps, is_enough
from training.settings import TrainSettings

WORLD = 2
SETTINGS = TrainSettings(
    context=16, channels=4, num_layers=2, epochs=3, batch_size=32, min_steps=0, min_windows=64, num_workers=WORLD
)


def _rank(rank: int, folder: str, cuts: list[int | None]) -> None:
    """Be one of two: a training without a cut, then one that begins anew at each cut from what rank 0 wrote."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    for name, pieces in (("whole", [None]), ("cut", cuts)):
        _train(rank, Path(folder, name), pieces)
    distributed.destroy_process_group()


def _train(rank: int, place: Path, cuts: list[int | None]) -> None:
    for number, cut in enumerate(cuts):
        torch.manual_seed(1000 + number)  # what another process would have
        setup = set_up(make_dataset(600), SETTINGS, torch.device("cpu"), rank, WORLD)
        if number:
            load_checkpoint(setup.state, place)
        made = iter(range(1, 10_000))
        setup.state.progress = _fit(setup, lambda made=made, cut=cut: cut is not None and next(made) >= cut)
        if rank == 0:
            save_checkpoint(setup.state, place)
        distributed.barrier()
    if rank == 0:
        (place / "weights").write_bytes(dump_weights(setup.model.state_dict()))


def _fit(setup: Setup, should_stop: Callable[[], bool]) -> Progress:
    return fit(
        DistributedDataParallel(setup.model, find_unused_parameters=True),
        setup.state.optimizer,
        setup.batches,
        epochs=setup.epochs,
        report=_nothing,
        start=setup.state.progress,
        scheduler=setup.state.scheduler,
        should_stop=should_stop,
    )


def _nothing(_progress: Progress) -> None:
    return


def test_two_ranks_that_are_cut_and_continued_are_bitwise_the_same(tmp_path: Path) -> None:
    """Three cuts at random steps of a training of about forty."""
    cuts: list[int | None] = [*(random.randint(1, 9) for _ in range(3)), None]
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path), cuts), nprocs=WORLD)  # type: ignore[no-untyped-call]

    assert (tmp_path / "whole" / "weights").read_bytes() == (tmp_path / "cut" / "weights").read_bytes(), cuts


def _limited(rank: int, folder: str) -> None:
    """Be one of two, whose clocks differ: the limit has passed for the second one only."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    device = torch.device("cpu")
    setup = set_up(make_dataset(600), SETTINGS, device, rank, WORLD)
    between = _BetweenSteps(0.0 if rank == 1 else None, lambda: False, WORLD, device)
    end = _fit(setup, between.should_stop)
    Path(folder, f"rank-{rank}").write_text(f"{end.epoch} {end.step}")
    distributed.destroy_process_group()


def test_ranks_whose_clocks_differ_stop_after_the_same_step(tmp_path: Path) -> None:
    """The first clock to pass the soft limit decides for all; a rank that went on alone would wait for ever."""
    torch.multiprocessing.spawn(_limited, args=(str(tmp_path),), nprocs=WORLD)  # type: ignore[no-untyped-call]

    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(WORLD)] == ["0 1", "0 1"]


@pytest.mark.parametrize(("patience", "ends_after"), [(0, 3), (1, 1)], ids=["never", "after-one"])
def test_patience_counts_from_the_best_epoch(patience: int, ends_after: int) -> None:
    """The closed form, epoch 0, is the best here: nothing is ever found better."""
    setup = set_up(make_dataset(600), SETTINGS, torch.device("cpu"))

    def after_epoch(progress: Progress) -> None:
        setup.state.progress = progress

    end = fit(
        setup.model,
        setup.state.optimizer,
        setup.batches,
        epochs=3,
        report=after_epoch,
        start=Progress(),
        is_enough=lambda: is_enough(setup.state, patience),
    )
    assert end.epoch == ends_after
