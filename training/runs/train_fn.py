"""What runs in each Train worker: Ray's context turned into arguments of the loop.

Everything that knows Ray Train's worker API is here; the loop knows none of it. Every
rank runs the same steps and reports the same number of times, because ``report`` is a
barrier; rank 0 alone evaluates, registers and speaks. Invariant: a restarted worker group
continues from the last checkpoint on the very same readings.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow.fs import FileSelector
from ray import train
from ray.train.torch import get_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cluster.actors import configure_process
from cluster.errors import ClusterError
from cluster.run_queue_client import RunQueueClient
from cluster.runs import RunState
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from realtime.process_broadcaster import get_broadcaster
from training.data.snapshots import Dataset
from training.data.versions import load as load_version
from training.errors import SoftLimitReachedError, TornCheckpointError
from training.evaluation.forecasts import evaluate, mean_loss
from training.models.forecaster import ResidualForecaster
from training.registry.gates import PromotionSettings
from training.registry.manifest import Manifest
from training.registry.storage import Storage
from training.runs import bar, completion
from training.runs.bar import TrainingBar
from training.runs.checkpoint import TrainState, load_checkpoint, save_checkpoint
from training.runs.loop import Progress, fit
from training.runs.recipe import Setup, copy_weights, last_forecast, set_up
from training.runs.reporter import LiveReporter, Reporter, SilentReporter
from training.runs.retention import RUNS
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint_"
"""What the names of Ray Train's folders of checkpoints begin with; the time follows."""
NICE = 10
"""Added to the niceness of a CPU worker: alerts go first."""
FLUSH_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """What a driver hands to its workers; plain values, so that it crosses as a dictionary."""

    run_id: str
    """The empty string outside the run queue; then nothing is broadcast."""
    user_id: str
    task_name: str
    """Names the bar."""
    dataset_id: str
    """Of the frozen version, see ``data.versions``."""
    dataset_name: str
    storage_url: str
    settings: TrainSettings
    soft_deadline_s: float | None
    """When to stop with a checkpoint, seconds since the Unix epoch."""
    promotes: bool
    """Whether the model becomes champion."""

    def to_config(self) -> dict[str, Any]:
        """Return the task as Ray Train's ``train_loop_config``."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TrainTask":
        """Return what ``to_config`` gave."""
        return cls(**(config | {"settings": TrainSettings(**config["settings"])}))


def train_anomaly_detector(config: dict[str, Any]) -> dict[str, Any]:
    """Train one anomaly detector; Ray Train calls this in every worker.

    Returns:
        Rank 0: ``state``, ``reason`` and ``result`` of the run. Other ranks: an empty dictionary.
    """
    task = TrainTask.from_config(config)
    context = train.get_context()
    is_first = context.get_world_rank() == 0
    # cuBLAS reads it when it starts; without it equal products may differ in their last bits.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = get_device()
    _behave(device)
    queue, reporter = _outlets(task, is_first)
    try:
        outcome = _run(task, context.get_world_rank(), context.get_world_size(), device, reporter)
    except ClusterError as error:
        # These are the same on every rank and at every attempt: the run ends, nothing is retried.
        logger.exception("run %s failed", task.run_id)
        outcome = {"state": RunState.FAILED, "reason": str(error), "result": {}}
    if not is_first:
        return {}
    reporter.close(FLUSH_S)
    if queue is not None:
        try:
            queue.finish(task.run_id, RunState(outcome["state"]), outcome["reason"], outcome["result"])
        except ClusterError as error:
            # The driver says the same once Ray Train has cleaned up.
            logger.warning("run %s: the queue did not take its end: %s", task.run_id, error)
    return outcome


def _run(task: TrainTask, rank: int, world_size: int, device: torch.device, reporter: Reporter) -> dict[str, Any]:
    storage = Storage(task.storage_url)
    reporter.progress(bar.LOADING, "loading the data", is_milestone=True)
    dataset = load_version(task.dataset_id, storage, task.dataset_name)
    reporter.progress(bar.SOLVING, "solving the autoregression", is_milestone=True)
    setup = set_up(dataset, task.settings, device, rank, world_size)
    _restore(setup.state, task.run_id, storage)
    reporter.progress(bar.FITTING, f"training {setup.epochs} epochs", is_milestone=True)
    _fit(task, setup, rank, world_size, device, reporter)
    if setup.state.progress.epoch < setup.epochs and not is_enough(setup.state, task.settings.patience):
        stopped = SoftLimitReachedError(task.run_id, setup.state.progress.epoch, setup.epochs)
        return {"state": RunState.TIMED_OUT, "reason": str(stopped), "result": {"epoch": stopped.epoch}}
    if rank != 0:
        return {}
    setup.model.load_state_dict(setup.state.best)
    return _complete(task, setup, dataset, reporter, storage)


def _restore(state: TrainState, run_id: str, storage: Storage) -> None:
    """Go on from the newest checkpoint that is whole; every rank reads the same files and so takes the same one.

    Raises:
        CheckpointError: the newest whole one is of another training.
    """
    newest = train.get_checkpoint()
    for checkpoint in _with_older(newest) if newest is not None else _unlisted(run_id, storage):
        try:
            with checkpoint.as_directory() as folder:
                load_checkpoint(state, Path(folder))
        except TornCheckpointError as error:
            logger.warning("run %s: %s; trying the one before it", run_id, error)
        else:
            logger.info("run %s goes on in epoch %d after step %d", run_id, state.progress.epoch, state.progress.step)
            return


def _unlisted(run_id: str, storage: Storage) -> Iterator[train.Checkpoint]:
    """Yield what lies in the run's folder, newest first: a controller that was killed may have lost the list of it."""
    if not run_id:
        return
    folder = f"{RUNS}/{run_id}"
    for name in reversed(storage.folders(folder)):
        if name.startswith(CHECKPOINT):
            yield train.Checkpoint(storage.uri(f"{folder}/{name}"))


def _with_older(newest: train.Checkpoint) -> Iterator[train.Checkpoint]:
    """Yield ``newest`` and what lies before it in its run's folder; Ray names them by time."""
    yield newest
    if newest.filesystem is None:
        return
    parent, _, name = newest.path.rstrip("/").rpartition("/")
    try:
        found = newest.filesystem.get_file_info(FileSelector(parent))
    except OSError as error:
        logger.warning("%s cannot be listed: %s", parent, error)
        return
    for older in sorted((one.base_name for one in found), reverse=True):
        if older.startswith(CHECKPOINT) and older < name and "snapshot" not in older:
            yield train.Checkpoint(f"{parent}/{older}", newest.filesystem)


def _fit(task: TrainTask, setup: Setup, rank: int, world_size: int, device: torch.device, reporter: Reporter) -> None:
    """Train to the end or to the soft limit; either way the last step has a checkpoint."""
    state = setup.state
    progress_bar = TrainingBar(reporter, setup.epochs, setup.steps, world_size, state)
    saver = _Saver(state, task.settings.checkpoint_interval_s, setup.epochs, rank)
    between = _BetweenSteps(task.soft_deadline_s, saver.is_due, world_size, device)

    def after_epoch(progress: Progress) -> None:
        state.progress = progress
        loss = mean_loss(setup.model, *setup.parts.validation)
        if loss < state.best_loss:
            state.best, state.best_loss, state.best_epoch = copy_weights(setup.model), loss, progress.epoch
        saver.after_epoch(loss)
        progress_bar.after_epoch(progress, loss)

    def inside_epoch(progress: Progress) -> None:
        state.progress = progress
        saver.save(None)

    module: nn.Module = setup.model
    if world_size > 1:
        # Without find_unused_parameters DDP regroups its buckets after the first step, and a
        # restarted training of three or more workers would sum gradients in another order.
        module = DistributedDataParallel(setup.model, find_unused_parameters=True)
    state.progress = fit(
        module,
        state.optimizer,
        setup.batches,
        epochs=setup.epochs,
        report=after_epoch,
        start=state.progress,
        scheduler=state.scheduler,
        clip_norm=task.settings.clip_norm,
        should_stop=between.should_stop,
        is_enough=lambda: _decided_by_first(is_enough(state, task.settings.patience)),
        should_save=between.should_save,
        save=inside_epoch,
        tick=progress_bar.tick,
    )
    if state.progress.epoch < setup.epochs:
        saver.save(None)


def is_enough(state: TrainState, patience: int) -> bool:
    """Return whether ``patience`` epochs, 0 for without end, have brought nothing better."""
    return 0 < patience <= state.progress.epoch - state.best_epoch


def _complete(task: TrainTask, setup: Setup, dataset: Dataset, reporter: Reporter, storage: Storage) -> dict[str, Any]:
    """Judge, register and offer what was trained, and tell everybody."""
    reporter.progress(bar.FITTED, "judging the held-out part", is_milestone=True)
    evaluation = evaluate(setup.model, setup.baseline, *setup.parts.holdout)
    figures = evaluation.to_json()
    held_out = {"holdout_loss": figures["loss"], "skill_vs_ar": figures["skill_vs_ar"]}
    reporter.progress(bar.EVALUATED, f"held-out loss {evaluation.loss:.4f}", held_out, is_milestone=True)
    manifest, uri = completion.register(
        setup.model,
        evaluation,
        storage=storage,
        dataset=dataset,
        settings=task.settings,
        run_id=task.run_id,
        user_id=task.user_id,
    )
    reporter.progress(bar.REGISTERED, f"registered {manifest.version}", held_out, is_milestone=True)
    offered = _offer(manifest, uri) if task.promotes else None
    if task.run_id and offered is not None:
        completion.announce(get_broadcaster(), manifest, _sample(setup.model, dataset, task.settings), offered)
    message = f"{manifest.model_id} {offered.words if offered is not None else 'is registered'}"
    reporter.progress(bar.DONE, message, held_out | {"model_id": manifest.model_id}, is_milestone=True)
    return {
        "state": RunState.SUCCEEDED,
        "reason": "",
        "result": {
            "model_id": manifest.model_id,
            "version": manifest.version,
            "uri": uri,
            "dataset_digest": dataset.digest,
            "dataset_version": dataset.id,
            "accuracy": figures["accuracy"],
            "holdout_loss": figures["loss"],
            "metrics": figures,
            "best_epoch": setup.state.best_epoch,
            "epochs": setup.state.progress.epoch,
            "fit_s": round(setup.state.progress.elapsed_s, 3),
            "offered": str(offered.state) if offered is not None else "registered",
            "champion_revision": offered.revision if offered is not None else 0,
        },
    }


def _offer(manifest: Manifest, uri: str) -> completion.Offer:
    engine = open_engine(Settings.load().database_url)
    try:
        return completion.offer(engine, manifest, uri, load_section(PromotionSettings))
    finally:
        engine.dispose()


def _sample(model: ResidualForecaster, dataset: Dataset, settings: TrainSettings) -> completion.Sample:
    series, predicted, actual = last_forecast(model, dataset, settings)
    return completion.Sample(series=series, forecast=predicted, actual=actual)


def _outlets(task: TrainTask, is_first: bool) -> tuple[RunQueueClient | None, Reporter]:
    if not (task.run_id and is_first):
        return None, SilentReporter()
    configure_process("training")
    queue = RunQueueClient.connect()
    try:
        percent = queue.get(task.run_id).progress
    except ClusterError as error:
        logger.warning("run %s: how far it was is not known: %s", task.run_id, error)
        percent = 0.0
    return queue, LiveReporter(task.run_id, task.user_id, task.task_name, queue, percent=percent)


def _behave(device: torch.device) -> None:
    """Compute the same bits each time; on CPUs, take one thread and a back seat.

    The demo trains on the cores that carry the alerts.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling what is about to be overwritten only guards against programs that read it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    if device.type != "cpu":
        return
    torch.set_num_threads(1)
    if os.nice(0) < NICE:
        os.nice(NICE - os.nice(0))


class _BetweenSteps:
    """Answers the loop's two questions after a step, equally on every rank, with one collective for both.

    A rank that left alone, or reported alone, would wait for the others for ever.
    """

    def __init__(
        self, deadline_s: float | None, is_due: Callable[[], bool], world_size: int, device: torch.device
    ) -> None:
        self._deadline_s = deadline_s
        self._is_due = is_due
        self._world_size = world_size
        self._device = device
        self._saving = False

    def should_stop(self) -> bool:
        stopping = self._deadline_s is not None and time.time() >= self._deadline_s
        saving = self._is_due()
        if self._world_size > 1:
            flags = torch.tensor([float(stopping), float(saving)], device=self._device)
            torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
            stopping, saving = (bool(flag) for flag in flags.tolist())
        self._saving = saving
        return stopping

    def should_save(self) -> bool:
        return self._saving


class _Saver:
    """Decides when a checkpoint is made, and reports it to Ray Train with the epoch's figures."""

    def __init__(self, state: TrainState, interval_s: float, epochs: int, rank: int) -> None:
        self._state = state
        self._interval_s = interval_s
        self._epochs = epochs
        self._rank = rank
        self._next_at_s = time.monotonic() + interval_s

    def is_due(self) -> bool:
        """Return whether this rank's clock says so; the ranks still have to agree."""
        return time.monotonic() >= self._next_at_s

    def after_epoch(self, validation_loss: float) -> None:
        if _decided_by_first(self.is_due()) or self._state.progress.epoch == self._epochs:
            self.save(validation_loss)

    def save(self, validation_loss: float | None) -> None:
        self._next_at_s = time.monotonic() + self._interval_s
        progress = self._state.progress
        metrics = {"epoch": progress.epoch, "loss": progress.loss, "val_loss": validation_loss}
        if self._rank != 0:
            train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(self._state, Path(folder))
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))


def _decided_by_first(answer: bool) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return answer
    if torch.distributed.get_world_size() == 1:
        return answer
    flag = torch.tensor([float(answer)], device=get_device())
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())
