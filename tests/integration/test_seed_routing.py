"""The seed's second test, with real parts: tasks go to their lanes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from local_ray import LocalRay, local_ray

from cluster import migrate, names
from cluster.metrics_actor import get_or_create_metrics
from cluster.run_queue_actor import get_or_create_run_queue
from cluster.run_queue_client import RunQueueClient
from cluster.runs import LaneStatus, RunState
from cluster.settings import Settings
from cluster.task import task
from tests.waiting import eventually
from training.labelling.label_actor import get_or_create_label_queue
from training.tasks import active_learning_loop, train_model

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


def lane(queue: RunQueueClient, name: str) -> LaneStatus:
    return next(status for status in queue.lanes() if status.name == name)


def test_training_and_ai_work_go_to_their_lanes(head: LocalRay, tmp_path: Path) -> None:
    """``train_model`` holds ``ml_training``, AI tasks hold tokens of ``ai_processing``, side by side."""

    @task(lane="ai_processing")
    def judge_for_long(folder: str) -> str:
        import pathlib

        (pathlib.Path(folder) / "began").touch()
        while not (pathlib.Path(folder) / "end").exists():
            time.sleep(0.05)
        return "done"

    settings = Settings(database_url=f"sqlite:///{tmp_path}/floor.db")
    metrics = get_or_create_metrics(settings)
    queue = get_or_create_run_queue(settings)
    get_or_create_label_queue(settings)
    run = train_model.submit("telemetry").get()
    working = judge_for_long.submit(str(tmp_path))
    choosing = active_learning_loop.submit("recorded:nyc_taxi", k=3)

    assert run.lane == "ml_training"
    assert eventually(lambda: lane(queue, "ml_training").holders == (run.id,))
    assert eventually((tmp_path / "began").exists)
    assert choosing.result(60)["dataset_id"] == "recorded:nyc_taxi"
    assert eventually(lambda: lane(queue, "ai_processing").tokens_used == 1.0)
    assert lane(queue, "ml_training").concurrency == 1

    (tmp_path / "end").touch()
    assert working.result(60) == "done"
    # Its own program ran in the lane and found no telemetry in this empty floor: it says so and frees the lane.
    assert eventually(lambda: queue.get(run.id).state.is_terminal, 60)
    ended = queue.get(run.id)
    assert (ended.state, lane(queue, "ml_training").holders) == (RunState.FAILED, ()), ended.reason
    assert "telemetry" in ended.reason
    for counted in (
        b'watchfloor_task_duration_seconds_count{lane="ai_processing",outcome="succeeded"} 2.0',
        b'watchfloor_runs_ended_total{lane="ml_training",state="failed"} 1.0',
    ):
        assert eventually(lambda text=counted: text in metrics.render_sync()), counted  # type: ignore[misc]
