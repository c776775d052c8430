"""The training loop: steps over batches, progress out, a stop asked for between steps.

Torch only: no Ray, no files, no data set, no clock of its own but the monotonic one.
Invariant: what ``fit`` does after ``start`` depends only on the states of model, optimiser
and scheduler, on ``batches`` and on ``start``; so a loop continued from a checkpoint makes
the same steps as one that was never interrupted.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

Batch = tuple[Tensor, Tensor]
"""Standardised contexts (B, K) and their next values (B,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training is; enough, with the states, to continue from there."""

    epoch: int = 0
    """Passes finished."""
    step: int = 0
    """Steps made in the pass that is under way."""
    samples: int = 0
    """Windows seen so far by this worker, all passes together."""
    loss_sum: float = 0.0
    """Sum of the step losses of the pass under way."""
    loss: float | None = None
    """Mean training loss of the last finished pass; None before the first."""
    elapsed_s: float = 0.0
    """Training time so far, restarts included, in seconds."""


def never() -> bool:
    """The stop condition of a training without a limit."""
    return False


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Callable[[int], Iterable[Batch]],
    *,
    epochs: int,
    report: Callable[[Progress], None],
    start: Progress,
    scheduler: LRScheduler | None = None,
    clip_norm: float = 1.0,
    should_stop: Callable[[], bool] = never,
    is_enough: Callable[[], bool] = never,
    should_save: Callable[[], bool] = never,
    save: Callable[[Progress], None] | None = None,
    tick: Callable[[Progress], None] | None = None,
    tick_s: float = 0.25,
) -> Progress:
    """Train until ``epochs`` are finished, reporting after each one.

    Args:
        model: forecasts the batch's second part from its first.
        optimizer: holds the model's parameters.
        batches: gives the batches of an epoch, the same ones whenever it is asked again.
        epochs: passes in all, those before ``start`` included.
        report: called after each pass with its mean loss.
        start: where to begin; ``Progress()`` for a new training.
        scheduler: stepped after every optimiser step.
        clip_norm: largest gradient norm of a step.
        should_stop: asked after every step; True ends the loop there.
        is_enough: asked before every pass; True ends the training early. It must depend on the states of the
            training only, so that a continued training ends where the whole one does.
        should_save: asked after every step that did not end the loop.
        save: called when ``should_save`` said so, with the place inside the pass.
        tick: called between steps, at most every ``tick_s``, for live progress.
        tick_s: least time between two ticks, in seconds.

    Returns:
        Where the training is; ``epoch == epochs`` unless it was stopped or was enough.
    """
    progress = start
    began_s = time.monotonic() - start.elapsed_s
    next_tick_s = time.monotonic() + tick_s
    for epoch in range(start.epoch, epochs):
        if is_enough():
            return progress
        model.train()
        # Kept as a tensor: reading a number from the device after every step would wait for it.
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=next(model.parameters()).device)
        steps = progress.step
        for index, (context, target) in enumerate(batches(epoch)):
            if index < progress.step:
                continue  # made before the interruption
            loss = functional.smooth_l1_loss(model(context), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            loss_sum += loss.detach()
            steps = index + 1
            progress = replace(progress, samples=progress.samples + len(target))
            now_s = time.monotonic()
            stopping = should_stop()
            saving = not stopping and save is not None and should_save()
            ticking = tick is not None and now_s >= next_tick_s
            if stopping or saving or ticking:
                here = replace(progress, step=steps, loss_sum=loss_sum.item(), elapsed_s=now_s - began_s)
                if stopping:
                    return here
                if save is not None and saving:
                    save(here)
                if tick is not None and ticking:
                    tick(here)
                    next_tick_s = now_s + tick_s
        progress = replace(
            progress,
            epoch=epoch + 1,
            step=0,
            loss_sum=0.0,
            loss=loss_sum.item() / max(1, steps),
            elapsed_s=time.monotonic() - began_s,
        )
        report(progress)
    return progress
