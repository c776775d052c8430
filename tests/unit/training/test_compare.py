"""Two runs side by side."""

from dataclasses import replace

from cluster.lanes import get_lane, get_route
from cluster.run_life import new_run
from cluster.runs import Run, RunOrigin, RunState
from training.runs.compare import Line, compare
from training.runs.order import TrainingOrder


def a_run(run_id: str, lr: str, loss: float) -> Run:
    route = get_route("train_model")
    order = TrainingOrder(dataset_id="recorded:nyc_taxi", hyperparameters={"lr": lr}, user_id="ada")
    run = new_run(run_id, run_id, RunOrigin.API, order.to_request(), route, get_lane(route.lane), 0.0)
    result = {"model_id": f"anomaly_detector@{run_id}", "epochs": 4, "metrics": {"loss": loss}}
    return replace(run, state=RunState.SUCCEEDED, started_at=10.0, ended_at=12.5, result=result)


def test_what_differs_and_all_figures() -> None:
    lines = compare(a_run("a", "0.1", 0.5), a_run("b", "0.2", 0.4))

    assert lines[:2] == [
        Line("run", "model_id", "anomaly_detector@a", "anomaly_detector@b"),
        Line("given", "hyperparameters.lr", "0.1", "0.2"),
    ]
    assert [(line.name, line.first, line.second) for line in lines[2:]] == [("epochs", 4, 4), ("loss", 0.5, 0.4)]
    difference = lines[-1].difference
    assert difference is not None
    assert round(difference, 9) == -0.1


def test_a_run_that_failed_has_fewer_figures() -> None:
    failed = replace(a_run("b", "0.1", 0.4), state=RunState.FAILED, reason="out of memory", result={})
    lines = {line.name: line for line in compare(a_run("a", "0.1", 0.5), failed)}

    assert (lines["state"].second, lines["reason"].second) == ("failed", "out of memory")
    assert lines["loss"].second is None
    assert lines["loss"].difference is None
    assert "hyperparameters.lr" not in lines
