"""The seed's second test, with real parts: tasks go to their lanes."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from local_ray import LocalRay, local_ray

from cluster import migrate, names
from cluster.run_queue_actor import get_or_create_run_queue
from cluster.run_queue_client import RunQueueClient
from cluster.runs import LaneStatus, RunRequest, RunState
from cluster.settings import Settings
from cluster.task import task

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[LocalRay]:
    env = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/floor.db",
        "STORAGE_URL": f"file://{tmp_path}/storage",
        "WATCHFLOOR_RUN_QUEUE_LISTENER": "none",
    }
    migrate.upgrade(env["DATABASE_URL"])
    with local_ray(env=env) as started:
        os.environ["RAY_API_SERVER_ADDRESS"] = started.dashboard_url
        os.environ["WATCHFLOOR_RUN_QUEUE_LISTENER"] = "none"
        ray.init(address=started.address, namespace=names.NAMESPACE, log_to_driver=False)
        yield started
        ray.shutdown()
        del os.environ["RAY_API_SERVER_ADDRESS"], os.environ["WATCHFLOOR_RUN_QUEUE_LISTENER"]


def eventually(check: Callable[[], bool], within_s: float = 30.0) -> bool:
    give_up_at = time.monotonic() + within_s
    while time.monotonic() < give_up_at:
        if check():
            return True
        time.sleep(0.1)
    return check()


def lane(queue: RunQueueClient, name: str) -> LaneStatus:
    return next(status for status in queue.lanes() if status.name == name)


def test_training_and_ai_work_go_to_their_lanes(head: LocalRay, tmp_path: Path) -> None:
    """``train_model`` holds ``ml_training``, an AI task holds a token of ``ai_processing``, side by side."""

    @task(lane="ai_processing")
    def active_learning(folder: str) -> str:
        import pathlib
        import time

        (pathlib.Path(folder) / "began").touch()
        while not (pathlib.Path(folder) / "end").exists():
            time.sleep(0.05)
        return "done"

    queue = get_or_create_run_queue(Settings(database_url=f"sqlite:///{tmp_path}/floor.db"))
    run = queue.submit(
        RunRequest(task="train_model", arguments={"model_type": "anomaly_detector", "dataset_id": "telemetry"})
    )
    working = active_learning.submit(str(tmp_path))

    assert run.lane == "ml_training"
    assert eventually(lambda: lane(queue, "ml_training").holders == (run.id,))
    assert eventually((tmp_path / "began").exists)
    assert eventually(lambda: lane(queue, "ai_processing").tokens_used == 1.0)
    assert lane(queue, "ml_training").concurrency == 1

    (tmp_path / "end").touch()
    assert working.result(60) == "done"
    # Its own program ran in the lane and found no telemetry in this empty floor: it says so and frees the lane.
    assert eventually(lambda: queue.get(run.id).state.is_terminal, 60)
    ended = queue.get(run.id)
    assert (ended.state, lane(queue, "ml_training").holders) == (RunState.FAILED, ()), ended.reason
    assert "telemetry" in ended.reason
