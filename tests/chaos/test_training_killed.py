"""kill -9 of a training's worker and of Ray Train's controller, at random points, in worlds of one to four."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from local_ray import LocalRay, local_ray
from ray.util.state import list_actors

from cluster import migrate, names
from training.data.snapshots import read_dataset
from training.data.versions import freeze
from training.registry.storage import Storage
from training.runs import trainer
from training.runs.train_fn import TrainTask
from training.settings import TrainSettings

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray Data warns of its own defaults
]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    url = f"sqlite:///{tmp_path_factory.mktemp('floor')}/floor.db"
    migrate.upgrade(url)
    with local_ray(num_cpus=4, env={"DATABASE_URL": url}) as head:
        ray.init(address=head.address, namespace=names.NAMESPACE, log_to_driver=False)
        yield head
        ray.shutdown()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_a_training_that_loses_a_process_ends_with_the_weights_of_an_undisturbed_one(
    head: LocalRay, world: int, tmp_path: Path
) -> None:
    """Its version is the digest of its weights, so equal versions are equal bits."""
    expected = _train(_task(tmp_path / "whole", world))
    for victim in ("TrainController", "TrainWorker"):
        task = _task(tmp_path / victim, world)
        ended: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda task=task, ended=ended: ended.append(_train(task)))
        thread.start()
        killed_at_s = _kill(head, victim, tmp_path / victim)
        thread.join(200)

        assert ended, f"no end after the kill of {victim}"
        assert _weights(ended[0]) == _weights(expected), (victim, killed_at_s)
        assert ended[0]["result"]["metrics"] == expected["result"]["metrics"]


def _train(task: TrainTask) -> dict[str, Any]:
    return trainer.train(task, ray.cluster_resources())  # type: ignore[no-untyped-call]


def _weights(outcome: dict[str, Any]) -> str:
    return str(outcome["result"]["version"]).partition("-")[2]


def _task(folder: Path, world: int) -> TrainTask:
    settings = TrainSettings(
        num_workers=world,
        accelerator="cpu",
        epochs=12,
        min_steps=0,
        max_windows=2000,
        batch_size=64,
        checkpoint_interval_s=0.2,
        seed=7,
    )
    storage = Storage(f"file://{folder}")
    dataset = read_dataset("recorded:rogue_agent_key_hold", storage.url, 1.0, 0.0)
    dataset = freeze(dataset, dataset.split_by(settings), {"kind": "recorded", "name": dataset.name}, storage)
    return TrainTask(
        run_id="",
        user_id="",
        task_name="train anomaly_detector",
        dataset_id=dataset.id,
        dataset_name=dataset.name,
        storage_url=storage.url,
        settings=settings,
        soft_deadline_s=None,
        promotes=False,
    )


def _kill(head: LocalRay, victim: str, folder: Path) -> float:
    """Kill one process of ``victim`` some time after the first checkpoint; return how long after."""
    give_up_at = time.monotonic() + 90
    while not list(folder.glob("runs/local/checkpoint_*/state.json")):
        assert time.monotonic() < give_up_at, "no checkpoint"
        time.sleep(0.02)
    actors = list_actors(address=head.dashboard_url, filters=[("state", "=", "ALIVE")], detail=True)
    pids = [int(actor.pid) for actor in actors if victim in actor.class_name]
    after_s = random.uniform(0.0, 1.0)
    time.sleep(after_s)
    newest = max(folder.glob("runs/local/checkpoint_*/state.json"))
    place = json.loads(newest.read_text(encoding="utf-8"))["progress"]
    os.kill(random.choice(pids), signal.SIGKILL)
    print(f"killed {victim} of {len(pids)} after epoch {place['epoch']}, step {place['step']}")
    return after_s
