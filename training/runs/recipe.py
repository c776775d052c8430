"""How an anomaly detector is set up: windows, networks, optimiser and the order of batches.

Torch only: no Ray, no files. Invariant: equal settings and equal readings give equal
networks, batches and learning rates, in every process and at every attempt.

Shapes: B windows, K context length.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ingest.windows import Normaliser
from training.data.snapshots import Dataset, split_windows
from training.evaluation.forecasts import forecast, mean_loss
from training.models.forecaster import ForecasterConfig, ResidualForecaster, fit_autoregression, standardise
from training.runs.checkpoint import TrainState
from training.runs.loop import Batch, Progress
from training.settings import TrainSettings

WARMUP = 0.1
"""Part of all steps in which the learning rate rises."""
LINEAR_RATE = 0.25
"""Learning rate of the linear part, relative to the head's: it starts at its optimum."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Standardised windows of the three parts, on the worker's device."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    holdout: tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Setup:
    """A training that is ready to begin, or to be continued from a checkpoint."""

    parts: Parts
    model: ResidualForecaster
    baseline: ResidualForecaster
    """The same network, left at its closed form."""
    state: TrainState
    batches: Callable[[int], Iterator[Batch]]
    steps: int
    """Steps of an epoch, of each rank."""
    epochs: int
    """``TrainSettings.epochs``, or more for a small data set."""


def set_up(
    dataset: Dataset, settings: TrainSettings, device: torch.device, rank: int = 0, world_size: int = 1
) -> Setup:
    """Return everything that ``loop.fit`` needs.

    Raises:
        NotEnoughDataError: too few windows in one of the parts.
    """
    parts = prepare_parts(dataset, settings, device)
    model, baseline = build_networks(settings, parts)
    model.to(device)
    baseline.to(device)
    batches, steps = plan_batches(parts.train, settings, rank, world_size)
    epochs = max(settings.epochs, math.ceil(settings.min_steps / steps))
    state = new_state(model, settings, dataset.digest, epochs * steps, parts)
    state.world_size = world_size
    return Setup(parts, model, baseline, state, batches, steps, epochs)


def prepare_parts(dataset: Dataset, settings: TrainSettings, device: torch.device) -> Parts:
    """Cut the data set into its three parts and standardise every window.

    Raises:
        NotEnoughDataError: too few windows in one of the parts.
    """
    split = split_windows(dataset, settings)
    parts = []
    for windows in (split.train, split.validation, split.holdout):
        context, target, _ = standardise(torch.from_numpy(windows))
        parts.append((context.to(device), target.to(device)))
    return Parts(*parts)


def build_networks(settings: TrainSettings, parts: Parts) -> tuple[ResidualForecaster, ResidualForecaster]:
    """Return the network to train and an equal one that stays what it is now: the autoregression."""
    torch.manual_seed(settings.seed)
    config = ForecasterConfig(context=settings.context, channels=settings.channels, num_layers=settings.num_layers)
    model, baseline = ResidualForecaster(config), ResidualForecaster(config)
    weights = fit_autoregression(*parts.train, settings.ridge).cpu()
    for network in (model, baseline):
        network.set_autoregression(weights)
    return model, baseline


def new_state(
    model: ResidualForecaster, settings: TrainSettings, digest: str, total_steps: int, parts: Parts
) -> TrainState:
    """Return the state in which a training of ``total_steps`` begins; its best epoch is 0, the autoregression."""
    head = [*model.convolutions.parameters(), *model.head.parameters()]
    # Nothing pulls the linear part towards zero: it is regularised by its closed form already.
    groups: list[dict[str, Any]] = [
        {"params": list(model.ar.parameters()), "lr": settings.learning_rate * LINEAR_RATE, "weight_decay": 0.0},
        {"params": head},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    warmup = max(1, int(WARMUP * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total_steps - warmup))))

    return TrainState(
        model=model,
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, factor),
        dataset_digest=digest,
        progress=Progress(),
        best=copy_weights(model),
        best_loss=mean_loss(model, *parts.validation),
        best_epoch=0,
    )


def plan_batches(
    windows: tuple[Tensor, Tensor], settings: TrainSettings, rank: int, world_size: int
) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """Return the batches of this rank by epoch, and how many each epoch has."""
    context, target = windows
    stride = settings.batch_size * world_size
    # A last batch that cannot give every rank a window is left out: ranks must make equal steps.
    starts = [start for start in range(0, len(target), stride) if len(target) - start >= world_size]

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(target), generator=generator).to(target.device)
        for start in starts:
            chosen = order[start : start + stride][rank::world_size]
            yield context[chosen], target[chosen]

    return batches, len(starts)


def last_forecast(model: ResidualForecaster, dataset: Dataset, settings: TrainSettings) -> tuple[str, float, float]:
    """Return a series, the model's forecast of its newest reading, and that reading."""
    series = max(dataset.series, key=lambda one: len(one.values))
    validation, _ = dataset.split_by(settings).points(series.key, series.ts)
    normaliser = Normaliser.of(series.values[:validation])
    window = torch.from_numpy(normaliser.apply(series.values[-settings.context - 1 :])).unsqueeze(0)
    context, target, scale = standardise(window)
    error = (forecast(model, context.to(next(model.parameters()).device)).cpu() - target) * scale
    actual = float(series.values[-1])
    return series.key, actual + float(error[0]) * normaliser.scale, actual


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
