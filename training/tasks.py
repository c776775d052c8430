"""The training tasks under the names that the replaced system gave them.

``train_model.submit(...)`` puts a run into ``ml_training``; ``evaluate_model.submit(...)``
runs in ``ai_processing``. Free of torch, so that any process may import it and ask.
Invariant: what is asked for here, on the page, over HTTP or by the command line becomes
the same kind of run.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import TaskCancelledError
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunState
from cluster.settings import Settings
from cluster.task import task
from realtime.broadcaster import get_broadcaster
from realtime.messages import MessageType
from training.datasets import read_dataset
from training.errors import WorkersFailedError
from training.order import TrainingOrder
from training.settings import TrainSettings
from training.storage import Storage

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A submitted run."""

    run_id: str
    queue: RunQueueClient

    def get(self) -> Run:
        """Return the run as it is now."""
        return self.queue.get(self.run_id)

    def cancel(self, user_id: str = "") -> Run:
        """End the run."""
        return self.queue.cancel(self.run_id, user_id)

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the run's end and return its result: ``model_id``, ``metrics`` and more.

        Raises:
            TimeoutError: it goes on after ``timeout_s``; it is not stopped.
            TaskCancelledError: it was cancelled.
            WorkersFailedError: it failed or passed a limit; the text says why.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        while not (run := self.get()).state.is_terminal:
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise TimeoutError(f"run {self.run_id} has not ended yet")
            time.sleep(POLL_S)
        if run.state is RunState.CANCELLED:
            raise TaskCancelledError(self.run_id)
        if run.state is not RunState.SUCCEEDED:
            raise WorkersFailedError(f"run {self.run_id} {run.state.value}: {run.reason}")
        return run.result


class TrainModel:
    """The task ``train_model``; its lane admits one run at a time."""

    def submit(
        self,
        dataset_id: int | str,
        model_type: str = "anomaly_detector",
        hyperparameters: Mapping[str, Any] | None = None,
        user_id: int | str = "",
        *,
        request_id: str | None = None,
    ) -> RunHandle:
        """Put a training into the queue and return at once.

        Args:
            dataset_id: see ``datasets.read_dataset``.
            model_type: what to train.
            hyperparameters: fields of ``TrainSettings`` or their short names.
            user_id: who hears of the progress and the result.
            request_id: makes a repeated call return the first run.

        Raises:
            UnknownModelTypeError, HyperparameterError: it cannot be carried out; the text says why.
            ServiceUnavailableError: the run queue did not answer.
        """
        order = TrainingOrder(
            dataset_id=str(dataset_id),
            model_type=model_type,
            hyperparameters=hyperparameters or {},
            user_id=str(user_id),
        )
        queue = RunQueueClient.connect()
        return RunHandle(queue.submit(order.to_request(request_id)).id, queue)


train_model = TrainModel()


@task(lane="ai_processing", name="evaluate_model")
def evaluate_model(model_id: str, dataset_id: int | str = "telemetry", user_id: int | str = "") -> dict[str, Any]:
    """Judge a registered version on a data set and tell the user.

    Args:
        model_id: ``anomaly_detector@<version>``, or the model type alone for its newest version.
        dataset_id: see ``datasets.read_dataset``.
        user_id: who hears of the progress and the result.

    Returns:
        ``model_id``, ``dataset_digest``, ``accuracy`` with its ``accuracy_kind``, and all ``metrics``.
    """
    from training.judge import judge_version  # torch, in the task's own worker only

    broadcaster = get_broadcaster()
    storage = Storage(Settings.load().storage_url)
    broadcaster.broadcast_task_progress(user_id or None, "evaluate_model", 10.0, f"reading {dataset_id}")
    dataset = read_dataset(str(dataset_id), storage.url, TrainSettings().history_s, time.time())
    broadcaster.broadcast_task_progress(user_id or None, "evaluate_model", 50.0, f"judging {model_id}")
    result = judge_version(storage, model_id, dataset)
    broadcaster.broadcast_task_progress(user_id or None, "evaluate_model", 100.0, "done")
    if user_id:
        broadcaster.broadcast_to_user(
            user_id, MessageType.TASK_COMPLETE, {"task_name": "evaluate_model", "result": result}
        )
    return result
