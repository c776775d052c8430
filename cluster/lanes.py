"""The lanes in which work runs, and the lane and the program of every task that is a run.

One table, read by the run queue, by ``@task``, by ``ray start --resources`` and by
``watchfloor lanes``. Nothing here enforces a limit. Invariant: a lane's name is also the
name of its custom resource in Ray, with ``concurrency`` tokens in the whole cluster.
"""

from dataclasses import dataclass, field

from cluster.errors import UnknownLaneError, UnknownTaskError

MINUTE_S = 60.0
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One class of work: how much of it runs at a time, and for how long."""

    name: str
    """Also the name of the custom resource in Ray."""
    priority: int
    """Larger goes first; it matters only where lanes share a resource."""
    concurrency: int
    """How many run at a time."""
    soft_limit_s: float
    """When a run is told to stop at its next safe point."""
    hard_limit_s: float
    """When a run is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRoute:
    """Where a named task runs, and how."""

    task: str
    lane: str
    entrypoint: str | None
    """Shell command of the Ray Job, without the run id; None: a ``@task`` function only, and no run of the queue."""
    resources: dict[str, float] = field(default_factory=dict)
    """What its whole worker group takes besides the lane's token."""


LANES: dict[str, Lane] = {
    lane.name: lane
    for lane in (
        Lane(name="external", priority=4, concurrency=4, soft_limit_s=MINUTE_S, hard_limit_s=2 * MINUTE_S),
        Lane(name="general", priority=5, concurrency=8, soft_limit_s=5 * MINUTE_S, hard_limit_s=10 * MINUTE_S),
        Lane(name="ai_processing", priority=1, concurrency=4, soft_limit_s=HOUR_S, hard_limit_s=2 * HOUR_S),
        Lane(name="ml_training", priority=0, concurrency=1, soft_limit_s=3 * HOUR_S, hard_limit_s=4 * HOUR_S),
    )
}

ROUTES: dict[str, TaskRoute] = {
    route.task: route
    for route in (
        TaskRoute(
            task="train_model", lane="ml_training", entrypoint="python -m training train", resources={"CPU": 1.0}
        ),
        TaskRoute(task="evaluate_model", lane="ai_processing", entrypoint="python -m training drive"),
        TaskRoute(task="active_learning_loop", lane="ai_processing", entrypoint=None),
        TaskRoute(task="dataset_labeling", lane="ai_processing", entrypoint="python -m training drive"),
    )
}


def get_lane(name: str) -> Lane:
    """Return the lane called ``name``.

    Raises:
        UnknownLaneError: there is none.
    """
    try:
        return LANES[name]
    except KeyError:
        raise UnknownLaneError(name, tuple(LANES)) from None


def get_route(task: str) -> TaskRoute:
    """Return how the task called ``task`` is run.

    Raises:
        UnknownTaskError: no such task.
    """
    try:
        return ROUTES[task]
    except KeyError:
        raise UnknownTaskError(task, tuple(ROUTES)) from None


def ray_resources() -> dict[str, float]:
    """Return the custom resources that the cluster offers: ``{"ml_training": 1.0, ...}``."""
    return {lane.name: float(lane.concurrency) for lane in LANES.values()}
