"""kill -9 in trainings at random points, worlds of one to four: not one bit differs, and no limit gives way."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.run_store import RunStore
from cluster.runs import Run, RunState
from cluster.store import open_engine
from tests.training_floor import TrainingFloor, lane_is_free, training_floor
from tests.waiting import eventually
from training.data.snapshots import Dataset, read_dataset
from training.data.versions import freeze
from training.registry.manifest import WEIGHTS
from training.registry.storage import Storage
from training.registry.versions import ModelRegistry
from training.runs.checkpoint import load_checkpoint
from training.runs.recipe import set_up
from training.settings import TrainSettings
from training.tasks import train_model

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(900)]

EPOCHS = {1: 500, 2: 120, 3: 80, 4: 60}
"""By world size: ten to thirty seconds of steps each, most of which several workers spend waiting for each other."""
WORKER, CONTROLLER = "TrainWorker", "TrainController"
QUEUE = "RunQueueActor"
DATASET = "recorded:nyc_taxi"
KILLS = 3
LATE_S = 60.0
"""How much later than its limit a run may end here: its workers start anew, on a busy machine."""
SEED = int(os.environ.get("WATCHFLOOR_TEST_SEED", random.randrange(10_000)))


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingFloor]:
    with training_floor(tmp_path_factory.mktemp("floor"), num_cpus=4) as started:
        yield started


@dataclass
class Training:
    """One run of a small training."""

    floor: TrainingFloor
    world: int
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order: dict[str, Any] = {
            "epochs": EPOCHS[self.world],
            "batch_size": 256 // self.world,
            "max_windows": 2000,
            "min_steps": 0,
            "checkpoint_interval_s": 0.2,
            "max_failures": 2 * KILLS,
            "num_workers": self.world,
            "seed": 7,
        } | self.changes
        self.handle = train_model.submit(DATASET, "anomaly_detector", self.order)
        self.progress = [0.0]

    def limit(self, soft_s: float, hard_s: float) -> None:
        """Give the run limits of its own; before its driver asks for its lease."""
        engine = open_engine(self.floor.settings.database_url)
        run, _ = RunStore(engine).change(
            self.handle.run_id, lambda run: dataclasses.replace(run, soft_limit_s=soft_s, hard_limit_s=hard_s)
        )
        engine.dispose()
        assert run.leased_at is None

    def run(self) -> Run:
        run = self.handle.get()
        self.progress.append(run.progress)
        return run

    def wait_until_it_trains(self) -> Run:
        """Wait until the workers that are there now have made steps."""
        assert eventually(lambda: self.run().message.startswith("epoch") or self.run().state.is_terminal, 240)
        return self.run()

    def wait_for_end(self) -> Run:
        """Wait until the run is over, and its processes with it."""
        assert eventually(lambda: self.run().state.is_terminal, 300), self.run()
        assert eventually(lambda: not self.floor.pids("Train"))
        assert eventually(lane_is_free)
        return self.run()

    def kill(self, actor_class: str, rng: random.Random) -> str | None:
        """Kill one of the processes; None when there is none at the moment."""
        found = self.floor.pids(actor_class)
        if not found:
            return None
        with suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
        return f"{actor_class} at {self.run().progress:.1f} %: {self.run().message}"

    def sha256(self) -> str:
        """Return what the weights of the run's model are."""
        result = self.handle.result(300)
        registry = ModelRegistry(Storage(self.floor.settings.storage_url))
        return registry.manifest("anomaly_detector", result["version"]).files[WEIGHTS].sha256


@pytest.fixture(scope="module")
def undisturbed(floor: TrainingFloor) -> dict[int, str]:
    """SHA-256 of the weights of the uninterrupted run, by world size."""
    return {}


def expected(floor: TrainingFloor, undisturbed: dict[int, str], world: int) -> str:
    if world not in undisturbed:
        began_s = time.monotonic()
        undisturbed[world] = Training(floor, world).sha256()
        print(f"world {world}: {time.monotonic() - began_s:.1f} s uninterrupted")
    return undisturbed[world]


@pytest.mark.parametrize("victim", [WORKER, CONTROLLER], ids=["worker", "controller"])
@pytest.mark.parametrize("world", EPOCHS)
def test_final_weights_are_bitwise_those_of_the_uninterrupted_run(
    floor: TrainingFloor, undisturbed: dict[int, str], world: int, victim: str
) -> None:
    """Three kills each, at random points from the start of its workers to its end."""
    whole = expected(floor, undisturbed, world)
    rng = random.Random(f"{SEED} {world} {victim}")
    began_s = time.monotonic()
    training = Training(floor, world)
    assert eventually(lambda: training.run().state is RunState.RUNNING, 120)
    killed: list[str] = []
    while len(killed) < KILLS and not training.run().state.is_terminal:
        time.sleep(rng.uniform(0.0, 9.0))
        if (told := training.kill(victim, rng)) is not None:
            killed.append(told)
    sha256 = training.sha256()
    print(f"world {world}: {time.monotonic() - began_s:.1f} s with {killed}")

    assert sha256 == whole, (SEED, killed)
    assert training.progress == sorted(training.progress), (SEED, killed)
    assert eventually(lane_is_free)


def test_a_soft_limit_counts_from_the_first_lease_whatever_is_killed(floor: TrainingFloor) -> None:
    """Two workers, of which one is lost, then their controller, then the queue: the deadline stays where it was."""
    rng = random.Random(SEED)
    training = Training(floor, 2, {"epochs": 10_000})
    training.limit(soft_s=60.0, hard_s=600.0)
    leased_at = training.wait_until_it_trains().leased_at
    for victim in (WORKER, CONTROLLER, QUEUE):
        time.sleep(rng.uniform(0.0, 6.0))
        print(training.kill(victim, rng))
        training.wait_until_it_trains()
    run = training.wait_for_end()

    assert run.state is RunState.TIMED_OUT, (SEED, run)
    assert run.reason.startswith("soft limit reached in epoch"), (SEED, run)
    assert run.leased_at == leased_at
    assert run.leased_at is not None
    assert run.ended_at is not None
    assert 60.0 <= run.ended_at - run.leased_at < 60.0 + LATE_S
    setup = set_up(dataset(floor), TrainSettings(**training.order), torch.device("cpu"), 0, 2)
    load_checkpoint(setup.state, newest_checkpoint(floor, run.id))
    assert setup.state.progress.epoch == run.result["epoch"] > 0


def test_a_hard_limit_ends_a_run_although_its_queue_is_killed(floor: TrainingFloor) -> None:
    """The row holds it: a run that heeds no soft limit is ended by whichever queue is there."""
    rng = random.Random(SEED)
    training = Training(floor, 1, {"epochs": 10_000})
    training.limit(soft_s=1000.0, hard_s=40.0)
    training.wait_until_it_trains()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.0, 6.0))
        training.kill(QUEUE, rng)
    training.kill(CONTROLLER, rng)
    run = training.wait_for_end()

    assert (run.state, run.reason) == (RunState.TIMED_OUT, "passed its hard limit of 40 s"), SEED
    assert run.leased_at is not None
    assert run.ended_at is not None
    assert 40.0 <= run.ended_at - run.leased_at < 40.0 + LATE_S


def dataset(floor: TrainingFloor) -> Dataset:
    """Return what the trainings here were trained on."""
    storage = Storage(floor.settings.storage_url)
    read = read_dataset(DATASET, storage.url, 1.0, 0.0)
    return freeze(read, read.split_by(TrainSettings()), {"kind": "recorded", "name": read.name}, storage)


def newest_checkpoint(floor: TrainingFloor, run_id: str) -> Path:
    """Return the folder of a run's newest checkpoint."""
    folder = Path(floor.settings.storage_url.removeprefix("file://"), "runs", run_id)
    return max(path for path in folder.glob("checkpoint_*") if path.is_dir())
