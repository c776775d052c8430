"""A training as Ray Train runs it: resources, limits, storage, and why it failed.

Knows Ray's driver side only; the run queue and the terminal are ``driver.py``'s.
Invariants: a worker group carries the lane's token (1/N per worker) while the driver
carries nothing; a group that cannot start makes ``fit`` raise instead of trying for ever.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer  # what ray.train.torch gives, with its types

from cluster.lanes import get_route
from cluster.run_queue import RunQueueSettings
from cluster.settings import load_section
from training.errors import HyperparameterError, TrainingError, WorkersDidNotStartError, WorkersFailedError
from training.registry.storage import Storage
from training.runs.controller_loss import drop_torn_list, free_groups
from training.runs.lone_worker import LoneWorkerConfig
from training.runs.retention import RUNS
from training.runs.train_fn import TrainTask, train_anomaly_detector
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

TASK = "train_model"
ENVIRONMENT = {
    # ``report`` returns at the controller's next poll: 2 s by default, for every checkpoint.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Without it, ranks that wait for a lost one wait for ever.
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "300",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}

CHECKPOINTS_KEPT = 2


class LaneTrainer(TorchTrainer):
    """A ``TorchTrainer`` for a driver that lives as long as its run and no longer."""

    def _create_default_callbacks(self) -> list[Any]:
        # Ray starts a detached actor that frees the workers' placement group should the controller
        # die alone. Here ``train`` does so, and Ray itself frees a dead driver's groups; the
        # actor only costs a process, two seconds before the first step and up to twelve at the end.
        return [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, PlacementGroupCleanerCallback)
        ]

    def _register_sigint_handler(self, controller: Any) -> None:
        # The driver has handlers of its own, which also end the run's row; see ``driver.py``.
        del controller


def nothing() -> None:
    """The end of a run whose end nobody tells."""
    return


def train(
    task: TrainTask,
    cluster_resources: Mapping[str, float],
    *,
    told_end: Callable[[], dict[str, Any] | None] = nothing,
) -> dict[str, Any]:
    """Train on a worker group of its own and return what rank 0 returned.

    A controller that died is replaced as lost workers are: the new one goes on from the newest
    whole checkpoint, and each loss leaves one fewer to ``max_failures``.

    Args:
        task: what the workers are told.
        cluster_resources: what the whole cluster has, as ``ray.cluster_resources()``.
        told_end: what rank 0 has said itself about the run's end, None before; asked when its answer was lost.

    Raises:
        WorkersDidNotStartError: the worker group could not be started in time.
        WorkersFailedError: the workers or Ray's controller failed for good.
        HyperparameterError: GPUs were asked for that the cluster does not have.
    """
    lost = 0
    while True:
        try:
            result: Any = build_trainer(task, cluster_resources, task.settings.max_failures - lost).fit()
        except (TrainingFailedError, ActorDiedError) as error:
            # First of all: a lost controller's workers hold the lane's token, and may still work.
            free_groups()
            if is_loss(error) and (ended := told_end()) is not None:
                return ended
            if not is_loss(error) or lost >= task.settings.max_failures:
                raise explain(error) from error
            lost += 1
            logger.warning("run %s goes on with a new controller: %s", task.run_id, explain(error))
            drop_torn_list(Storage(task.storage_url), run_name(task))
        else:
            outcome: dict[str, Any] = result.return_value
            return outcome


def is_loss(error: TrainingFailedError | ActorDiedError) -> bool:
    """Tell whether a process was lost that Ray Train does not replace: its controller, or a worker while it starts."""
    if isinstance(error, ActorDiedError):
        return not error.actor_init_failed
    return isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupFailedError | RayActorError
    )


def build_trainer(task: TrainTask, cluster_resources: Mapping[str, float], max_failures: int) -> TorchTrainer:
    """Return a trainer of one run; where there are checkpoints of it, Ray Train begins with the newest.

    Args:
        task: what the workers are told.
        cluster_resources: what the whole cluster has, as ``ray.cluster_resources()``.
        max_failures: times that lost workers are replaced.

    Raises:
        HyperparameterError: GPUs were asked for that the cluster does not have.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{start_timeout_s():g}")
    settings = task.settings
    if settings.num_workers <= 1:
        # One worker has no collective that a preemption could leave hanging; one process less.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    return LaneTrainer(
        train_anomaly_detector,
        train_loop_config=task.to_config(),
        torch_config=cast(TorchConfig, LoneWorkerConfig()) if settings.num_workers == 1 else None,
        scaling_config=scaling(settings, cluster_resources),
        run_config=RunConfig(
            name=run_name(task),
            storage_path=f"{task.storage_url.rstrip('/')}/{RUNS}",
            # A controller that cannot get its workers would otherwise ask again without end.
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=0),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
        ),
    )


def run_name(task: TrainTask) -> str:
    """Return the name of the run's folder below ``RUNS``."""
    return task.run_id or "local"


def scaling(settings: TrainSettings, cluster_resources: Mapping[str, float]) -> ScalingConfig:
    """Return how many workers on what: GPUs where there are enough, else CPUs.

    Raises:
        HyperparameterError: GPUs were asked for that the cluster does not have.
    """
    workers = settings.num_workers
    if workers == 0:
        return ScalingConfig(num_workers=0)
    has_gpus = cluster_resources.get("GPU", 0.0) >= workers
    if settings.accelerator == "gpu" and not has_gpus:
        there = cluster_resources.get("GPU", 0.0)
        raise HyperparameterError("accelerator", "gpu", f"{workers} GPUs needed, the cluster has {there:g}")
    # Rounded down to Ray's smallest unit: three times a third must not exceed the lane's one token.
    token = math.floor(10_000 / workers) / 10_000
    return ScalingConfig(
        num_workers=workers,
        use_gpu=has_gpus and settings.accelerator != "cpu",
        resources_per_worker={"CPU": 1, get_route(TASK).lane: token},
    )


def explain(error: TrainingFailedError | ActorDiedError) -> TrainingError:
    """Return why ``fit`` failed, in the words of whoever knows."""
    if isinstance(error, ActorDiedError):
        return WorkersFailedError(f"Ray Train's controller died: {_first_line(error)}")
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        if isinstance(failure, WorkerGroupStartupTimeoutError):
            return WorkersDidNotStartError(start_timeout_s(), missing_resources())
        return WorkersFailedError(_first_line(failure))
    if isinstance(error, WorkerGroupError):
        rank, failure = min(error.worker_failures.items())
        cause = getattr(failure, "_base_exc", failure)
        return WorkersFailedError(f"worker {rank}: {type(cause).__name__}: {_first_line(cause)}")
    return WorkersFailedError(_first_line(error))


def start_timeout_s() -> float:
    """Return how long a worker group may take to start: the queue's own limit, so that the two agree."""
    return load_section(RunQueueSettings).start_timeout_s


def missing_resources() -> str:
    """Return what of the cluster is free, for a group that waits for more."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    lane = get_route(TASK).lane
    parts = [f"{free.get(name, 0.0):g} of {total[name]:g} {name}" for name in ("CPU", "GPU", lane) if name in total]
    return "free are " + ", ".join(parts)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
