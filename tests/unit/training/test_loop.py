"""The loop: what it reports, where it stops, and that a continued training is the same training."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from training.runs.loop import Batch, Progress, fit

STEPS = 5


def _training(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def _batches(epoch: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(STEPS):
        context = torch.randn(16, 4, generator=generator)
        yield context, context.sum(1)


def _nothing(_progress: Progress) -> None:
    return


def test_it_reports_every_epoch_with_its_mean_loss_and_learns() -> None:
    """Loss falls, epochs count up, and all windows are counted."""
    reports: list[Progress] = []
    end = fit(*_training(), _batches, epochs=4, report=reports.append, start=Progress())

    losses = [report.loss for report in reports if report.loss is not None]
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert losses[-1] < losses[0]
    assert end == reports[-1]
    assert end.samples == 4 * STEPS * 16


@pytest.mark.parametrize("stop_after", [1, 4, 5, 7, 13], ids=lambda steps: f"after-{steps}-steps")
def test_a_training_that_was_stopped_and_continued_is_bitwise_the_same(stop_after: int) -> None:
    """Inside an epoch, at its end, in a later one: the weights and the reported loss do not differ by one bit."""
    whole, optimizer = _training()
    wholly: list[Progress] = []
    fit(whole, optimizer, _batches, epochs=3, report=wholly.append, start=Progress())

    model, optimizer = _training()
    made = iter(range(1, 1000))
    reports: list[Progress] = []
    stopped = fit(
        model,
        optimizer,
        _batches,
        epochs=3,
        report=reports.append,
        start=Progress(),
        should_stop=lambda: next(made) >= stop_after,
    )
    fit(model, optimizer, _batches, epochs=3, report=reports.append, start=stopped)

    assert stopped.epoch * STEPS + stopped.step == stop_after
    assert [report.loss for report in wholly] == [report.loss for report in reports]
    for expected, actual in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(expected, actual)


def test_ticks_come_between_steps_with_a_place_inside_the_epoch() -> None:
    """Live progress does not wait for the end of an epoch."""
    ticks: list[Progress] = []
    fit(*_training(), _batches, epochs=1, report=_nothing, start=Progress(), tick=ticks.append, tick_s=0.0)

    assert [tick.step for tick in ticks] == [1, 2, 3, 4, 5]
    assert all(tick.epoch == 0 and tick.loss_sum > 0 for tick in ticks)


def test_a_finished_training_makes_no_further_step() -> None:
    """Continuing from the last checkpoint of a whole training changes nothing."""
    model, optimizer = _training()
    before = [parameter.clone() for parameter in model.parameters()]
    end = fit(model, optimizer, _batches, epochs=3, report=_nothing, start=Progress(epoch=3))

    assert end == Progress(epoch=3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_it_is_enough_ends_a_training_before_the_next_pass() -> None:
    """Also one that is continued where it was enough already."""
    model, optimizer = _training()
    reports: list[Progress] = []
    end = fit(
        model,
        optimizer,
        _batches,
        epochs=9,
        report=reports.append,
        start=Progress(),
        is_enough=lambda: len(reports) >= 2,
    )
    again = fit(model, optimizer, _batches, epochs=9, report=_nothing, start=end, is_enough=lambda: True)

    assert [report.epoch for report in reports] == [1, 2]
    assert again == end == reports[-1]


def test_it_saves_inside_a_pass_when_it_is_told_to() -> None:
    """With the place to go on from, and going on after."""
    answers = iter([False, True, False, False, True])
    saved: list[Progress] = []
    end = fit(
        *_training(),
        _batches,
        epochs=1,
        report=_nothing,
        start=Progress(),
        should_save=lambda: next(answers),
        save=saved.append,
    )

    assert [(one.epoch, one.step) for one in saved] == [(0, 2), (0, 5)]
    assert end.epoch == 1
