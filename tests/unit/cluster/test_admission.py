"""Who may begin, and what the others are told."""

import dataclasses
from collections.abc import Sequence

from cluster.admission import Capacity, admit
from cluster.lanes import LANES, get_route
from cluster.run_life import new_run
from cluster.runs import Run, RunOrigin, RunRequest, RunState


def queued(run_id: str, lane: str = "ml_training", at_s: float = 0.0, **resources: float) -> Run:
    request = RunRequest(task="train_model", lane=lane, resources=resources or {"CPU": 1.0})
    return new_run(run_id, run_id, RunOrigin.API, request, get_route("train_model"), LANES[lane], at_s)


def in_state(run: Run, state: RunState) -> Run:
    return dataclasses.replace(run, state=state)


def capacity(cpus: float = 2.0, free: float | None = None, **available: float) -> Capacity:
    total = {"CPU": cpus} | {lane.name: float(lane.concurrency) for lane in LANES.values()}
    return Capacity(total=total, available=total | {"CPU": cpus if free is None else free} | available)


def decide(
    live: Sequence[Run], has: Capacity | None, holders: dict[str, list[str]] | None = None
) -> dict[str, str | None]:
    held = holders or {}
    return {d.run_id: d.waits_for for d in admit(live, LANES, has, lambda name: held.get(name, []))}


def test_a_run_that_fits_begins() -> None:
    """A free slot and a free CPU are enough."""
    assert decide([queued("a")], capacity()) == {"a": None}


def test_a_lane_takes_one_run_and_names_who_holds_it() -> None:
    """The second one waits for the slot of the first."""
    live = [in_state(queued("a"), RunState.RUNNING), queued("b")]

    assert decide(live, capacity()) == {"b": "waits for a slot of ml_training, held by run a"}


def test_older_run_of_a_lane_goes_first() -> None:
    """First in, first out."""
    decisions = decide([queued("young", at_s=2), queued("old", at_s=1)], capacity())

    assert decisions["old"] is None
    assert decisions["young"] == "waits for a slot of ml_training, held by run old"


def test_larger_priority_goes_first_where_lanes_share_a_cpu() -> None:
    """``ai_processing`` (1) passes an older ``ml_training`` (0)."""
    decisions = decide([queued("train", at_s=1), queued("ai", "ai_processing", at_s=2)], capacity(cpus=1))

    assert decisions["ai"] is None
    assert decisions["train"] == "waits for 1 CPU held by others"


def test_a_run_says_which_actor_holds_what_it_needs() -> None:
    """Both CPUs are taken by actors: the text names them."""
    decisions = decide([queued("a")], capacity(free=0), {"CPU": ["detector-0 (1)", "labeller (1)"]})

    assert decisions == {"a": "waits for 1 CPU held by detector-0 (1) and labeller (1)"}


def test_nobody_passes_a_waiting_run_for_what_it_needs() -> None:
    """A small run does not starve a large one of the same lane."""
    live = [queued("large", "ai_processing", 1, CPU=2.0), queued("small", "ai_processing", 2, CPU=1.0)]

    decisions = decide(live, capacity(cpus=2, free=1), {"CPU": ["x"]})

    assert decisions == {
        "large": "waits for 1 CPU held by x",
        "small": "waits behind run large, which needs CPU too",
    }


def test_a_run_beside_a_waiting_one_takes_what_that_one_does_not_need() -> None:
    """Only the promised resources are kept."""
    has = Capacity(
        total={"CPU": 2.0, "GPU": 1.0, "ai_processing": 4.0}, available={"CPU": 2.0, "GPU": 0.0, "ai_processing": 4.0}
    )
    live = [queued("gpu", "ai_processing", 1, GPU=1.0), queued("cpu", "ai_processing", 2, CPU=1.0)]

    assert decide(live, has, {"GPU": ["y"]})["cpu"] is None


def test_a_run_that_never_fits_says_so_and_stops_nobody() -> None:
    """Its text has what the cluster has; the next run begins."""
    live = [queued("huge", "ai_processing", 1, CPU=64.0), queued("small", "ai_processing", 2)]

    decisions = decide(live, capacity(cpus=2))

    assert decisions == {"huge": "waits for 64 CPU, but the cluster has 2", "small": None}


def test_the_resources_of_a_starting_run_are_kept_for_it() -> None:
    """Between lease and start Ray still calls its CPU free."""
    live = [in_state(queued("starting", "ai_processing"), RunState.STARTING), queued("next", "ai_processing", 1)]

    assert decide(live, capacity(cpus=1), {"CPU": ["run starting"]})["next"] == "waits for 1 CPU held by run starting"


def test_tokens_held_by_functions_count() -> None:
    """A lane whose tokens ``@task`` functions hold admits no run."""
    decisions = decide([queued("a")], capacity(ml_training=0.0), {"ml_training": ["f (1)"]})

    assert decisions == {"a": "waits for 1 ml_training held by f (1)"}


def test_nobody_begins_while_ray_does_not_answer() -> None:
    """Unknown is not free."""
    assert decide([queued("a")], None) == {"a": "waits for Ray to say what is free"}


def test_many_holders_are_not_all_named() -> None:
    """The text stays readable."""
    decisions = decide([queued("a")], capacity(free=0), {"CPU": [f"w{i}" for i in range(7)]})

    assert decisions == {"a": "waits for 1 CPU held by w0, w1, w2, w3 and 3 more"}


def test_thirds_of_a_gpu_make_one() -> None:
    """Sums of fractions are compared with a tolerance."""
    third = 1 / 3
    has = Capacity(total={"GPU": 1.0, "ml_training": 1.0}, available={"GPU": third + third + third, "ml_training": 1.0})

    assert decide([queued("a", GPU=1.0)], has) == {"a": None}
