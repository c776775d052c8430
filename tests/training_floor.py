"""The parts of a floor that a training touches, on a Ray of a test's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors

from cluster import migrate, names
from cluster.errors import RunNotFoundError
from cluster.metrics_actor import get_or_create_metrics
from cluster.metrics_client import MetricsClient
from cluster.run_queue_actor import get_or_create_run_queue
from cluster.run_queue_client import RunQueueClient
from cluster.runs import RunState
from cluster.settings import Settings
from realtime.hub_actor import get_or_create_hub
from realtime.hub_client import HubClient
from tests.local_ray import LocalRay, local_ray


@dataclass(frozen=True, slots=True)
class TrainingFloor:
    """Run queue, hub and metrics of a floor; this process is one of its drivers."""

    settings: Settings
    ray: LocalRay
    queue: RunQueueClient
    hub: HubClient
    metrics: MetricsClient

    def pids(self, actor_class: str) -> list[int]:
        """Return the processes of the living actors whose class is named so, or so in part."""
        actors = list_actors(address=self.ray.dashboard_url, filters=[("state", "=", "ALIVE")], detail=True)
        return [int(actor.pid) for actor in actors if actor_class in actor.class_name]


@contextmanager
def training_floor(folder: Path, num_cpus: int) -> Iterator[TrainingFloor]:
    """Start one in ``folder``, with CPUs as Ray counts them."""
    env = {
        "DATABASE_URL": f"sqlite:///{folder}/floor.db",
        "STORAGE_URL": f"file://{folder}/storage",
        "WATCHFLOOR_DATA_DIR": str(folder),
        # The limit is tested elsewhere; here a busy machine must not run into it.
        "WATCHFLOOR_RUN_QUEUE_START_TIMEOUT_S": "240",
    }
    migrate.upgrade(env["DATABASE_URL"])
    with local_ray(num_cpus=num_cpus, env=env) as head, pytest.MonkeyPatch.context() as patch:
        # This process starts the queue, which takes its settings from here.
        patch.setenv("WATCHFLOOR_RUN_QUEUE_START_TIMEOUT_S", env["WATCHFLOOR_RUN_QUEUE_START_TIMEOUT_S"])
        patch.setenv("RAY_API_SERVER_ADDRESS", head.dashboard_url)
        ray.init(address=head.address, namespace=names.NAMESPACE, log_to_driver=False)
        settings = Settings(database_url=env["DATABASE_URL"], storage_url=env["STORAGE_URL"], data_dir=str(folder))
        metrics = get_or_create_metrics(settings)
        hub = get_or_create_hub(settings)
        yield TrainingFloor(settings, head, get_or_create_run_queue(settings), hub, metrics)
        ray.shutdown()


def lane_is_free() -> bool:
    """Tell whether nobody holds the token of the trainings."""
    return bool(ray.available_resources().get("ml_training") == 1.0)


def in_state(queue: RunQueueClient, run_id: str, *states: RunState) -> Callable[[], bool]:
    """Return a check whether a run is in one of ``states``."""

    def check() -> bool:
        try:
            return queue.get(run_id).state in states
        except RunNotFoundError:
            return False  # not registered yet

    return check
