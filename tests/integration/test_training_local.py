"""``train_fn`` in Ray Train's local mode: its context turned into arguments, without a cluster."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import train
from ray.exceptions import ActorDiedError, RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from cluster.runs import RunState
from cluster.store import metadata, open_engine
from training.data.snapshots import read_dataset
from training.data.versions import freeze
from training.data.versions import load as load_version
from training.registry.promotion import champion
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs import train_fn
from training.runs.checkpoint import NUMBERS, TENSORS, TrainState, load_checkpoint, save_checkpoint
from training.runs.controller_loss import drop_torn_list
from training.runs.loop import Batch, Progress
from training.runs.recipe import Setup, set_up
from training.runs.train_fn import TrainTask, train_anomaly_detector
from training.runs.trainer import LaneTrainer, is_loss, scaling
from training.settings import TrainSettings

SETTINGS = TrainSettings(num_workers=0, epochs=3, max_windows=1000, min_steps=0, context=16, channels=4, num_layers=2)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainTask:
    url = f"sqlite:///{tmp_path}/floor.db"
    monkeypatch.setenv("DATABASE_URL", url)
    # Local mode trains in this process, and no process may take its niceness back.
    monkeypatch.setattr(train_fn, "NICE", 0)
    engine = open_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    storage = Storage(f"file://{tmp_path}/storage")
    dataset = read_dataset("recorded:rogue_agent_key_hold", storage.url, 1.0, 0.0)
    dataset = freeze(dataset, dataset.split_by(SETTINGS), {"kind": "recorded", "name": dataset.name}, storage)
    return TrainTask(
        run_id="",
        user_id="",
        task_name="train anomaly_detector",
        dataset_id=dataset.id,
        dataset_name=dataset.name,
        storage_url=storage.url,
        settings=SETTINGS,
        soft_deadline_s=None,
        promotes=True,
    )


def run(task: TrainTask) -> tuple[dict[str, Any], train.Checkpoint | None]:
    trainer: Any = TorchTrainer(
        train_anomaly_detector,
        train_loop_config=task.to_config(),
        scaling_config=train.ScalingConfig(num_workers=0),
        run_config=train.RunConfig(name="local"),
    )
    result = trainer.fit()
    return result.return_value, result.checkpoint


def test_a_training_ends_with_a_registered_champion(task: TrainTask, tmp_path: Path) -> None:
    outcome, _ = run(task)
    result = outcome["result"]

    assert outcome["state"] == RunState.SUCCEEDED
    manifest = ModelRegistry(Storage(task.storage_url)).manifest("anomaly_detector", result["version"])
    assert (manifest.dataset["id"], manifest.dataset["name"]) == (task.dataset_id, task.dataset_name)
    assert manifest.metrics == result["metrics"]
    assert TrainSettings(**manifest.settings) == SETTINGS
    live = champion(open_engine(f"sqlite:///{tmp_path}/floor.db"))
    assert live is not None
    assert live.version == result["version"]


def test_equal_orders_give_equal_weights(task: TrainTask) -> None:
    """Seed and data decide, nothing else; another seed gives another model."""
    versions = [run(replace(task, promotes=False))[0]["result"] for _ in range(2)]
    other = run(replace(task, promotes=False, settings=replace(SETTINGS, seed=1)))[0]["result"]

    assert versions[0]["metrics"] == versions[1]["metrics"]
    assert other["metrics"] != versions[0]["metrics"]


def test_at_its_soft_limit_a_training_stops_with_a_checkpoint_and_no_model(task: TrainTask) -> None:
    """The limit is already over: it makes one step, keeps it, and says so."""
    outcome, checkpoint = run(replace(task, soft_deadline_s=time.time() - 1))

    assert outcome["state"] == RunState.TIMED_OUT
    assert outcome["reason"] == "soft limit reached in epoch 1 of 3; checkpoint kept"
    assert ModelRegistry(Storage(task.storage_url)).versions("anomaly_detector") == []
    assert checkpoint is not None


def test_the_soft_limit_is_obeyed_within_two_steps(
    task: TrainTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the training is, and with a checkpoint of just that place."""
    begun_s: list[float] = []

    def watched(*args: Any) -> Setup:
        setup = set_up(*args)

        def batches(epoch: int) -> Iterator[Batch]:
            for batch in setup.batches(epoch):
                begun_s.append(time.time())
                yield batch

        return replace(setup, batches=batches)

    def kept(state: TrainState, folder: Path) -> None:
        save_checkpoint(state, folder)
        save_checkpoint(state, tmp_path / "kept")  # local mode hands out a folder that is gone by now

    monkeypatch.setattr(train_fn, "set_up", watched)
    monkeypatch.setattr(train_fn, "save_checkpoint", kept)
    deadline_s = time.time() + 3.0
    outcome, checkpoint = run(replace(task, settings=replace(SETTINGS, epochs=10_000), soft_deadline_s=deadline_s))

    assert outcome["state"] == RunState.TIMED_OUT
    assert sum(at >= deadline_s for at in begun_s) <= 2
    dataset = load_version(task.dataset_id, Storage(task.storage_url), task.dataset_name)
    setup = set_up(dataset, SETTINGS, torch.device("cpu"))
    load_checkpoint(setup.state, tmp_path / "kept")
    assert checkpoint is not None
    assert setup.state.progress.epoch * setup.steps + setup.state.progress.step == len(begun_s)


def test_a_data_set_that_is_gone_fails_the_run_with_the_reason(task: TrainTask) -> None:
    """No retry would bring it back."""
    outcome, _ = run(replace(task, dataset_id="0" * 64))

    assert outcome["state"] == RunState.FAILED
    assert "no readable manifest" in outcome["reason"]


@pytest.mark.parametrize(
    ("settings", "resources", "expected"),
    [
        pytest.param({}, {"CPU": 2.0}, (1, False, 1.0), id="cpu-only"),
        pytest.param({}, {"CPU": 2.0, "GPU": 1.0}, (1, True, 1.0), id="gpu-when-there-is-one"),
        pytest.param({"accelerator": "cpu"}, {"CPU": 2.0, "GPU": 1.0}, (1, False, 1.0), id="cpu-on-request"),
        pytest.param({"num_workers": 3}, {"CPU": 8.0, "GPU": 2.0}, (3, False, 0.3333), id="too-few-gpus"),
    ],
)
def test_workers_get_what_is_there_and_share_one_token(
    settings: dict[str, Any], resources: dict[str, float], expected: tuple[int, bool, float]
) -> None:
    found = scaling(TrainSettings(**settings), resources)
    assert found.resources_per_worker is not None

    assert (found.num_workers, found.use_gpu, found.resources_per_worker["ml_training"]) == expected
    assert found.num_workers * found.resources_per_worker["ml_training"] <= 1.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(ActorDiedError(), True, id="controller-killed"),
        pytest.param(ControllerError(WorkerGroupStartupFailedError("a worker died")), True, id="worker-killed"),
        pytest.param(ControllerError(RayActorError("01")), True, id="worker-killed-as-it-was-told-to-train"),
        pytest.param(ControllerError(WorkerGroupStartupTimeoutError(1)), False, id="no-room-for-workers"),
        pytest.param(ControllerError(RuntimeError("a bug")), False, id="controller-fails"),
        pytest.param(WorkerGroupError("", {0: RuntimeError("a bug")}), False, id="training-fails"),
    ],
)
def test_what_is_lost_is_replaced_and_what_fails_is_not(
    error: TrainingFailedError | ActorDiedError, expected: bool
) -> None:
    """Ray Train replaces workers that it lost itself; these are what reaches the driver."""
    assert is_loss(error) is expected


def test_what_the_trainer_changes_in_ray_is_still_there() -> None:
    """Both are Ray's own names: a Ray that renames them would quietly bring the slow start back."""
    for name in ("_create_default_callbacks", "_register_sigint_handler"):
        assert hasattr(TorchTrainer, name)
        assert name in vars(LaneTrainer)
    assert (NUMBERS, TENSORS) == ("state.json", "state.safetensors")


def test_without_a_list_of_checkpoints_the_newest_whole_one_of_the_run_is_taken(
    task: TrainTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that is killed may leave half of the list; only the run's own folder counts."""
    storage = Storage(task.storage_url)
    dataset = load_version(task.dataset_id, storage, task.dataset_name)
    state = set_up(dataset, SETTINGS, torch.device("cpu")).state
    folder = Path(storage.url.removeprefix("file://"), "runs")
    for name, epoch in (("a-run/checkpoint_1", 1), ("a-run/checkpoint_2", 2), ("b-run/checkpoint_3", 3)):
        state.progress = Progress(epoch=epoch)
        save_checkpoint(state, folder / name)
    listed = folder / "a-run" / "checkpoint_manager_snapshot.json"
    listed.write_text('{"ray_version": "2.60.0", "checkpoint_res')
    monkeypatch.setattr(train, "get_checkpoint", lambda: None)

    assert drop_torn_list(storage, "a-run")
    assert not listed.exists()
    train_fn._restore(state, "a-run", storage)
    assert state.progress.epoch == 2
    (folder / "a-run" / "checkpoint_2" / NUMBERS).unlink()
    train_fn._restore(state, "a-run", storage)
    assert state.progress.epoch == 1


def test_a_whole_list_of_checkpoints_stays(task: TrainTask) -> None:
    """And none is fine."""
    storage = Storage(task.storage_url)
    assert not drop_torn_list(storage, "a-run")
    storage.write("runs/a-run/checkpoint_manager_snapshot.json", b"{}")
    assert not drop_torn_list(storage, "a-run")
    assert storage.exists("runs/a-run/checkpoint_manager_snapshot.json")


def test_a_torn_checkpoint_gives_way_to_the_one_before_it(
    task: TrainTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never to a newer one, which Ray Train did not hear of."""
    dataset = load_version(task.dataset_id, Storage(task.storage_url), task.dataset_name)
    state = set_up(dataset, SETTINGS, torch.device("cpu")).state
    for number in (1, 2, 3, 4):
        state.progress = Progress(epoch=number)
        save_checkpoint(state, tmp_path / f"checkpoint_{number}")
    (tmp_path / "checkpoint_3" / NUMBERS).unlink()
    content = (tmp_path / "checkpoint_2" / TENSORS).read_bytes()
    (tmp_path / "checkpoint_2" / TENSORS).write_bytes(content[:-8])
    newest = train.Checkpoint.from_directory(str(tmp_path / "checkpoint_3"))
    monkeypatch.setattr(train, "get_checkpoint", lambda: newest)

    train_fn._restore(state, "a-run", Storage(task.storage_url))

    assert state.progress.epoch == 1
