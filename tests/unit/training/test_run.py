"""Orders, the terminal, the shadow check and errors: what stands around a training."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest

from cluster.lanes import get_lane, get_route
from cluster.run_life import new_run
from cluster.runs import Run, RunOrigin, RunState
from training import errors
from training.errors import HyperparameterError, TrainingError, UnknownModelTypeError
from training.runs.driver import as_reserved
from training.runs.order import TrainingOrder
from training.runs.terminal import LineDisplay, describe
from training.settings import TrainSettings, anomaly_8gpu_h200
from training.shadow import PACKAGES, find_shadow


def _run(order: TrainingOrder) -> Run:
    route = get_route("train_model")
    return new_run("01RUN", "01RUN", RunOrigin.API, order.to_request(), route, get_lane(route.lane), 0.0)


def test_an_order_survives_the_queue() -> None:
    """Page, HTTP and command line write a row; the driver reads the same order from it."""
    order = TrainingOrder(
        dataset_id="recorded:nyc_taxi", hyperparameters={"lr": "0.01"}, preset="anomaly_small_cpu", user_id="ada"
    )

    assert TrainingOrder.of(_run(order)) == order
    assert order.settings().learning_rate == 0.01


def test_a_row_with_the_bare_minimum_is_an_order_for_the_live_telemetry() -> None:
    run = _run(TrainingOrder(dataset_id=""))

    assert TrainingOrder.of(run).dataset_id == "telemetry"
    assert TrainingOrder.of(run).settings() == TrainSettings()


def test_gpus_are_asked_of_the_queue_for_the_whole_group() -> None:
    request = TrainingOrder(dataset_id="telemetry", preset="anomaly_8gpu_h200").to_request()

    assert request.resources == {"CPU": 8.0, "GPU": 8.0}
    assert anomaly_8gpu_h200().num_workers == 8


@pytest.mark.parametrize(
    ("wanted", "resources", "taken"),
    [
        pytest.param("auto", {"CPU": 1.0}, "cpu", id="auto-without-gpus"),
        pytest.param("auto", {"CPU": 1.0, "GPU": 1.0}, "gpu", id="auto-with-gpus"),
        pytest.param("cpu", {"CPU": 1.0}, "cpu", id="cpu"),
        pytest.param("gpu", {"CPU": 1.0, "GPU": 1.0}, "gpu", id="gpu"),
    ],
)
def test_a_run_takes_what_was_reserved_for_it(wanted: str, resources: dict[str, float], taken: str) -> None:
    """A cluster that grew GPUs while the run waited does not change what it may take."""
    order = TrainingOrder(dataset_id="telemetry", hyperparameters={"accelerator": wanted})
    run = dataclasses.replace(_run(order), resources=resources)

    assert as_reserved(order.settings(), run).accelerator == taken


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"model_type": "oracle"}, UnknownModelTypeError, id="model-type"),
        pytest.param({"preset": "fast"}, HyperparameterError, id="preset"),
        pytest.param({"hyperparameters": {"lr": "fast"}}, HyperparameterError, id="hyperparameter"),
    ],
)
def test_an_order_that_cannot_be_carried_out_does_not_get_into_the_queue(
    changes: dict[str, Any], error: type[TrainingError]
) -> None:
    with pytest.raises(error):
        TrainingOrder(dataset_id="telemetry", **changes).to_request()


def test_a_line_is_printed_per_change_and_the_end_has_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    run = dataclasses.replace(_run(TrainingOrder(dataset_id="telemetry")), state=RunState.RUNNING)
    display = LineDisplay()
    for changed in (
        dataclasses.replace(run, progress=50.0, message="epoch 4/8"),
        dataclasses.replace(run, progress=50.0, message="epoch 4/8"),
        dataclasses.replace(run, progress=50.0, state=RunState.FAILED, reason="worker 0: out of memory"),
    ):
        display.show(changed)

    assert capsys.readouterr().out.splitlines() == [
        "[##########..........]  50.0 %  epoch 4/8",
        "[##########..........]  50.0 %  failed: worker 0: out of memory",
    ]


def test_a_queued_run_says_what_it_waits_for() -> None:
    assert describe(_run(TrainingOrder(dataset_id="telemetry"))) == "queued, waits to be looked at"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_folder_of_the_user_that_hides_a_package_is_found(name: str, tmp_path: Path) -> None:
    """Whether or not it has an ``__init__.py``: both are imported before ours."""
    home, user = tmp_path / "site", tmp_path / "user"
    for package in PACKAGES:
        (home / package).mkdir(parents=True)
        (home / package / "__init__.py").touch()
    (user / name).mkdir(parents=True)
    (user / name / "__init__.py").touch()

    assert find_shadow(home, [str(user), str(home)]) == (name, user / name)
    assert find_shadow(home, [str(home), str(user)]) is None
    (user / name / "__init__.py").unlink()
    assert find_shadow(home, [str(user)]) == (name, user / name)


def _error_types() -> list[type[TrainingError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TrainingError)]
    return [each for each in found if each is not TrainingError]


@pytest.mark.parametrize("error_type", _error_types())
def test_every_error_survives_the_way_between_processes(error_type: type[TrainingError]) -> None:
    """Fields and text are the same after a pickle."""
    parameters = list(error_type.__init__.__annotations__.items())
    samples = {str: "x", int: 1, float: 2.5, tuple[str, ...]: ("a", "b")}
    error = error_type(*(samples[kind] for name, kind in parameters if name != "return"))
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.args, str(copy)) == (error_type, error.args, str(error))
    assert error_type.__doc__
