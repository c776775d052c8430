"""Runs and lanes over HTTP: starting, once; cancelling; whose they are."""

from typing import Any

import pytest

from tests.fakes_api import ApiFloor
from training.runs.order import TrainingOrder

RUNS = "/api/v1/runs"


def training(**changes: Any) -> dict[str, Any]:
    arguments = {"model_type": "anomaly_detector", "dataset_id": "recorded:nyc_taxi"} | changes
    return {"task": "train_model", "arguments": arguments}


def labelling(**changes: Any) -> dict[str, Any]:
    return {"task": "dataset_labeling", "arguments": {"dataset_id": "recorded:nyc_taxi"} | changes}


async def test_a_training_is_queued_once_per_request(api: ApiFloor) -> None:
    """Asking twice gives the same run; another training under the same id is refused."""
    body = training(hyperparameters={"epochs": 3}) | {"request_id": "request-1"}
    async with api.caller("engineer") as caller:
        first = await caller.post(RUNS, json=body)
        again = await caller.post(RUNS, json=body)
        other = await caller.post(RUNS, json=training() | {"request_id": "request-1"})
        runs = (await caller.get(RUNS)).json()["items"]

    assert first.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 409
    assert [(run["state"], run["user_id"], run["lane"]) for run in runs] == [("queued", "nora", "ml_training")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"task": "rm_rf"}, 422, id="unknown-task"),
        pytest.param({"task": "active_learning_loop"}, 422, id="task-without-a-program"),
        pytest.param({"task": "evaluate_model"}, 422, id="judging-nothing"),
        pytest.param({"task": "evaluate_model", "arguments": {"model_id": "a/../b"}}, 422, id="path-as-version"),
        pytest.param(
            {"task": "evaluate_model", "arguments": {"model_id": "anomaly_detector", "false_alarms_per_day": 0}},
            422,
            id="no-price",
        ),
        pytest.param(labelling(strategy="oracle"), 422, id="unknown-strategy"),
        pytest.param(labelling(strategy=["auto"]), 422, id="strategy-no-name"),
        pytest.param(labelling(k=0), 422, id="no-question"),
        pytest.param(labelling(k=2.5), 422, id="half-a-question"),
        pytest.param(labelling(k=True), 422, id="flag-as-number"),
        pytest.param(labelling(precision=1.0), 422, id="beyond-proof"),
        pytest.param(labelling(precision="0.9"), 422, id="text-as-number"),
        pytest.param(labelling(dataset_id="/etc/passwd"), 422, id="labelling-a-path"),
        pytest.param(labelling(run_id="1"), 422, id="run-smuggled"),
        pytest.param({"task": "dataset_labeling"}, 201, id="labelling-as-it-comes"),
        pytest.param(training(model_type="clairvoyant"), 422, id="unknown-model"),
        pytest.param(training(dataset_id="recorded:../../etc/passwd"), 422, id="path-as-data-set"),
        pytest.param(training(dataset_id="/etc/passwd"), 422, id="absolute-path"),
        pytest.param(training(dataset_id="http://169.254.169.254/x"), 422, id="address"),
        pytest.param(training(dataset_id=7), 422, id="number-as-data-set"),
        pytest.param(training(hyperparameters={"epochs": -1}), 422, id="out-of-range"),
        pytest.param(training(hyperparameters={"epoch": 1}), 422, id="unknown-hyperparameter"),
        pytest.param(training(hyperparameters=[1]), 422, id="hyperparameters-no-object"),
        pytest.param(training(preset="fastest"), 422, id="unknown-preset"),
        pytest.param(training(preset={}), 422, id="preset-no-name"),
        pytest.param(training(runtime_env={"env_vars": {"LD_PRELOAD": "x"}}), 422, id="environment-smuggled"),
        pytest.param(training(dataset_id="telemetry"), 201, id="all-telemetry"),
        pytest.param(training(dataset_id="telemetry:demo/nyc_taxi"), 201, id="one-device"),
    ],
)
async def test_trainings_are_checked_at_the_door(api: ApiFloor, body: dict[str, Any], status: int) -> None:
    """What could never run is refused with a reason, before anything is queued."""
    async with api.caller("engineer") as caller:
        answer = await caller.post(RUNS, json=body)
        runs = (await caller.get(RUNS)).json()["items"]

    assert answer.status_code == status, answer.text
    assert len(runs) == (1 if status == 201 else 0)


async def test_a_training_reserves_what_its_worker_group_takes(api: ApiFloor) -> None:
    """As an order of the command line does."""
    values = {"num_workers": 2}
    async with api.caller("engineer") as caller:
        run_id = (await caller.post(RUNS, json=training(hyperparameters=values))).json()["id"]
        api.run_queue.core.step()
        run = (await caller.get(f"{RUNS}/{run_id}")).json()

    ordered = TrainingOrder(dataset_id="recorded:nyc_taxi", hyperparameters=values).to_request()
    assert (run["resources"], run["arguments"]) == (ordered.resources, ordered.arguments)
    assert (run["resources"], run["state"]) == ({"CPU": 2.0}, "starting")


async def test_a_training_that_never_fits_says_what_it_waits_for(api: ApiFloor) -> None:
    """It stays queued until the cluster has grown."""
    async with api.caller("engineer") as caller:
        run_id = (await caller.post(RUNS, json=training(hyperparameters={"num_workers": 3}))).json()["id"]
        api.run_queue.core.step()
        run = (await caller.get(f"{RUNS}/{run_id}")).json()

    assert run["resources"] == {"CPU": 3.0}
    assert (run["state"], run["waits_for"]) == ("queued", "waits for 3 CPU, but the cluster has 2")


async def test_a_training_takes_gpus_where_there_are_enough(api: ApiFloor) -> None:
    """What ``auto`` takes is reserved; with too few GPUs for the whole group it takes none."""
    api.run_queue.jobs.total["GPU"] = 2.0
    async with api.caller("engineer") as caller:
        reserved = [
            (await caller.post(RUNS, json=training(hyperparameters=values))).json()["resources"]
            for values in ({"num_workers": 2}, {"num_workers": 3}, {"accelerator": "cpu"})
        ]

    assert reserved == [{"CPU": 2.0, "GPU": 2.0}, {"CPU": 3.0}, {"CPU": 1.0}]


async def test_a_refused_task_or_hyperparameter_is_told_why(api: ApiFloor) -> None:
    """The text names what was wrong and what there is."""
    async with api.caller("engineer") as caller:
        texts = [
            (await caller.post(RUNS, json=body)).json()["error"]["message"]
            for body in ({"task": "active_learning_loop"}, training(hyperparameters={"epochs": 0}))
        ]

    assert texts == [
        "no task 'active_learning_loop' to run; there are train_model, evaluate_model, dataset_labeling",
        "hyperparameter epochs='0': epochs must be at least 1, got 0",
    ]


async def test_a_tenants_engineer_trains_on_own_telemetry_only(api: ApiFloor) -> None:
    """All telemetry is the floor's, another tenant's is the other tenant's."""
    async with api.caller("engineer", tenant="demo") as caller:
        statuses = [
            (await caller.post(RUNS, json=training(dataset_id=name))).status_code
            for name in ("telemetry", "telemetry:others/pump", "telemetry:demo/pump", "recorded:nyc_taxi")
        ]

    assert statuses == [403, 403, 201, 201]


async def test_a_labelling_is_a_run_of_its_lane_with_all_that_was_not_said(api: ApiFloor) -> None:
    """And a tenant's engineer labels what is the tenant's."""
    async with api.caller("engineer") as caller:
        run = (await caller.post(RUNS, json=labelling(strategy="auto"))).json()
    async with api.caller("engineer", tenant="demo") as caller:
        foreign = (await caller.post(RUNS, json=labelling(dataset_id="telemetry"))).status_code
    async with api.caller("operator") as caller:
        by_an_operator = (await caller.post(RUNS, json=labelling())).status_code

    assert run["lane"] == "ai_processing"
    assert run["arguments"] == {
        "dataset_id": "recorded:nyc_taxi", "strategy": "auto", "k": 20, "precision": 0.99,
    }  # fmt: skip
    assert (foreign, by_an_operator) == (403, 403)


async def test_a_queued_run_is_cancelled_by_its_id(api: ApiFloor) -> None:
    """The answer says how the run ended and who ended it; doing it again changes nothing."""
    async with api.caller("engineer") as caller:
        run_id = (await caller.post(RUNS, json=training())).json()["id"]
        ended = (await caller.post(f"{RUNS}/{run_id}/cancel", json={})).json()
        again = (await caller.post(f"{RUNS}/{run_id}/cancel", json={})).json()

    assert (ended["state"], ended["reason"]) == ("cancelled", "cancelled by nora")
    assert again["version"] == ended["version"]


async def test_runs_of_other_tenants_are_not_found(api: ApiFloor) -> None:
    """Neither read nor cancelled nor listed."""
    async with api.caller("engineer") as floor_wide:
        run_id = (await floor_wide.post(RUNS, json=training())).json()["id"]
    async with api.caller("engineer", tenant="demo") as caller:
        statuses = [
            (await caller.get(f"{RUNS}/{run_id}")).status_code,
            (await caller.post(f"{RUNS}/{run_id}/cancel", json={})).status_code,
        ]
        runs = (await caller.get(RUNS)).json()["items"]

    assert statuses == [404, 404]
    assert runs == []


async def test_lanes_show_limits_and_whose_runs_hold_them(api: ApiFloor) -> None:
    """The page and `watchfloor lanes` read the same table; tenants are not told of others' runs."""
    async with api.caller("engineer") as caller:
        run_id = (await caller.post(RUNS, json=training())).json()["id"]
        waiting_id = (await caller.post(RUNS, json=training())).json()["id"]
        api.run_queue.core.step()
        lanes = {lane["name"]: lane for lane in (await caller.get("/api/v1/lanes")).json()["lanes"]}
    async with api.caller("viewer", tenant="demo") as caller:
        foreign = {lane["name"]: lane for lane in (await caller.get("/api/v1/lanes")).json()["lanes"]}

    assert lanes["ml_training"]["holders"] == [run_id]
    assert lanes["ml_training"]["waiting"] == {waiting_id: f"waits for a slot of ml_training, held by run {run_id}"}
    assert (lanes["ml_training"]["soft_limit_s"], lanes["ml_training"]["hard_limit_s"]) == (10800, 14400)
    assert (foreign["ml_training"]["running"], foreign["ml_training"]["queued"]) == (1, 1)
    assert (foreign["ml_training"]["holders"], foreign["ml_training"]["waiting"]) == ([], {})
