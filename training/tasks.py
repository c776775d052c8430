"""The training tasks under the names that the replaced system gave them.

``train_model.submit(...)`` puts a run into ``ml_training``; ``evaluate_model``,
``active_learning_loop`` and ``dataset_labeling`` run in ``ai_processing``. Free of torch, so that any
process may import it and ask.
Invariant: what is asked for here, on the page, over HTTP or by the command line becomes
the same kind of run.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from cluster import metrics
from cluster.errors import ServiceUnavailableError, TaskCancelledError
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunState
from cluster.settings import Settings, load_section
from cluster.store import open_engine, read_transaction
from cluster.task import TaskHandle, task
from ingest.alerts.model import iso
from ingest.baseline import NAME, VERSION
from ingest.detection_settings import DetectorSettings
from ingest.live_models import LiveModel
from ingest.scorer import load_scorer
from realtime.messages import MessageType
from realtime.process_broadcaster import get_broadcaster
from training.data.catalogue import kept_contents
from training.datasets import DatasetShelf
from training.errors import ModelVersionNotFoundError, NotEnoughDataError, WorkersFailedError
from training.evaluation.report import summary
from training.evaluation.report_files import write_report
from training.labelling.active_learning import STRATEGY, choose
from training.labelling.label_client import LabelQueueClient
from training.labelling.label_snapshot import read_audits
from training.labelling.labels import LabellingStrategy
from training.registry.promotion import champion
from training.registry.references import find_version
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs.order import EVALUATION, FALSE_PER_DAY, EvaluationOrder, LabellingOrder, TrainingOrder
from training.runs.retention import RetentionSettings, prune_datasets
from training.settings import TrainSettings

logger = logging.getLogger(__name__)

POLL_S = 0.5
SAY_EVERY_S = 1.0


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
            dataset_id: see ``docs/datasets.md``.
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
def evaluate_model(
    model_id: str,
    dataset_id: int | str = "telemetry",
    user_id: int | str = "",
    false_alarms_per_day: float = FALSE_PER_DAY,
    run_id: str = "",
) -> dict[str, Any]:
    """Judge a registered version on a data set, keep the report beside the version, and tell the user.

    Args:
        model_id: ``anomaly_detector@<version>``, an alias such as ``anomaly_detector:champion``, or the model type
            alone for its newest version.
        dataset_id: see ``docs/datasets.md``; a source is frozen, split as the version's training was.
        user_id: who hears of the progress and the result.
        false_alarms_per_day: per device; what people bear, for the figures at a price.
        run_id: the run that this is the work of; its row hears of the progress, too.

    Returns:
        ``model_id``, ``dataset_id``, ``dataset_digest`` and ``dataset_version``; ``report_path`` on the storage and,
        by scorer, ``report``: its figures (see ``docs/evaluation.md``); of a forecaster also ``accuracy`` with its
        ``accuracy_kind``, and all ``metrics``.

    Raises:
        ModelVersionNotFoundError, ModelFileError, ScorerError: there is no such version, or it cannot judge.
        UnknownDatasetError, NotEnoughDataError: there is nothing to judge it on.
    """
    from training.runs import judge  # torch, in the task's own worker only

    told = _Progress("evaluate_model", user_id, run_id)
    settings = Settings.load()
    storage = Storage(settings.storage_url)
    engine = open_engine(settings.database_url)
    try:
        manifest = find_version(ModelRegistry(storage), engine, model_id)
        told.say(5.0, f"reading {dataset_id}")
        shelf = DatasetShelf(storage, engine, str(user_id))
        dataset = shelf.open(str(dataset_id), judge.settings_of(manifest), time.time())
        prune_datasets(storage, load_section(RetentionSettings), kept_contents(engine) | {dataset.digest})
        report = judge.report_on(
            storage, engine, manifest, dataset, false_alarms_per_day,
            lambda percent, text: told.say(10.0 + 0.8 * percent, text, seldom=True),
        )  # fmt: skip
    finally:
        engine.dispose()  # the worker is warm: it outlives this task
    told.say(90.0, f"forecasting with {manifest.model_id}")
    try:
        forecasts = judge.judge_forecasts(storage, manifest, dataset)
    except (ModelVersionNotFoundError, NotEnoughDataError):
        forecasts = {}  # no forecaster, or a data set that is long enough for its alerts only
    made = {"created_at": iso(time.time()), "created_by": str(user_id), "forecasts": forecasts}
    path = write_report(storage, manifest.model_type, manifest.version, report | made)
    result = {
        "model_id": manifest.model_id,
        "dataset_id": dataset.name,
        "dataset_digest": dataset.digest,
        "dataset_version": dataset.id,
        "report_path": path,
        "report": summary(report),
    } | forecasts
    told.end(result)
    return result


@task(lane="ai_processing", name="active_learning_loop")
def active_learning_loop(
    dataset_id: int | str = "telemetry", threshold: float = 0.85, k: int = 20, user_id: int | str = ""
) -> dict[str, Any]:
    """Choose the windows of a data set that a person should judge next, ask for labels, and tell the user.

    Args:
        dataset_id: see ``docs/datasets.md``.
        threshold: windows are chosen whose verdict is no surer than this, see ``active_learning.confidence``.
        k: windows chosen at most.
        user_id: who hears of the progress and the result.

    Returns:
        ``dataset_id`` and ``dataset_digest``, the ``model_id`` that judged, the ``strategy``, how many of the
        questions are new in the label queue (``asked``), and ``windows``, least sure first: tenant, device, metric,
        from, to, score and threshold of each.

    Raises:
        UnknownDatasetError, NotEnoughDataError: there is nothing to choose from.
        ValueError: ``k`` or ``threshold`` is out of range.
        ScorerError: the live model cannot be loaded.
    """
    broadcaster = get_broadcaster()
    settings = Settings.load()
    broadcaster.broadcast_task_progress(user_id or None, "active_learning_loop", 10.0, f"reading {dataset_id}")
    with _shelf(user_id) as shelf:
        dataset = shelf.read(str(dataset_id), TrainSettings(), time.time())
    live = _champion(settings.database_url)
    model_id = f"{NAME}@{VERSION}" if live is None else f"{live.scorer}@{live.version}"
    broadcaster.broadcast_task_progress(user_id or None, "active_learning_loop", 50.0, f"judging with {model_id}")
    chosen = choose(dataset, load_scorer(live) if live else None, load_section(DetectorSettings), k, threshold)
    metrics.active_learning_samples_identified.labels(STRATEGY).inc(len(chosen))
    asked = LabelQueueClient().ask([candidate.to_question(model_id, STRATEGY) for candidate in chosen]) if chosen else 0
    result = {
        "dataset_id": dataset.name,
        "dataset_digest": dataset.digest,
        "model_id": model_id,
        "strategy": STRATEGY,
        "asked": asked,
        "windows": [candidate.to_json() for candidate in chosen],
    }
    broadcaster.broadcast_task_progress(user_id or None, "active_learning_loop", 100.0, f"{len(chosen)} windows")
    if user_id:
        broadcaster.broadcast_to_user(
            user_id, MessageType.TASK_COMPLETE, {"task_name": "active_learning_loop", "result": result}
        )
    return result


@task(lane="ai_processing", name="dataset_labeling")
def dataset_labeling(
    dataset_id: int | str = "telemetry",
    strategy: str = "manual",
    k: int = 20,
    precision: float = 0.99,
    user_id: int | str = "",
    run_id: str = "",
) -> dict[str, Any]:
    """Have the windows of a data set labelled by people, by people with the model's word, or by the model.

    Args:
        dataset_id: see ``docs/datasets.md``.
        strategy: ``manual``, ``assisted`` or ``auto``, see ``docs/active-learning.md``.
        k: questions at most, some of them drawn at random.
        precision: share of its own labels that ``auto`` must have proved to be right.
        user_id: who hears of the progress and the result.
        run_id: the run that this is the work of; its row hears of the progress, too.

    Returns:
        ``dataset_id`` and ``dataset_digest``, ``strategy``, the ``model_id`` of the classifier (None while the labels
        are of fewer than two classes), how many questions are new in the queue (``asked``) and how many of those
        put are audits, how many windows the model ``labelled`` itself, its ``audit_accuracy`` with an interval, what
        choosing the labels saved (``savings``), and the ``calibration``.

    Raises:
        UnknownDatasetError, NotEnoughDataError: there is nothing to label.
        ValueError: ``strategy``, ``k`` or ``precision`` is out of range.
        ServiceUnavailableError: the label queue did not answer.
    """
    from training.labelling import classifier_version, dataset_labelling  # torch, in the task's own worker only
    from training.labelling.auto_labels import AutoSettings

    how = LabellingStrategy(strategy)
    told = _Progress("dataset_labeling", user_id, run_id)
    told.say(10.0, f"reading {dataset_id}")
    with _shelf(user_id) as shelf:
        dataset = shelf.read(str(dataset_id), TrainSettings(), time.time())
        with read_transaction(shelf.engine) as connection:
            audits = read_audits(connection)
        told.say(40.0, "training the classifier")
        found = dataset_labelling.plan_labelling(dataset, audits, how, k, AutoSettings(precision=precision))
        model_id = classifier_version.register(shelf.storage, found, dataset, str(user_id), time.time())
    queue = LabelQueueClient()
    asked = queue.ask(found.questions(how, model_id))
    labelled = queue.keep_own(classifier_version.own_labels(found, model_id, time.time())) if model_id else 0
    metrics.dataset_samples_labeled.labels("auto").inc(labelled)
    result = {
        "dataset_id": dataset.name,
        "dataset_digest": dataset.digest,
        "strategy": how.value,
        "model_id": model_id,
        "num_labels": found.num_labels,
        "asked": asked,
        "audits_asked": len(found.audits),
        "labelled": labelled,
        "audit_accuracy": [round(share, 4) for share in found.audit_accuracy],
        "savings": asdict(found.savings) | {"saved": found.savings.saved},
        "calibration": asdict(found.calibration),
    }
    told.end(result, f"{asked} asked, {labelled} labelled")
    return result


def submit_for(run: Run) -> TaskHandle[dict[str, Any]]:
    """Submit the task that a run other than a training asks for; it tells the run's row how far it is.

    Raises:
        TypeError, ValueError: the row asks for what cannot be.
    """
    if run.task == EVALUATION:
        judged = EvaluationOrder.of(run)
        return evaluate_model.submit(
            judged.model_id, judged.dataset_id, run.user_id, judged.false_alarms_per_day, run.id
        )
    order = LabellingOrder.of(run)
    return dataset_labeling.submit(order.dataset_id, order.strategy, order.k, order.precision, run.user_id, run.id)


class _Progress:
    """What a task tells its user, at most once a second where it asks for that."""

    def __init__(self, name: str, user_id: int | str, run_id: str = "") -> None:
        self._broadcaster = get_broadcaster()
        self._name = name
        self._user_id = user_id or None
        self._run_id = run_id or None
        self._queue = RunQueueClient.connect() if run_id else None
        self._said_s = -math.inf

    def say(self, percent: float, text: str, *, seldom: bool = False) -> None:
        now_s = time.monotonic()
        if seldom and now_s - self._said_s < SAY_EVERY_S:
            return
        self._said_s = now_s
        self._broadcaster.broadcast_task_progress(self._user_id, self._name, percent, text, run_id=self._run_id)
        if self._queue is not None and self._run_id is not None:
            try:
                self._queue.progress(self._run_id, percent, text)
            except ServiceUnavailableError as error:
                logger.warning("run %s: %s", self._run_id, error)  # the queue restarts; the work goes on

    def end(self, result: dict[str, Any], text: str = "done") -> None:
        self.say(100.0, text)
        if self._user_id:
            told = {"task_name": self._name, "result": result}
            self._broadcaster.broadcast_to_user(self._user_id, MessageType.TASK_COMPLETE, told)


@contextmanager
def _shelf(user_id: int | str) -> Iterator[DatasetShelf]:
    settings = Settings.load()
    engine = open_engine(settings.database_url)
    try:
        yield DatasetShelf(Storage(settings.storage_url), engine, str(user_id))
    finally:
        engine.dispose()  # the worker is warm: it outlives this task


def _champion(database_url: str) -> LiveModel | None:
    engine = open_engine(database_url)
    try:
        return champion(engine)
    finally:
        engine.dispose()  # the worker is warm: it outlives this task
