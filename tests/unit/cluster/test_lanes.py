"""The lane table is the seed's, and every task has a route."""

import pytest

from cluster.errors import UnknownLaneError, UnknownTaskError
from cluster.lanes import HOUR_S, LANES, ROUTES, get_lane, get_route, ray_resources


def test_training_runs_alone_for_three_to_four_hours() -> None:
    """``ml_training``: priority 0, one at a time, 3 h soft, 4 h hard."""
    lane = LANES["ml_training"]

    assert (lane.priority, lane.concurrency) == (0, 1)
    assert (lane.soft_limit_s, lane.hard_limit_s) == (3 * HOUR_S, 4 * HOUR_S)


def test_ai_processing_runs_four_at_priority_one() -> None:
    """``ai_processing``: priority 1, four at a time."""
    lane = LANES["ai_processing"]

    assert (lane.priority, lane.concurrency) == (1, 4)


@pytest.mark.parametrize(
    ("task", "lane"),
    [
        pytest.param("train_model", "ml_training", id="train"),
        pytest.param("evaluate_model", "ai_processing", id="evaluate-which-the-seed-forgot"),
        pytest.param("active_learning_loop", "ai_processing", id="active-learning"),
        pytest.param("dataset_labeling", "ai_processing", id="labelling"),
    ],
)
def test_seed_tasks_have_their_lane(task: str, lane: str) -> None:
    """The four names of the seed lead to its lanes."""
    assert get_route(task).lane == lane


def test_training_judging_and_labelling_are_jobs() -> None:
    """What people start and watch has a program; the others are functions."""
    programs = [route.task for route in ROUTES.values() if route.entrypoint]
    assert programs == ["train_model", "evaluate_model", "dataset_labeling"]


def test_limits_are_in_order() -> None:
    """The soft limit comes first in every lane."""
    assert all(0 < lane.soft_limit_s < lane.hard_limit_s for lane in LANES.values())


def test_the_cluster_offers_one_token_per_slot() -> None:
    """What ``ray start --resources`` gets is the table."""
    assert ray_resources() == {"external": 4.0, "general": 8.0, "ai_processing": 4.0, "ml_training": 1.0}


def test_unknown_names_say_what_there_is() -> None:
    """A misspelt name is answered with the right ones."""
    with pytest.raises(UnknownLaneError, match="ml_training"):
        get_lane("training")
    with pytest.raises(UnknownTaskError, match="train_model"):
        get_route("train")
