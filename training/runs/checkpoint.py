"""Restart points of a run: everything that the next step depends on, in two files.

    state.safetensors   weights, best weights, optimiser moments, random state
    state.json          progress, optimiser and scheduler numbers, best loss, data set

No pickle: a checkpoint on shared storage must not be able to run code. Invariant: a
training continued from a checkpoint makes bit for bit the steps it would have made
(same machine, same number of workers).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.errors import CheckpointError
from training.models.weights import dump_weights, load_tensors
from training.runs.loop import Progress

TENSORS = "state.safetensors"
NUMBERS = "state.json"
FORMAT = 1


@dataclass(slots=True)
class TrainState:
    """What a run carries from step to step."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    dataset_digest: str
    """The data set that the run began with; another one is refused."""
    progress: Progress
    best: dict[str, Tensor]
    """Weights of the epoch with the least validation loss so far."""
    best_loss: float
    best_epoch: int


def save_checkpoint(state: TrainState, folder: Path) -> None:
    """Write ``state`` into ``folder``."""
    optimizer = state.optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for index, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    numbers = {
        "format": FORMAT,
        "progress": asdict(state.progress),
        "optimizer": optimizer["param_groups"],
        "scheduler": state.scheduler.state_dict(),
        "dataset_digest": state.dataset_digest,
        "best_loss": state.best_loss,
        "best_epoch": state.best_epoch,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TENSORS).write_bytes(dump_weights(tensors))
    # Python writes the shortest text that reads back as the same float, so no bit is lost.
    (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")


def load_checkpoint(state: TrainState, folder: Path) -> None:
    """Continue ``state`` from ``folder``: everything in it is overwritten.

    Raises:
        CheckpointError: truncated, of another model or of another data set.
    """
    try:
        numbers: dict[str, Any] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        tensors = load_tensors((folder / TENSORS).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(str(folder), str(error)) from error
    if numbers.get("format") != FORMAT:
        raise CheckpointError(str(folder), f"it has format {numbers.get('format')!r}, this program reads {FORMAT}")
    if numbers["dataset_digest"] != state.dataset_digest:
        raise CheckpointError(str(folder), "it was made with other data")
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer").items():
        index, _, field = name.partition(".")
        moments.setdefault(int(index), {})[field] = tensor
    groups = [group | {"betas": tuple(group["betas"])} for group in numbers["optimizer"]]
    try:
        state.model.load_state_dict(_part(tensors, "model"))
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.scheduler.load_state_dict(numbers["scheduler"])
        state.progress = Progress(**numbers["progress"])
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(str(folder), f"it is of another training ({error})") from error
    state.best = _part(tensors, "best")
    state.best_loss = numbers["best_loss"]
    state.best_epoch = numbers["best_epoch"]
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
