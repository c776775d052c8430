"""Lanes, tasks, runs and metrics on a real Ray that takes jobs."""

import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import ray
import ray.data
from fakes_ingest import make_reading
from local_ray import LocalRay, local_ray
from ray.job_submission import JobSubmissionClient

from cluster import migrate, names
from cluster.errors import HardLimitExceededError, RunNotFoundError, SoftLimitExceededError, TaskCancelledError
from cluster.job_backend import JobState
from cluster.lanes import LANES, get_route
from cluster.metrics_actor import get_or_create_metrics
from cluster.metrics_client import MetricsClient
from cluster.ray_jobs import RayJobs
from cluster.run_life import new_run
from cluster.run_queue_actor import get_or_create_run_queue
from cluster.run_queue_client import RunQueueClient
from cluster.runs import Run, RunOrigin, RunRequest, RunState
from cluster.settings import Settings
from cluster.task import current_task, task
from ingest.archive import ArchiveStore, day_of
from tests.waiting import eventually

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

TRAINING = RunRequest(task="train_model", arguments={"model_type": "anomaly_detector"}, user_id="ada")

# What a user's own program does to be a run: register, wait, start, work, finish.
PROGRAM = """
    import os, pathlib, sys, time
    import ray
    from cluster import names
    from cluster.run_queue_client import RunQueueClient, current_submission_id
    from cluster.runs import RunRequest, RunState

    ray.init(address="auto", namespace=names.NAMESPACE, log_to_driver=False)
    queue = RunQueueClient.connect()
    run = queue.register(current_submission_id(), RunRequest(task="train_model", user_id="ada"))
    queue.wait_for_lease(run.id)
    queue.start(run.id)
    folder = pathlib.Path(sys.argv[1])
    (folder / f"{run.id}.pid").write_text(str(os.getpid()))
    while not (folder / f"{run.id}.end").exists():
        time.sleep(0.1)
    queue.finish(run.id, RunState.SUCCEEDED, "", {"answer": 42})
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    url = f"sqlite:///{tmp_path_factory.mktemp('sql')}/floor.db"
    migrate.upgrade(url)
    return Settings(database_url=url)


@pytest.fixture(scope="module")
def head(settings: Settings) -> Iterator[LocalRay]:
    """A Ray with two CPUs and the lanes' tokens; this process is a driver of it."""
    with local_ray(num_cpus=2, env={"WATCHFLOOR_RUN_QUEUE_LISTENER": "none"}) as started:
        os.environ["RAY_API_SERVER_ADDRESS"] = started.dashboard_url
        os.environ["WATCHFLOOR_RUN_QUEUE_LISTENER"] = "none"
        ray.init(address=started.address, namespace=names.NAMESPACE, log_to_driver=False)
        yield started
        ray.shutdown()
        del os.environ["RAY_API_SERVER_ADDRESS"], os.environ["WATCHFLOOR_RUN_QUEUE_LISTENER"]


@pytest.fixture(scope="module")
def queue(head: LocalRay, settings: Settings) -> RunQueueClient:
    return get_or_create_run_queue(settings)


@pytest.fixture(scope="module")
def floor_metrics(head: LocalRay, settings: Settings) -> MetricsClient:
    return get_or_create_metrics(settings)


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    return f"{sys.executable} {path} {tmp_path}"


def in_state(queue: RunQueueClient, run_id: str, state: RunState) -> Callable[[], bool]:
    def check() -> bool:
        try:
            return queue.get(run_id).state is state
        except RunNotFoundError:
            return False  # not registered yet

    return check


@contextmanager
def holding_cpus(name: str, count: int) -> Iterator[None]:
    """An actor that holds CPUs."""

    @ray.remote(num_cpus=count)
    class Holder:
        def ready(self) -> bool:
            return True

    actor = Holder.options(name=name).remote()  # type: ignore[attr-defined]
    ray.get(actor.ready.remote(), timeout=60)
    yield
    ray.kill(actor)


class TestTasks:
    def test_a_task_runs_in_a_worker_with_its_lanes_token(self, head: LocalRay) -> None:
        """It holds one token and no CPU."""

        @task(lane="general")
        def look(number: int) -> tuple[int, float, float]:
            context = current_task()
            assert context is not None
            held = ray.get_runtime_context().get_assigned_resources()
            return 2 * number, held.get(context.lane, 0.0), held.get("CPU", 0.0)

        assert look.submit(21).result(60) == (42, 1.0, 0.0)

    def test_a_lane_runs_no_more_than_its_concurrency(self, head: LocalRay, tmp_path: Path) -> None:
        """Six tasks in ``external`` (4): four run at first."""

        @task(lane="external")
        def hold(folder: str, number: int) -> None:
            import pathlib
            import time

            (pathlib.Path(folder) / f"began-{number}").touch()
            while not (pathlib.Path(folder) / "end").exists():
                time.sleep(0.05)

        handles = [hold.submit(str(tmp_path), number) for number in range(6)]
        assert eventually(lambda: len(list(tmp_path.glob("began-*"))) == 4)
        time.sleep(1)
        assert len(list(tmp_path.glob("began-*"))) == 4

        (tmp_path / "end").touch()
        for handle in handles:
            handle.result(60)
        assert len(list(tmp_path.glob("began-*"))) == 6

    def test_errors_and_limits_reach_the_caller_by_their_names(self, head: LocalRay) -> None:
        """What the function raised, the soft limit, the hard limit."""

        @task(lane="general", soft_limit_s=0.3, hard_limit_s=0.6)
        def slow(*, stubborn: bool) -> None:
            import time

            while True:
                try:
                    time.sleep(30)
                except Exception:
                    if not stubborn:
                        raise

        @task(lane="general", max_retries=1)
        def down() -> None:
            raise ConnectionError("down")

        with pytest.raises(SoftLimitExceededError):
            slow.submit(stubborn=False).result(60)
        with pytest.raises(HardLimitExceededError):
            slow.submit(stubborn=True).result(60)
        with pytest.raises(ConnectionError, match="down"):
            down.submit().result(60)

    def test_a_function_that_hangs_in_c_is_ended_with_its_process(self, head: LocalRay) -> None:
        """No signal handler runs there; the token comes back all the same."""

        @task(lane="general", soft_limit_s=0.2, hard_limit_s=0.4)
        def hang() -> None:
            import signal
            import time

            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(60)

        with pytest.raises(HardLimitExceededError):
            hang.submit().result(60)
        assert eventually(lambda: ray.available_resources().get("general") == 8.0)

    def test_a_task_can_be_cancelled(self, head: LocalRay) -> None:
        """By the one who submitted it."""

        @task(lane="general")
        def sleep_long() -> None:
            import time

            time.sleep(60)

        handle = sleep_long.submit()
        time.sleep(1)
        handle.cancel()

        with pytest.raises(TaskCancelledError):
            handle.result(90)

    async def test_results_can_be_awaited(self, head: LocalRay) -> None:
        """On an event loop."""

        @task
        def one() -> int:
            return 1

        assert await one.submit().aresult(60) == 1


class TestMetrics:
    async def test_counts_of_workers_and_of_this_process_add_up(self, floor_metrics: MetricsClient) -> None:
        """A counter raised in a worker is in the sum, and stays when the worker is gone."""

        @task(lane="ai_processing")
        def count() -> int:
            import os

            from cluster import metrics

            metrics.dataset_samples_labeled.labels("oracle").inc(5)
            return os.getpid()

        workers = {count.submit().result(60) for _ in range(3)}
        wanted = b'dataset_samples_labeled_total{strategy="oracle"} 15.0'
        assert eventually(lambda: wanted in floor_metrics.render_sync(), 15)

        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        await anyio.sleep(12)  # long enough for the sum to take them for ended
        rendered = await floor_metrics.render()
        assert wanted in rendered
        assert b'watchfloor_task_duration_seconds_count{lane="ai_processing",outcome="succeeded"} 3.0' in rendered


class TestJobs:
    """``RayJobs`` alone."""

    def make(self, run_id: str) -> Run:
        return new_run(
            run_id, run_id, RunOrigin.API, TRAINING, get_route("train_model"), LANES["ml_training"], time.time()
        )

    def test_launching_twice_launches_once_and_a_kill_is_noticed(self, head: LocalRay, tmp_path: Path) -> None:
        """SIGKILL of the driver is a failed job within five seconds."""
        jobs = RayJobs(head.dashboard_url)
        run = self.make("launch-twice")
        pids = tmp_path / "pids"
        path = tmp_path / "sleeper.py"
        path.write_text(
            f"import os, time\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n",
            encoding="utf-8",
        )
        entrypoint = f"{sys.executable} {path}"
        jobs.launch(run, entrypoint)
        jobs.launch(run, entrypoint)
        assert eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
        (pid,) = pids.read_text().split()
        assert jobs.report(run.id).state is JobState.RUNNING

        os.kill(int(pid), signal.SIGKILL)
        assert eventually(lambda: jobs.report(run.id).state is JobState.FAILED, 5)
        assert "exit code" in jobs.report(run.id).message

    def test_unknown_jobs_and_a_ray_that_is_away_are_told_apart(
        self, head: LocalRay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the first is a reason to give a run up."""
        assert RayJobs(head.dashboard_url).report("nobody").state is JobState.UNKNOWN
        # For Ray's client the variable wins over the argument.
        monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
        assert RayJobs("http://127.0.0.1:9").report("nobody").state is JobState.UNREACHABLE

    def test_stopping_what_is_gone_is_fine(self, head: LocalRay) -> None:
        """Repeating a stop does no harm."""
        RayJobs(head.dashboard_url).stop("nobody")

    def test_launched_jobs_get_the_given_environment_and_end_together(self, head: LocalRay, tmp_path: Path) -> None:
        """A floor leaves a Ray that goes on without leaving jobs there; a user's own job is left alone."""
        own = JobSubmissionClient(head.dashboard_url).submit_job(entrypoint="sleep 60", submission_id="own")
        jobs = RayJobs(head.dashboard_url, {"STORAGE_URL": "file:///given"})
        run, seen = self.make("launched"), tmp_path / "seen"
        jobs.launch(run, f"printenv STORAGE_URL > {seen}; sleep 60")
        assert eventually(lambda: seen.exists() and seen.read_text() == "file:///given\n")

        jobs.stop_launched()

        assert eventually(lambda: jobs.report(run.id).state is JobState.STOPPED)
        assert jobs.report(own).state is JobState.RUNNING
        jobs.stop(own)

    def test_holders_of_a_cpu_are_named(self, head: LocalRay) -> None:
        """An actor that holds one is found by its name."""

        with holding_cpus("labeller", 1):
            assert list(RayJobs(head.dashboard_url).holders("CPU")) == ["labeller (1)"]


class TestRuns:
    def submit(self, head: LocalRay, program: str, name: str) -> str:
        JobSubmissionClient(head.dashboard_url).submit_job(entrypoint=program, submission_id=name)
        return name

    def test_two_jobs_take_turns(self, head: LocalRay, queue: RunQueueClient, program: str, tmp_path: Path) -> None:
        """The second waits for the slot of the first and says so; then it has it."""
        first = self.submit(head, program, "turn-1")
        assert eventually(in_state(queue, first, RunState.RUNNING))
        second = self.submit(head, program, "turn-2")
        assert eventually(lambda: in_state(queue, second, RunState.QUEUED)() and bool(queue.lease(second).place))
        assert eventually(lambda: queue.get(second).waits_for == "waits for a slot of ml_training, held by run turn-1")

        (tmp_path / f"{first}.end").touch()
        assert eventually(in_state(queue, first, RunState.SUCCEEDED))
        assert queue.get(first).result == {"answer": 42}
        assert eventually(in_state(queue, second, RunState.RUNNING))
        (tmp_path / f"{second}.end").touch()
        assert eventually(in_state(queue, second, RunState.SUCCEEDED))

    def test_a_run_that_does_not_fit_says_what_it_waits_for(
        self, head: LocalRay, queue: RunQueueClient, program: str
    ) -> None:
        """Both CPUs are held by an actor: it is named, and the run begins when it lets go."""
        with holding_cpus("labeller", 2):
            run = self.submit(head, program, "no-cpu")
            wanted = "waits for 1 CPU held by labeller (2)"
            assert eventually(lambda: in_state(queue, run, RunState.QUEUED)() and queue.get(run).waits_for == wanted)
        assert eventually(in_state(queue, run, RunState.RUNNING))
        queue.cancel(run, "ada")
        assert eventually(in_state(queue, run, RunState.CANCELLED))

    def test_a_killed_driver_is_a_failed_run_within_five_seconds(
        self, head: LocalRay, queue: RunQueueClient, program: str, tmp_path: Path
    ) -> None:
        """And the lane is free."""
        run = self.submit(head, program, "killed")
        assert eventually(in_state(queue, run, RunState.RUNNING))
        assert eventually((tmp_path / f"{run}.pid").exists)

        os.kill(int((tmp_path / f"{run}.pid").read_text()), signal.SIGKILL)

        assert eventually(in_state(queue, run, RunState.FAILED), 5)
        assert "exit code" in queue.get(run).reason
        assert queue.lanes()[-1].holders == ()

    async def test_a_running_job_is_cancelled(self, head: LocalRay, queue: RunQueueClient, program: str) -> None:
        """Its process ends, then the run, for the reason given; also while the queue's actor restarts."""
        run = self.submit(head, program, "cancelled")
        assert eventually(in_state(queue, run, RunState.RUNNING))
        assert (await queue.acancel(run, "ada")).is_stopping
        ray.kill(ray.get_actor(names.RUN_QUEUE, namespace=names.NAMESPACE), no_restart=False)

        def cancelled() -> bool:
            try:
                return in_state(queue, run, RunState.CANCELLED)()
            except Exception:
                return False  # the actor is restarting

        assert eventually(cancelled)
        assert queue.get(run).reason == "cancelled by ada"

    def test_ray_job_stop_ends_the_run(self, head: LocalRay, queue: RunQueueClient, program: str) -> None:
        """Whoever stops the job, the run knows."""
        run = self.submit(head, program, "stopped")
        assert eventually(in_state(queue, run, RunState.RUNNING))

        JobSubmissionClient(head.dashboard_url).stop_job(run)

        assert eventually(in_state(queue, run, RunState.CANCELLED))
        assert queue.get(run).reason == "its job was stopped"


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # Ray Data, of its own settings
def test_ray_data_reads_the_archive(head: LocalRay, tmp_path: Path) -> None:
    """With the day as a column, and without the file that is being written; see docs/operations.md."""
    archive = ArchiveStore(tmp_path.as_uri())
    for day in range(2):
        ids = [(1_789_948_800_000 + day * 86_400_000 + number, 0) for number in range(20)]
        archive.write(day_of(ids[0]), ids, [make_reading(seq=number, ts=float(number)) for number in range(20)])
    (tmp_path / "telemetry" / "date=2026-09-21" / ".1-0_2-0.parquet.tmp").write_bytes(b"PAR1")
    found = ray.data.read_parquet(str(tmp_path / "telemetry"))
    days = Counter(row["date"] for row in found.take_all())  # grouped here: a shuffle starts an actor per partition

    assert days == {"2026-09-21": 20, "2026-09-22": 20}
