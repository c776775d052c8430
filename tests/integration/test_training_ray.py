"""Trainings as runs, on a real Ray with run queue, hub and metrics: queued, submitted, stopped, refused."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.job_submission import JobSubmissionClient
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from cluster.errors import TaskCancelledError
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunState
from cluster.store import open_engine
from ingest.directory import DeviceDirectory, DeviceEntry
from ingest.scorer import load_scorer
from realtime.hub_client import HubClient
from realtime.replies import Cursor
from tests.training_floor import TrainingFloor, in_state, lane_is_free, training_floor
from tests.waiting import eventually
from training.errors import NotEnoughDataError, WorkersFailedError
from training.labelling.answering import Answer
from training.labelling.label_actor import get_or_create_label_queue
from training.labelling.label_client import LabelQueueClient
from training.labelling.leasing import Holder
from training.registry.promotion import champion, journal
from training.runs import train_fn
from training.runs.bar import FITTING
from training.runs.order import LabellingOrder
from training.runs.train_fn import TrainTask
from training.settings import TrainSettings
from training.tasks import active_learning_loop, evaluate_model, train_model

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

QUICK = {"epochs": 40, "max_windows": 2000, "min_steps": 0}
ROOT = Path(__file__).resolve().parents[2]
SUBMITTED = re.compile(r"Job '(\S+)' submitted successfully")


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingFloor]:
    with training_floor(tmp_path_factory.mktemp("floor"), num_cpus=2) as started:
        yield started


class Listening:
    """All publications of the hub from its construction on."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub
        self._cursor: Cursor | None = asyncio.run(hub.poll(None)).cursor
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def catch_up(self) -> None:
        reply = asyncio.run(self._hub.poll(self._cursor, timeout_s=0.2))
        self._cursor = reply.cursor
        self.heard += [(one.channel, json.loads(one.data)) for one in reply.publications]

    def until_ended(self, queue: RunQueueClient, run_id: str, within_s: float = 200.0) -> Run:
        def has_ended() -> bool:
            self.catch_up()
            return queue.get(run_id).state.is_terminal

        assert eventually(has_ended, within_s), queue.get(run_id)
        for _ in range(5):
            self.catch_up()
        return queue.get(run_id)

    def messages(self, channel: str, kind: str) -> list[dict[str, Any]]:
        return [message["data"] for heard, message in self.heard if heard == channel and message["type"] == kind]


def test_a_training_from_the_queue_ends_with_a_live_model_that_everybody_hears_of(floor: TrainingFloor) -> None:
    """Progress from rank 0, checkpoint, version, champion, messages, metrics, free lane: the whole way."""
    listening = Listening(floor.hub)
    handle = train_model.submit("recorded:nyc_taxi", "anomaly_detector", QUICK, user_id="ada")
    run = listening.until_ended(floor.queue, handle.run_id)

    assert (run.state, run.reason) == (RunState.SUCCEEDED, "")
    bar = listening.messages(f"run:{run.id}", "task_progress")
    epochs = [data for data in bar if "val_loss" in data]
    assert len({data["progress"] for data in epochs}) >= 5
    assert [data["progress"] for data in bar] == sorted(data["progress"] for data in bar)
    assert {"epoch", "epochs", "loss", "val_loss", "samples_per_s", "eta_s"} <= epochs[-1].keys()
    assert bar[-1]["progress"] == 100.0
    assert any(data.get("holdout_loss") for data in bar)
    assert listening.messages("user:ada", "task_progress")[-1]["progress"] == 100.0

    model_id = run.result["model_id"]
    (complete,) = listening.messages("noc:all", "ml_training_complete")
    assert (complete["model_id"], complete["accuracy"]) == (model_id, run.result["metrics"]["accuracy"])
    (prediction,) = listening.messages("user:ada", "ml_prediction")
    assert prediction["model_id"] == model_id
    (done,) = listening.messages("user:ada", "task_complete")
    assert done["result"]["model_id"] == model_id

    engine = open_engine(floor.settings.database_url)
    live = champion(engine)
    assert live is not None
    assert f"{live.scorer}@{live.version}" == model_id
    assert load_scorer(live).version == live.version
    assert journal(engine)[-1].run_id == run.id
    assert list(Path(floor.settings.storage_url.removeprefix("file://"), "runs", run.id).glob("checkpoint_*"))
    job = JobSubmissionClient(floor.ray.dashboard_url).get_job_info(run.id)
    assert (job.submission_id, job.entrypoint) == (run.id, f"python -m training train --run-id {run.id}")
    assert eventually(lane_is_free)
    assert eventually(
        lambda: b'ml_model_trained_total{model_type="anomaly_detector"} 1.0' in floor.metrics.render_sync()
    )
    assert b'ml_training_duration_seconds_count{model_type="anomaly_detector"} 1.0' in floor.metrics.render_sync()

    judged = evaluate_model.submit(model_id, "recorded:nyc_taxi", "ada").result(120)
    assert judged["metrics"] == run.result["metrics"]


def test_active_learning_chooses_windows_by_the_live_model_and_counts_them(floor: TrainingFloor) -> None:
    """The user hears of it, people are asked, and what they say outlives the queue's actor."""
    labels = get_or_create_label_queue(floor.settings)
    listening = Listening(floor.hub)
    live = champion(open_engine(floor.settings.database_url))
    chosen = active_learning_loop.submit("recorded:nyc_taxi", threshold=1.0, k=5, user_id="erin").result(120)

    assert chosen["model_id"] == ("ar-baseline@1" if live is None else f"{live.scorer}@{live.version}")
    windows = chosen["windows"]
    assert len({window["from"] for window in windows}) == 5
    assert {(window["device"], window["metric"]) for window in windows} == {("nyc_taxi", "value")}
    margins = [abs(window["score"] - window["threshold"]) for window in windows]
    assert margins == sorted(margins)
    assert chosen["asked"] == 5
    people = LabelQueueClient(labels)
    leased = asyncio.run(people.alease(Holder("erin", "a-visit"), 9))
    asked = [{name: value for name, value in one.details.items() if name != "points"} for one in leased]
    assert asked == windows, "the least sure first"
    assert {len(one.details["points"]) for one in leased} == {64}
    ray.kill(labels, no_restart=False)
    said = Answer(request_id=leased[0].id, token=leased[0].token, value="normal", user_id="erin", saw_proposal=True)
    label = asyncio.run(people.aanswer(said))
    assert (label.user_id, label.provenance, label.model_id) == ("erin", "assisted", chosen["model_id"])
    assert asyncio.run(people.aanswer(said)) == label, "repeated, it is kept once"

    def is_done() -> bool:
        listening.catch_up()
        return bool(listening.messages("user:erin", "task_complete"))

    assert eventually(is_done)
    assert listening.messages("user:erin", "task_progress")[-1]["progress"] == 100.0
    assert listening.messages("user:erin", "task_complete")[0]["result"] == chosen
    line = b'active_learning_samples_identified_total{strategy="least_confidence"} 5.0'
    assert eventually(lambda: line in floor.metrics.render_sync())
    with pytest.raises(NotEnoughDataError, match="data set 'telemetry' is too small: 0 windows for active learning"):
        active_learning_loop.submit("telemetry").result(120)


def test_a_training_by_ray_job_submit_is_a_run_and_job_stop_ends_it(floor: TrainingFloor, tmp_path: Path) -> None:
    """Its submission id is the run's id; while it trains nobody else may, and stopping frees the lane."""
    jobs = JobSubmissionClient(floor.ray.dashboard_url)
    (tmp_path / "notes.txt").write_text("an engineer's own folder", encoding="utf-8")
    line = "ray job submit --working-dir . -- python -m training train --model anomaly_detector"
    line += " --dataset recorded:nyc_taxi --user bob --set epochs=5000"
    with subprocess.Popen(line.split(), cwd=tmp_path, env=_shell(floor), stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        job = next(found[1] for found in map(SUBMITTED.search, shell.stdout) if found is not None)
        _job_is_a_run_until_it_is_stopped(floor, jobs, job)
        followed = shell.stdout.read()

    assert "epoch" in followed
    assert floor.queue.get(job).user_id == "bob"
    assert eventually(lane_is_free)


def _job_is_a_run_until_it_is_stopped(floor: TrainingFloor, jobs: JobSubmissionClient, job: str) -> None:
    assert eventually(in_state(floor.queue, job, RunState.RUNNING), 90), jobs.get_job_logs(job)
    assert eventually(lambda: "#" in jobs.get_job_logs(job) and "epoch" in jobs.get_job_logs(job))
    waiting = train_model.submit("recorded:nyc_taxi", user_id="ada")
    assert eventually(lambda: "ml_training" in (waiting.get().waits_for or ""))
    assert waiting.cancel("ada").state is RunState.CANCELLED
    with pytest.raises(TaskCancelledError):
        waiting.result(5)

    assert jobs.stop_job(job)
    assert eventually(in_state(floor.queue, job, RunState.CANCELLED))


@pytest.mark.chaos  # long; the page's own test cancels a run that trains as well
def test_cancelling_a_run_that_trains_ends_its_worker_and_frees_its_lane(floor: TrainingFloor) -> None:
    """Not only one that waits or starts: rank 0 is in the middle of an epoch."""
    handle = train_model.submit("recorded:nyc_taxi", "anomaly_detector", {"epochs": 5000}, user_id="ada")
    assert eventually(lambda: _is_training(floor, handle.get()), 90), handle.get()
    handle.cancel("ada")

    assert eventually(in_state(floor.queue, handle.run_id, RunState.CANCELLED))
    assert handle.get().reason == "cancelled by ada"
    assert eventually(lambda: not floor.pids("TrainWorker"))
    assert eventually(lane_is_free)


def test_a_training_whose_driver_is_killed_ends_its_bar_within_five_seconds(floor: TrainingFloor) -> None:
    """With the reason, on the bar that it moved, for those who watch the run and for its user."""
    listening = Listening(floor.hub)
    handle = train_model.submit("recorded:nyc_taxi", "anomaly_detector", {"epochs": 5000}, user_id="ada")
    channels = (f"run:{handle.run_id}", "user:ada")

    def bars(channel: str) -> list[dict[str, Any]]:
        listening.catch_up()
        found = listening.messages(channel, "task_progress")
        return [bar for bar in found if bar["run_id"] == handle.run_id]

    assert eventually(lambda: bool(bars(channels[0])), 120), handle.get()
    moved = bars(channels[0])[-1]["task_name"]
    os.kill(_driver_pid(handle.run_id), signal.SIGKILL)

    assert eventually(lambda: all(bars(channel)[-1].get("state") == "failed" for channel in channels), 5.0)
    for channel in channels:
        last = bars(channel)[-1]
        assert (last["task_name"], last["reason"]) == (moved, handle.get().reason)
        assert last["reason"]
    assert eventually(lambda: not floor.pids("TrainWorker"))
    assert eventually(lane_is_free)


def test_too_little_data_ends_the_run_at_once_with_the_reason(floor: TrainingFloor) -> None:
    """No worker is started for it, and its bar does not hang."""
    listening = Listening(floor.hub)
    handle = train_model.submit("telemetry", user_id="ada")
    run = listening.until_ended(floor.queue, handle.run_id, 60.0)

    assert run.state is RunState.FAILED
    assert "data set 'telemetry' is too small" in run.reason
    assert listening.messages(f"run:{run.id}", "task_progress")[-1]["reason"] == run.reason
    with pytest.raises(WorkersFailedError, match="too small"):
        handle.result(1)


def test_a_run_whose_controller_is_killed_goes_on_and_changes_nothing(
    floor: TrainingFloor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lane is freed and nobody else's; all worlds, and kills of workers, are in ``tests/chaos``."""
    order = QUICK | {"epochs": 250, "checkpoint_interval_s": 0.5, "seed": 7}
    ray.get((bystander := placement_group([{"external": 1.0}])).ready())
    handle = train_model.submit("recorded:rogue_agent_key_hold", "anomaly_detector", order)
    assert eventually(lambda: _is_training(floor, handle.get()), 90), handle.get()
    before = handle.get().progress
    os.kill(floor.pids("TrainController")[0], signal.SIGKILL)
    assert handle.get().progress >= before
    result = handle.result(150)
    whole = _trained_here(floor, result["dataset_version"], order, monkeypatch)

    assert result["version"].partition("-")[2] == whole["version"].partition("-")[2]
    assert result["metrics"] == whole["metrics"]
    assert placement_group_table(bystander)["state"] == "CREATED"
    remove_placement_group(bystander)
    assert eventually(lane_is_free)


def _trained_here(
    floor: TrainingFloor, dataset_id: str, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Train in this process, where nothing interrupts it, and return the run's result."""
    monkeypatch.setattr(train_fn, "NICE", 0)  # no process may take its niceness back
    task = TrainTask(
        run_id="",
        user_id="",
        task_name="",
        dataset_id=dataset_id,
        dataset_name="",
        storage_url=floor.settings.storage_url,
        settings=TrainSettings(**order, num_workers=0),
        soft_deadline_s=None,
        promotes=False,
    )
    trainer: Any = TorchTrainer(
        train_fn.train_anomaly_detector, train_loop_config=task.to_config(), scaling_config=ScalingConfig(num_workers=0)
    )
    result: dict[str, Any] = trainer.fit().return_value["result"]
    return result


@pytest.mark.chaos
def test_a_worker_that_is_killed_is_replaced_and_changes_nothing(floor: TrainingFloor) -> None:
    """The run goes on from its checkpoint and ends with the very weights of an undisturbed one."""
    order = QUICK | {"epochs": 60, "checkpoint_interval_s": 0.1, "seed": 7}
    undisturbed = train_model.submit("recorded:rogue_agent_key_hold", "anomaly_detector", order).result(150)
    handle = train_model.submit("recorded:rogue_agent_key_hold", "anomaly_detector", order)
    assert eventually(lambda: handle.get().progress > 10.0, 90), handle.get()
    time.sleep(random.uniform(0.0, 0.5))
    os.kill(floor.pids("TrainWorker")[0], signal.SIGKILL)
    result = handle.result(150)

    assert result["version"].partition("-")[2] == undisturbed["version"].partition("-")[2]
    assert result["metrics"] == undisturbed["metrics"]


@pytest.mark.chaos  # long: two workers on two cores
def test_two_workers_train_one_model_and_share_the_lanes_token(floor: TrainingFloor) -> None:
    """Close to what one worker finds; not bitwise, because gradients are summed in another order."""
    order = QUICK | {"batch_size": 128}
    alone = train_model.submit("recorded:nyc_taxi", "anomaly_detector", order).result(150)
    pair = order | {"num_workers": 2, "batch_size": 64}
    together = train_model.submit("recorded:nyc_taxi", "anomaly_detector", pair).result(150)

    assert together["epochs"] == alone["epochs"]
    assert together["metrics"]["loss"] == pytest.approx(alone["metrics"]["loss"], rel=0.05)
    assert eventually(lane_is_free)


def test_a_worker_group_that_does_not_start_in_time_fails_its_run_with_that_reason(floor: TrainingFloor) -> None:
    """Both CPUs are taken after the run was admitted and before its worker asks for one."""

    class Hog:  # in here, so that Ray sends it to the worker whole
        pass

    jobs = JobSubmissionClient(floor.ray.dashboard_url)
    job = jobs.submit_job(
        entrypoint="python -m training train --dataset recorded:nyc_taxi --user bob",
        runtime_env={"env_vars": {"WATCHFLOOR_RUN_QUEUE_START_TIMEOUT_S": "4"}},
    )
    assert eventually(in_state(floor.queue, job, RunState.STARTING), 90), jobs.get_job_logs(job)
    hog = ray.remote(Hog).options(num_cpus=2).remote()
    try:
        assert eventually(in_state(floor.queue, job, RunState.FAILED), 90), jobs.get_job_logs(job)
        reason = floor.queue.get(job).reason
        assert reason.startswith("the worker group did not start in 4 s: free are 0 of 2 CPU")
        assert reason in jobs.get_job_logs(job)
    finally:
        ray.kill(hog)
    assert eventually(lane_is_free)


def test_a_shell_without_the_floors_environment_is_told_what_to_do(tmp_path: Path) -> None:
    """And a folder of the user's that hides ours is named, before anything else."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    argv = [sys.executable, "-m", "training", "runs"]
    plain = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "__init__.py").touch()
    hidden = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert (plain.returncode, hidden.returncode) == (2, 2)
    assert 'run eval "$(watchfloor env)" first' in plain.stderr
    assert f"package 'cluster' would be imported from {tmp_path / 'cluster'}" in hidden.stderr
    assert "Traceback" not in plain.stderr + hidden.stderr


def test_the_shell_command_follows_its_run_and_ctrl_c_cancels_it(floor: TrainingFloor) -> None:
    """Called outside a job it queues a run like everybody else's; the run trains when Ctrl-C ends it."""
    env = _shell(floor)
    argv = [
        sys.executable,
        "-m",
        "training",
        "train",
        "--dataset",
        "recorded:nyc_taxi",
        "--set",
        "epochs=5000",
        "--json",
    ]
    with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        for line in command.stdout:
            run = json.loads(line)
            if run["state"] == "running" and _is_training(floor, floor.queue.get(run["id"])):
                break
        command.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in command.stdout]

    assert command.returncode == 130
    assert rest[-1]["state"] == "cancelled"
    assert floor.queue.get(run["id"]).state is RunState.CANCELLED
    assert eventually(lambda: not floor.pids("TrainWorker"))
    assert eventually(lane_is_free)
    shown = subprocess.run(
        [sys.executable, "-m", "training", "show", run["id"], "--json"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(shown.stdout) == rest[-1]
    written = subprocess.run(
        [sys.executable, "-m", "training", "logs", run["id"]],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "cancelled" in written.stdout


def test_the_first_example_moves_a_bar_and_tells_the_noc(floor: TrainingFloor) -> None:
    """``examples/train_with_progress.py``, as a user runs it."""
    listening = Listening(floor.hub)
    output = _example(floor, "train_with_progress.py", "carol")
    listening.catch_up()
    bar = [data["progress"] for data in listening.messages("user:carol", "task_progress")]

    assert "'model_id': 'example/nyc_taxi'" in output
    assert bar == sorted(bar)
    assert bar[-1] == 100.0
    assert listening.messages("noc:all", "ml_training_complete")[-1]["model_id"] == "example/nyc_taxi"


def test_the_second_example_stores_an_alert_and_tells_everybody_it_concerns(floor: TrainingFloor) -> None:
    """``examples/device_alert.py``; the directory says who that is."""
    DeviceDirectory(open_engine(floor.settings.database_url)).register(
        [DeviceEntry(tenant="demo", device="door-1", client_id="7", site="gate", supervisor_id="dave")]
    )
    listening = Listening(floor.hub)
    output = _example(floor, "device_alert.py")
    listening.catch_up()

    for channel, kind in (
        ("noc:all", "critical_alert"),
        ("noc:client-7", "critical_alert"),
        ("user:dave", "supervisor_alert"),
        ("tenant:demo", "tenant_alert"),
    ):
        (message,) = listening.messages(channel, kind)
        assert message["event_id"] in output
        assert message["severity"] == "critical"


def test_a_labelling_is_a_run_and_a_command(floor: TrainingFloor) -> None:
    """As ``POST /api/v1/runs`` and ``python -m training label`` start it: people are asked, the row has the result."""
    get_or_create_label_queue(floor.settings)
    listening = Listening(floor.hub)
    order = LabellingOrder(dataset_id="recorded:nyc_taxi", strategy="assisted", k=6)
    run = listening.until_ended(floor.queue, floor.queue.submit(order.to_request("ada")).id)

    assert (run.state, run.reason, run.progress) == (RunState.SUCCEEDED, "", 100.0)
    assert {name: run.result[name] for name in ("strategy", "asked", "labelled")} == {
        "strategy": "assisted", "asked": 6, "labelled": 0,
    }  # fmt: skip
    assert listening.messages("user:ada", "task_complete")[-1]["result"] == run.result

    line = "python -m training label --dataset recorded:nyc_taxi -k 4"
    texts = [
        subprocess.run(
            [*line.split(), *more], env=_shell(floor), capture_output=True, text=True, timeout=150, check=True
        ).stdout
        for more in (["--json"], [])
    ]
    assert json.loads(texts[0])["strategy"] == "manual"
    assert "new questions" in texts[1]


def _example(floor: TrainingFloor, name: str, *args: str) -> str:
    argv = [sys.executable, str(ROOT / "examples" / name), *args]
    done = subprocess.run(argv, env=_shell(floor), capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    time.sleep(1.0)  # the last broadcast of a warm worker leaves it after the result
    return done.stdout


def _shell(floor: TrainingFloor) -> dict[str, str]:
    """Return the environment of a user's shell on this floor."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"RAY_ADDRESS": floor.ray.address, "PATH": path}


def _is_training(floor: TrainingFloor, run: Run) -> bool:
    """Tell whether the run's worker group is there and makes steps."""
    return run.state is RunState.RUNNING and run.progress > FITTING and bool(floor.pids("TrainWorker"))


def _driver_pid(run_id: str) -> int:
    """Return the process that drives the run: the module itself, not the shell that started it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # ended meanwhile
        if run_id in words and "training" in words:
            found.append(int(entry.parent.name))
    (pid,) = found
    return pid
