"""What somebody wants trained, judged or labelled, and how the run queue is asked for it.

Page, HTTP, command line and ``train_model.submit`` make the same order, so all of them
get the same kind of run. Light: no Ray, no torch, for any process may order. Invariant:
what cannot be carried out is refused here, before there is a row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.runs import Run, RunRequest
from cluster.settings import load_section
from training.errors import HyperparameterError, UnknownModelTypeError
from training.labelling.active_learning import MAX_CHOSEN
from training.labelling.auto_labels import AutoSettings
from training.labelling.labels import LabellingStrategy
from training.settings import PRESETS, TrainSettings, with_hyperparameters

TASK = "train_model"
EVALUATION = "evaluate_model"
LABELLING = "dataset_labeling"
MODEL_TYPES = ("anomaly_detector",)

FALSE_PER_DAY = 0.1
"""False alarms per device and day that people bear, unless somebody says otherwise."""
LEAST_FALSE_PER_DAY, MOST_FALSE_PER_DAY = 0.001, 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """What somebody wants trained; the arguments of ``train_model``."""

    dataset_id: str
    model_type: str = "anomaly_detector"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    """A function of ``training.settings``; empty: the floor's defaults."""
    user_id: str = ""
    tenant: str | None = None

    def settings(self) -> TrainSettings:
        """Return the settings of the run.

        Raises:
            UnknownModelTypeError, HyperparameterError: the order cannot be carried out; the text says why.
        """
        if self.model_type not in MODEL_TYPES:
            raise UnknownModelTypeError(self.model_type, MODEL_TYPES)
        if self.preset and self.preset not in PRESETS:
            raise HyperparameterError("preset", self.preset, f"no such one; there are {', '.join(PRESETS)}")
        base = PRESETS[self.preset]() if self.preset else load_section(TrainSettings)
        return with_hyperparameters(base, self.hyperparameters)

    def to_request(self, request_id: str | None = None) -> RunRequest:
        """Return the order as the run queue takes it.

        Raises:
            UnknownModelTypeError, HyperparameterError: see ``settings``; nothing wrong gets into the queue.
        """
        settings = self.settings()
        workers = float(max(1, settings.num_workers))
        on_cpus, on_gpus = {"CPU": workers}, {"CPU": workers, "GPU": workers}
        return RunRequest(
            task=TASK,
            arguments={
                "dataset_id": self.dataset_id,
                "model_type": self.model_type,
                "hyperparameters": dict(self.hyperparameters),
                "preset": self.preset,
            },
            user_id=self.user_id,
            tenant=self.tenant,
            resources=on_gpus if settings.accelerator == "gpu" else on_cpus,
            preferred_resources=on_gpus if settings.accelerator == "auto" else None,
            request_id=request_id,
        )

    @classmethod
    def of(cls, run: Run) -> "TrainingOrder":
        """Return what the row of a run asks for."""
        return cls(
            dataset_id=run.dataset_id or "telemetry",
            model_type=run.model_type or MODEL_TYPES[0],
            hyperparameters=run.arguments.get("hyperparameters") or {},
            preset=run.arguments.get("preset") or "",
            user_id=run.user_id,
            tenant=run.tenant,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOrder:
    """What somebody wants judged; the arguments of ``evaluate_model``."""

    model_id: str
    """A version as ``references.find_version`` takes it."""
    dataset_id: str = "telemetry"
    false_alarms_per_day: float = FALSE_PER_DAY
    """Per device; what people bear."""

    def __post_init__(self) -> None:
        if not LEAST_FALSE_PER_DAY <= self.false_alarms_per_day <= MOST_FALSE_PER_DAY:
            raise ValueError(
                f"false_alarms_per_day must be {LEAST_FALSE_PER_DAY:g}-{MOST_FALSE_PER_DAY:g}, "
                f"got {self.false_alarms_per_day:g}"
            )

    def to_request(self, user_id: str, tenant: str | None = None, request_id: str | None = None) -> RunRequest:
        """Return the order as the run queue takes it."""
        return RunRequest(
            task=EVALUATION, arguments=asdict(self), user_id=user_id, tenant=tenant, request_id=request_id
        )

    @classmethod
    def of(cls, run: Run) -> "EvaluationOrder":
        """Return what the row of a run asks for.

        Raises:
            TypeError, ValueError: it asks for what cannot be.
        """
        return cls(**run.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellingOrder:
    """What somebody wants labelled; the arguments of ``dataset_labeling``."""

    dataset_id: str = "telemetry"
    strategy: str = LabellingStrategy.MANUAL
    """A ``LabellingStrategy``: who labels."""
    k: int = 20
    """Questions at most."""
    precision: float = AutoSettings().precision
    """Share of its own labels that ``auto`` must have proved to be right."""

    def __post_init__(self) -> None:
        if self.strategy not in list(LabellingStrategy):
            raise ValueError(f"strategy must be {', '.join(LabellingStrategy)}, got {self.strategy!r}")
        if not 1 <= self.k <= MAX_CHOSEN:
            raise ValueError(f"k must be 1-{MAX_CHOSEN}, got {self.k}")
        AutoSettings(precision=self.precision)

    def to_request(self, user_id: str, tenant: str | None = None, request_id: str | None = None) -> RunRequest:
        """Return the order as the run queue takes it."""
        return RunRequest(task=LABELLING, arguments=asdict(self), user_id=user_id, tenant=tenant, request_id=request_id)

    @classmethod
    def of(cls, run: Run) -> "LabellingOrder":
        """Return what the row of a run asks for.

        Raises:
            TypeError, ValueError: it asks for what cannot be.
        """
        return cls(**run.arguments)
