"""One run from its row to its end, in the process that drives it.

The driver of a training waits for its lease, freezes the data set and hands over to Ray
Train; the worker of rank 0 does the rest and ends the run itself when the model is live.
The driver of any other run hands over to its task. What is left here is everything that
may go wrong around it. Invariants: a run that this driver
took on has ended when ``drive`` returns, whatever happened; and a waiting driver holds no
CPU of the cluster.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import ray

from cluster import metrics, names
from cluster.errors import ClusterError, RunStateError, ServiceUnavailableError
from cluster.metrics_client import start_metrics_pusher
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Lease, Run, RunState
from cluster.settings import Settings, load_section
from cluster.store import open_engine
from cluster.task import TaskHandle
from training.data.catalogue import kept_contents
from training.data.snapshots import Dataset, is_source, split_windows
from training.datasets import DatasetShelf
from training.registry.storage import Storage
from training.runs.order import TASK, TrainingOrder
from training.runs.retention import RetentionSettings, prune
from training.runs.terminal import Display, Watching
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

QUEUE_PATIENCE_S = 60.0
"""A waiting driver survives a restart of the run queue that takes no longer."""

T = TypeVar("T")

Submit = Callable[[Run], TaskHandle[dict[str, Any]]]
"""``tasks.submit_for``."""


def connect_ray() -> None:
    """Join the floor's Ray, as driver.

    Raises:
        ServiceUnavailableError: no address is known, or nothing answers there.
    """
    address = Settings.load().ray_address
    if not address:
        raise ServiceUnavailableError(
            "Ray", "(no address)", 'RAY_ADDRESS is not set; run eval "$(watchfloor env)" first'
        )
    try:
        ray.init(address=address, namespace=names.NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ServiceUnavailableError("Ray", address, reason) from error


def drive(queue: RunQueueClient, run: Run, display: Display, submit: Submit | None = None) -> Run:
    """Carry out ``run`` in this process, which must be the main thread of its job.

    Args:
        queue: that holds the run.
        run: a training, or the run of a task.
        display: shows how far it is.
        submit: submits the run's task; only a training does without.

    Returns:
        The run as it ended.
    """
    start_metrics_pusher("training-driver")
    with _stoppable():
        try:
            if run.task != TASK:
                assert submit is not None, "the program of the route drives it"
                return _hand_over(queue, run, display, submit)
            return _train(queue, run, display)
        except (KeyboardInterrupt, SystemExit):
            return queue.finish(run.id, RunState.CANCELLED, "its job was stopped")
        except RunStateError:
            return queue.get(run.id)  # it ended while it waited
        except Exception as error:
            # Whatever it was, somebody looks at a bar that would otherwise hang.
            if not isinstance(error, ClusterError):
                logger.exception("run %s failed", run.id)
            reason = _reason(error)
            return _patiently(lambda: queue.finish(run.id, RunState.FAILED, reason))
        finally:
            display.close()


def _train(queue: RunQueueClient, run: Run, display: Display) -> Run:
    # A second or two of imports, made while the queue decides.
    threading.Thread(target=_import_trainer, name="imports", daemon=True).start()
    order = TrainingOrder.of(run)
    settings = as_reserved(order.settings(), run)
    display.note(f"run {run.id}: {order.model_type} on {order.dataset_id}")
    lease = _patiently(lambda: queue.wait_for_lease(run.id, on_wait=lambda waiting: display.note(_waiting(waiting))))
    began_s = time.monotonic()
    storage = Storage(Settings.load().storage_url)
    dataset = _freeze(order, settings, storage, run.id)
    ignored = {"validation_fraction", "holdout_fraction", "device_fraction"} & order.hyperparameters.keys()
    if ignored and not is_source(order.dataset_id):
        display.note(f"{', '.join(sorted(ignored))}: without effect, the split of {dataset.name} is fixed")

    from training.runs import trainer  # torch and Ray Train: only a driver that has its lease waits for them
    from training.runs.train_fn import TrainTask

    task = TrainTask(
        run_id=run.id,
        user_id=order.user_id,
        task_name=f"train {order.model_type}",
        dataset_id=dataset.id,
        dataset_name=dataset.name,
        storage_url=storage.url,
        settings=settings,
        soft_deadline_s=lease.soft_deadline,
        promotes=True,
    )
    with Watching(queue, run.id, display):
        outcome = trainer.train(
            task,
            ray.cluster_resources(),  # type: ignore[no-untyped-call]
            told_end=lambda: _told_end(queue, run.id),
        )
    state = RunState(outcome["state"])
    ended = _patiently(lambda: queue.finish(run.id, state, outcome["reason"], outcome["result"]))
    if ended.state is RunState.SUCCEEDED:
        metrics.ml_model_trained.labels(order.model_type).inc()
        metrics.ml_training_duration.labels(order.model_type).observe(time.monotonic() - began_s)
    return ended


def _told_end(queue: RunQueueClient, run_id: str) -> dict[str, Any] | None:
    """Return the run's end as its row has it, in the shape of rank 0's answer; None while it goes on."""
    run = _patiently(lambda: queue.get(run_id))
    if not run.state.is_terminal:
        return None
    return {"state": run.state, "reason": run.reason, "result": run.result}


def _hand_over(queue: RunQueueClient, run: Run, display: Display, submit: Submit) -> Run:
    """Leave the work to the task, which holds the lane's token and tells how far it is."""
    display.note(f"run {run.id}: {run.task} on {run.dataset_id}")
    _patiently(lambda: queue.wait_for_lease(run.id, on_wait=lambda waiting: display.note(_waiting(waiting))))
    _patiently(lambda: queue.start(run.id))
    handle = submit(run)
    try:
        with Watching(queue, run.id, display):
            result = handle.result()
    except (KeyboardInterrupt, SystemExit):
        handle.cancel()
        raise
    return _patiently(lambda: queue.finish(run.id, RunState.SUCCEEDED, "", result))


def _freeze(order: TrainingOrder, settings: TrainSettings, storage: Storage, run_id: str) -> Dataset:
    """Return the version to train on, with room made for it."""
    engine = open_engine(Settings.load().database_url)
    try:
        shelf = DatasetShelf(storage, engine, order.user_id)
        found = shelf.read(order.dataset_id, settings, time.time())
        split_windows(found, settings)  # too little data is said now, not after ten seconds of starting workers
        dataset = shelf.freeze(found, settings, time.time())
        kept = kept_contents(engine) | {dataset.digest}
    finally:
        engine.dispose()
    prune(storage, load_section(RetentionSettings), keep_run=run_id, keep_datasets=kept)
    return dataset


def as_reserved(settings: TrainSettings, run: Run) -> TrainSettings:
    """Settle what ``auto`` left open: the run takes what the queue reserved for it, nothing else."""
    if settings.accelerator != "auto":
        return settings
    return replace(settings, accelerator="gpu" if run.resources.get("GPU") else "cpu")


def _patiently(call: Callable[[], T]) -> T:
    """Call again while the run queue restarts; its calls may be repeated.

    Raises:
        ServiceUnavailableError: it has been away for ``QUEUE_PATIENCE_S``.
    """
    away_since_s: float | None = None
    while True:
        asked_s = time.monotonic()
        try:
            return call()
        except ServiceUnavailableError as error:
            now_s = time.monotonic()
            if away_since_s is None or now_s - asked_s > QUEUE_PATIENCE_S:
                away_since_s = now_s  # the first failure, or it had answered for long in between
            if now_s - away_since_s >= QUEUE_PATIENCE_S:
                raise
            logger.warning("%s; asking again", error)
            time.sleep(1.0)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM (``ray job stop``) and SIGINT into KeyboardInterrupt in the main thread.

    Ray's blocking calls give way to KeyboardInterrupt and to nothing else that a handler
    may raise. A second signal changes nothing: the first one is being answered, and the
    job's own grace period ends in SIGKILL.
    """
    stopping = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        if not stopping.is_set():
            stopping.set()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _import_trainer() -> None:
    import training.runs.trainer  # noqa: F401


def _waiting(lease: Lease) -> str:
    return f"place {lease.place} in the lane, waits for {lease.waits_for or 'its turn'}"


def _reason(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return text if isinstance(error, ClusterError) else f"{type(error).__name__}: {text}"
