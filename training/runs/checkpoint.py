"""Restart points of a run: everything that the next step depends on, in two files.

    state.safetensors   weights, best weights, optimiser moments, random states of torch and numpy
    state.json          progress, optimiser and scheduler numbers, best loss, data set, world size,
                        Python's random state, and the digest of the other file

No pickle: a checkpoint on shared storage must not be able to run code. Invariants: a torn
checkpoint is told from a whole one before anything is changed; and a
training continued from a checkpoint makes bit for bit the steps it would have made
(same machine, same number of workers).
"""

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cluster.whole_file import replacing
from training.errors import CheckpointError, TornCheckpointError
from training.models.weights import dump_weights, load_tensors
from training.runs.loop import Progress

TENSORS = "state.safetensors"
NUMBERS = "state.json"
FORMAT = 2


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
    world_size: int = 1
    """Ranks that share the windows of a step; the place inside a pass means nothing to another number of them."""


def save_checkpoint(state: TrainState, folder: Path) -> None:
    """Write ``state`` into ``folder``.

    Each file is on the disk before it has its name, and the one that vouches for the other comes last: who is
    killed here leaves a checkpoint that is refused, never one that is wrong.
    """
    optimizer = state.optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for index, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    generator = np.random.get_state(legacy=False)
    tensors["random.numpy"] = torch.from_numpy(generator["state"]["key"].astype(np.int64))
    version, internal, gauss = random.getstate()
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
        "world_size": state.world_size,
        "random": {
            "python": [version, list(internal), gauss],
            "numpy": [generator["state"]["pos"], generator["has_gauss"], generator["gauss"]],
        },
    }
    content = dump_weights(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, content)
    numbers["tensors_sha256"] = hashlib.sha256(content).hexdigest()
    # Python writes the shortest text that reads back as the same float, so no bit is lost.
    _write(folder / NUMBERS, json.dumps(numbers).encode())


def load_checkpoint(state: TrainState, folder: Path) -> None:
    """Continue ``state`` from ``folder``: everything in it is overwritten.

    Raises:
        TornCheckpointError: not written to its end; ``state`` is what it was.
        CheckpointError: of another model, another data set or another number of workers.
    """
    try:
        numbers: dict[str, Any] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        content = (folder / TENSORS).read_bytes()
        tensors = load_tensors(content)
    except (OSError, ValueError) as error:
        raise TornCheckpointError(str(folder), str(error)) from error
    if numbers.get("format") != FORMAT:
        raise CheckpointError(str(folder), f"it has format {numbers.get('format')!r}, this program reads {FORMAT}")
    if numbers["tensors_sha256"] != hashlib.sha256(content).hexdigest():
        raise TornCheckpointError(str(folder), f"{TENSORS} is not what was written")
    if numbers["world_size"] != state.world_size:
        made_by = f"it was made by {numbers['world_size']} workers, there are {state.world_size}"
        raise CheckpointError(str(folder), made_by)
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
    version, internal, gauss = numbers["random"]["python"]
    random.setstate((version, tuple(internal), gauss))
    position, has_gauss, cached = numbers["random"]["numpy"]
    key = tensors["random.numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, position, has_gauss, cached))


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): one for name, one in tensors.items() if name.startswith(f"{prefix}.")}
