"""What a training run can be told: one settings class, and presets named for what they are.

Nothing is read from the environment here. Invariant: a ``TrainSettings`` that exists is
usable; every range is checked when it is built, with the bad value in the text.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from training.errors import HyperparameterError

Accelerator = Literal["auto", "cpu", "gpu"]

ALIASES = {"lr": "learning_rate", "batch": "batch_size", "workers": "num_workers"}
"""Short names that people type after ``--set``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How an anomaly detector is trained; every field is a hyperparameter of ``--set``."""

    epochs: int = 8
    """Passes over the training windows; small data sets get more, see ``min_steps``."""
    learning_rate: float = 4e-3
    """Peak learning rate of the convolutional head."""
    batch_size: int = 256
    """Windows per step and worker."""
    context: int = 48
    """Readings that a forecast looks back on."""
    channels: int = 16
    """Width of the convolutional head."""
    num_layers: int = 4
    """Dilated convolutions of the head; it looks back on 2**(num_layers + 1) readings."""
    seed: int = 0
    """Seed of the initial weights, the choice of windows and their order."""
    max_windows: int = 20_000
    """Training windows used at most; a seeded choice is made when there are more."""
    min_windows: int = 256
    """Fewer training windows than this are refused; validation and held-out parts need a quarter of it."""
    min_steps: int = 600
    """A small data set is passed over more often, until this many steps are made."""
    history_s: float = 86_400.0
    """How far back live telemetry is read, in seconds."""
    validation_fraction: float = 0.15
    """Part of each series, before the held-out part, that chooses the best epoch."""
    holdout_fraction: float = 0.15
    """Last part of each series, never seen in training, that the reported figures come from."""
    device_fraction: float = 0.15
    """Share of the devices, rounded down, that never train: what the model makes of devices that it has not seen."""
    ridge: float = 1e-3
    """Regularisation of the closed-form autoregression."""
    weight_decay: float = 1e-2
    """Decay of the head's weights; the linear part has none."""
    clip_norm: float = 1.0
    """Largest gradient norm of a step."""
    checkpoint_interval_s: float = 15.0
    """Least time between two checkpoints, in seconds, also inside an epoch; the last epoch always makes one."""
    patience: int = 0
    """Epochs without a smaller validation loss after which a training ends early; 0: never."""
    num_workers: int = 1
    """Train workers; 0 runs in the calling process (Ray Train's local mode, for tests)."""
    accelerator: Accelerator = "auto"
    """``gpu`` or ``cpu``; ``auto`` takes a GPU per worker when the cluster has as many."""
    max_failures: int = 2
    """Times that lost workers, or a lost controller, are replaced before the run fails."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "channels", "num_layers", "max_windows", "min_windows"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "min_steps", "num_workers", "max_failures", "patience"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("learning_rate", "clip_norm", "history_s", "checkpoint_interval_s"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("ridge", "weight_decay"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("validation_fraction", "holdout_fraction"):
            _require(0.01 <= getattr(self, name) <= 0.4, name, getattr(self, name), "between 0.01 and 0.4")
        _require(0.0 <= self.device_fraction <= 0.5, "device_fraction", self.device_fraction, "between 0 and 0.5")
        _require(self.epochs <= 10_000, "epochs", self.epochs, "at most 10000")
        _require(self.num_layers <= 8, "num_layers", self.num_layers, "at most 8")
        _require(
            receptive_field(self.num_layers) <= self.context <= 4096,
            "context",
            self.context,
            f"between {receptive_field(self.num_layers)} (what {self.num_layers} layers look back on) and 4096",
        )
        _require(self.accelerator in get_args(Accelerator), "accelerator", self.accelerator, "auto, cpu or gpu")


def receptive_field(num_layers: int) -> int:
    """Return how many readings the head's last output looks back on; see ``models.forecaster``."""
    return 1 << (num_layers + 1)


def anomaly_small_cpu() -> TrainSettings:
    """Return the demo's run: one worker, one core, about ten seconds."""
    return TrainSettings(accelerator="cpu")


def anomaly_8gpu_h200() -> TrainSettings:
    """Return a run for one node of eight H200: a wider head, large batches, millions of windows."""
    return TrainSettings(
        accelerator="gpu",
        num_workers=8,
        context=128,
        channels=64,
        num_layers=5,
        batch_size=4096,
        epochs=30,
        learning_rate=8e-3,
        max_windows=8_000_000,
        history_s=30 * 86_400.0,
        checkpoint_interval_s=60.0,
    )


PRESETS: dict[str, Callable[[], TrainSettings]] = {
    preset.__name__: preset for preset in (anomaly_small_cpu, anomaly_8gpu_h200)
}


def with_hyperparameters(settings: TrainSettings, values: Mapping[str, Any]) -> TrainSettings:
    """Return ``settings`` with some fields replaced by what a user asked for.

    Args:
        settings: what holds where the user says nothing.
        values: field name or alias to a value; text is converted to the field's type.

    Raises:
        HyperparameterError: unknown name, wrong type or out of range; the text says which.
    """
    fields = {field.name: field for field in dataclasses.fields(TrainSettings)}
    changes: dict[str, Any] = {}
    for given, value in values.items():
        name = ALIASES.get(given, given)
        if name not in fields:
            raise HyperparameterError(given, str(value), f"no such one; there are {', '.join(fields)}")
        changes[name] = _convert(given, value, type(fields[name].default))
    if changes.get("num_workers") == 0:
        raise HyperparameterError("num_workers", "0", "a run has at least one worker; 0 is for tests without a cluster")
    for name, value in changes.items():
        try:
            dataclasses.replace(settings, **{name: value})
        except ValueError as error:
            # Alone it is out of range; together with the others it may still be right (context and num_layers).
            try:
                dataclasses.replace(settings, **changes)
            except ValueError:
                raise HyperparameterError(name, str(value), str(error)) from error
    return dataclasses.replace(settings, **changes)


def _convert(name: str, value: Any, kind: type) -> Any:
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise HyperparameterError(name, str(value), f"must be of type {kind.__name__}")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise HyperparameterError(name, str(value), f"must be of type {kind.__name__}") from error


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
