"""The run queue, step by step, on a real table with jobs that do what the test says."""

import pytest
from fakes_cluster import FakeClock, FakeJobs
from sqlalchemy import Engine

from cluster.errors import RunNotFoundError, RunStateError, UnknownTaskError
from cluster.job_backend import JobState
from cluster.lanes import LANES
from cluster.run_queue import RunQueue, RunQueueSettings
from cluster.run_store import RunStore
from cluster.runs import Run, RunRequest, RunState, run_to_json


class Queue:
    """A queue, its clock, its jobs and what its listener heard."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.clock = FakeClock()
        self.jobs = FakeJobs()
        self.heard: list[Run] = []
        self.restart()

    def restart(self) -> None:
        """Be a new process on the same table."""
        self.queue = RunQueue(
            RunQueueSettings(), RunStore(self.engine), self.jobs, self.clock, on_change=self.heard.append
        )

    def submit(self, **fields: object) -> Run:
        self.clock.advance(0.001)
        return self.queue.submit(RunRequest(**({"task": "train_model", "user_id": "ada"} | fields)))  # type: ignore[arg-type]

    def running(self) -> Run:
        """A run of the queue's own whose worker group works."""
        run = self.submit()
        self.queue.step()
        self.queue.lease(run.id)
        return self.queue.start(run.id)

    def state(self, run: Run) -> RunState:
        return self.queue.get(run.id).state


@pytest.fixture
def q(sql: Engine) -> Queue:
    return Queue(sql)


class TestLife:
    def test_a_run_goes_from_queued_to_succeeded(self, q: Queue) -> None:
        """Submit, admit, launch, lease, start, progress, finish."""
        run = q.submit(arguments={"model_type": "anomaly_detector", "dataset_id": "telemetry"})
        assert (run.state, run.model_type, run.dataset_id) == (RunState.QUEUED, "anomaly_detector", "telemetry")

        q.queue.step()
        assert q.jobs.launched == [(run.id, f"python -m training train --run-id {run.id}")]
        assert q.queue.lease(run.id).granted

        q.queue.start(run.id)
        q.queue.progress(run.id, 40, "epoch 2 of 5")
        ended = q.queue.finish(run.id, RunState.SUCCEEDED, "", {"val_loss": 0.1})

        assert (ended.state, ended.progress, ended.result) == (RunState.SUCCEEDED, 100.0, {"val_loss": 0.1})

    def test_each_change_is_heard_once_with_the_next_version(self, q: Queue) -> None:
        """The listener hears every version, in order."""
        run = q.running()
        q.queue.finish(run.id, RunState.SUCCEEDED, "", {})

        assert [heard.version for heard in q.heard] == list(range(1, len(q.heard) + 1))
        assert [heard.state for heard in q.heard] == [
            RunState.QUEUED,
            RunState.STARTING,
            RunState.STARTING,
            RunState.RUNNING,
            RunState.SUCCEEDED,
        ]

    def test_the_lease_carries_the_limits(self, q: Queue) -> None:
        """Three hours to the soft, four to the hard limit, from the lease on."""
        run = q.submit()
        q.queue.step()
        now = q.clock.time_s()

        lease = q.queue.lease(run.id)

        assert (lease.soft_deadline, lease.hard_deadline) == (now + 3 * 3600, now + 4 * 3600)

    def test_progress_is_kept_between_0_and_100(self, q: Queue) -> None:
        """A driver that miscounts does not break the bar."""
        run = q.running()

        assert q.queue.progress(run.id, 250, "").progress == 100.0
        assert q.queue.progress(run.id, -3, "").progress == 0.0

    def test_progress_alone_starts_a_run(self, q: Queue) -> None:
        """A driver that only reports progress has started."""
        run = q.submit()
        q.queue.step()

        assert q.queue.progress(run.id, 1, "").state is RunState.RUNNING

    def test_a_run_without_a_lease_cannot_start(self, q: Queue) -> None:
        """Whoever did not wait for its lease is told."""
        run = q.submit()

        with pytest.raises(RunStateError, match="queued"):
            q.queue.start(run.id)

    def test_a_task_that_is_no_job_is_refused(self, q: Queue) -> None:
        """At once, and the text says what can be run; a row without a program would wait for ever."""
        with pytest.raises(UnknownTaskError, match="no task 'active_learning_loop' to run; there are train_model"):
            q.submit(task="active_learning_loop")

        assert q.queue.list(10) == ()

    def test_what_is_preferred_is_reserved_where_the_cluster_has_it(self, q: Queue) -> None:
        """Decided once, when the run is queued; a Ray that does not say what it has gets the modest wish."""
        wish = {"resources": {"CPU": 1.0}, "preferred_resources": {"CPU": 1.0, "GPU": 1.0}}
        without = q.submit(**wish)
        q.jobs.total["GPU"] = 1.0
        q.jobs.is_away = True
        unknown = q.submit(**wish)
        q.jobs.is_away = False

        assert [run.resources for run in (without, unknown)] == [{"CPU": 1.0}] * 2
        assert q.submit(**wish).resources == {"CPU": 1.0, "GPU": 1.0}

    def test_an_unknown_run_is_named(self, q: Queue) -> None:
        """Asking for what is not there says so."""
        with pytest.raises(RunNotFoundError, match="nope"):
            q.queue.get("nope")

    def test_json_has_iso_times_and_the_reason(self, q: Queue) -> None:
        """What the page gets needs no further work."""
        run = q.submit()
        q.queue.cancel(run.id, "ada")

        shown = run_to_json(q.queue.get(run.id))

        assert (shown["state"], shown["reason"]) == ("cancelled", "cancelled by ada")
        assert shown["created_at"] == "2023-11-14T22:13:20.001Z"


class TestLanes:
    def test_one_training_at_a_time_in_order(self, q: Queue) -> None:
        """The second run begins when the first has ended, and knows its place."""
        first, second, third = q.submit(), q.submit(), q.submit()
        q.queue.step()
        assert [q.state(run) for run in (first, second, third)] == [
            RunState.STARTING,
            RunState.QUEUED,
            RunState.QUEUED,
        ]
        assert (q.queue.lease(second.id).place, q.queue.lease(third.id).place) == (1, 2)
        assert q.queue.get(second.id).waits_for == f"waits for a slot of ml_training, held by run {first.id}"

        q.queue.finish(first.id, RunState.SUCCEEDED, "", {})
        q.queue.step()

        assert [q.state(run) for run in (second, third)] == [RunState.STARTING, RunState.QUEUED]

    def test_lanes_tell_who_holds_what(self, q: Queue) -> None:
        """The status names the holder and what the queue waits for, largest priority first."""
        first = q.submit()
        second = q.submit()
        q.queue.step()

        lanes = q.queue.lanes()

        assert [lane.name for lane in lanes] == ["general", "external", "ai_processing", "ml_training"]
        assert (lanes[-1].running, lanes[-1].queued, lanes[-1].holders) == (1, 1, (first.id,))
        assert lanes[-1].waiting == {second.id: f"waits for a slot of ml_training, held by run {first.id}"}

    def test_a_run_waits_for_a_cpu_and_says_so(self, q: Queue) -> None:
        """Both CPUs are held: the text names the holder; it begins when one is free."""
        q.jobs.used["CPU"] = 2.0
        q.jobs.holds["CPU"] = ["labeller (2)"]
        run = q.submit()
        q.queue.step()
        assert q.queue.get(run.id).waits_for == "waits for 1 CPU held by labeller (2)"

        q.jobs.used["CPU"] = 0.0
        q.queue.step()

        assert q.queue.get(run.id).waits_for is None
        assert q.state(run) is RunState.STARTING

    def test_waiting_on_does_not_make_versions(self, q: Queue) -> None:
        """A queue that stands still writes and tells nothing."""
        q.submit()
        q.submit()
        q.queue.step()
        heard = len(q.heard)

        q.queue.step()

        assert len(q.heard) == heard


class TestIdempotency:
    def test_a_repeated_request_is_the_same_run(self, q: Queue) -> None:
        """The second call returns the first run."""
        assert q.submit(request_id="r1").id == q.submit(request_id="r1").id

    def test_request_ids_of_two_users_do_not_meet(self, q: Queue) -> None:
        """A request id is its user's own."""
        assert q.submit(request_id="r1").id != q.submit(request_id="r1", user_id="bob").id

    def test_a_job_registers_once(self, q: Queue) -> None:
        """A program that asks twice has one run, named like its job."""
        request = RunRequest(task="train_model")

        first = q.queue.register("raysubmit_abc", request)

        assert first.id == "raysubmit_abc"
        assert q.queue.register("raysubmit_abc", request) == first

    def test_a_job_whose_id_cannot_name_a_channel_gets_another_run_id(self, q: Queue) -> None:
        """The submission id stays what Ray knows."""
        run = q.queue.register("my run / 1", RunRequest(task="train_model"))

        assert run.submission_id == "my run / 1"
        assert run.id != run.submission_id

    def test_an_ended_run_never_changes(self, q: Queue) -> None:
        """Late calls get the run as it ended."""
        run = q.running()
        ended = q.queue.finish(run.id, RunState.SUCCEEDED, "", {})

        assert q.queue.finish(run.id, RunState.FAILED, "late", {}) == ended
        assert q.queue.cancel(run.id, "ada") == ended
        assert q.queue.progress(run.id, 1, "late") == ended
        assert q.queue.start(run.id) == ended


class TestCancel:
    def test_a_waiting_run_is_cancelled_at_once(self, q: Queue) -> None:
        """Nothing was started, so nothing is waited for."""
        run = q.submit()

        assert q.queue.cancel(run.id, "ada").state is RunState.CANCELLED
        q.queue.step()
        assert q.jobs.launched == []

    def test_a_waiting_job_is_cancelled_and_stopped(self, q: Queue) -> None:
        """The program that waits for its lease ends too."""
        q.jobs.set("raysubmit_a", JobState.RUNNING)
        run = q.queue.register("raysubmit_a", RunRequest(task="train_model"))

        q.queue.cancel(run.id, "ada")

        assert q.state(run) is RunState.CANCELLED
        assert q.jobs.stopped == ["raysubmit_a"]

    def test_a_running_run_is_cancelled_when_its_job_has_stopped(self, q: Queue) -> None:
        """The lane is kept until nothing of the run is left."""
        run = q.running()

        assert q.queue.cancel(run.id, "ada").is_stopping
        q.queue.step()
        assert q.jobs.stopped == [run.id]
        assert q.state(run) is RunState.RUNNING

        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()
        ended = q.queue.get(run.id)
        assert (ended.state, ended.reason) == (RunState.CANCELLED, "cancelled by ada")

    def test_a_driver_that_hears_of_the_cancel_ends_as_cancelled(self, q: Queue) -> None:
        """Whatever a stopping driver calls its end, the reason is the user's."""
        run = q.running()
        q.queue.cancel(run.id, "ada")

        assert q.queue.progress(run.id, 50, "").is_stopping
        assert q.queue.finish(run.id, RunState.FAILED, "SIGTERM", {}).state is RunState.CANCELLED

    def test_success_just_before_the_stop_counts(self, q: Queue) -> None:
        """A model that was made is not thrown away."""
        run = q.running()
        q.queue.cancel(run.id, "ada")

        assert q.queue.finish(run.id, RunState.SUCCEEDED, "", {}).state is RunState.SUCCEEDED

    def test_a_stop_is_asked_again_until_the_job_is_gone(self, q: Queue) -> None:
        """A request that got lost is repeated after five seconds, not every step."""
        run = q.running()
        q.queue.cancel(run.id, "ada")
        for _ in range(6):
            q.queue.step()
            q.clock.advance(1)

        assert q.jobs.stopped == [run.id, run.id]


class TestWatching:
    @pytest.mark.parametrize(
        ("job", "message", "state", "reason"),
        [
            pytest.param(
                JobState.FAILED, "exit code 137", RunState.FAILED, "exit code 137", id="driver-killed-by-sigkill"
            ),
            pytest.param(JobState.FAILED, "", RunState.FAILED, "its job failed", id="failed-without-a-word"),
            pytest.param(JobState.STOPPED, "", RunState.CANCELLED, "its job was stopped", id="ray-job-stop"),
            pytest.param(JobState.SUCCEEDED, "", RunState.SUCCEEDED, "", id="program-of-a-user-that-just-ends"),
        ],
    )
    def test_a_running_run_ends_with_its_job(
        self, q: Queue, job: JobState, message: str, state: RunState, reason: str
    ) -> None:
        """The next step sees what became of the job."""
        run = q.running()
        q.jobs.set(run.id, job, message)

        q.queue.step()

        assert (q.state(run), q.queue.get(run.id).reason) == (state, reason)

    def test_a_job_that_ends_before_its_lease_has_failed(self, q: Queue) -> None:
        """Exit code 0 without having begun is no success."""
        run = q.submit()
        q.queue.step()
        q.jobs.set(run.id, JobState.SUCCEEDED)

        q.queue.step()

        assert q.queue.get(run.id).reason == "its program ended without a result"

    def test_a_plain_driver_that_ends_without_a_result_has_failed(self, q: Queue) -> None:
        """Ray calls every ended driver a success; we do not."""
        q.jobs.set("02000000", JobState.RUNNING)
        run = q.queue.register("02000000", RunRequest(task="train_model"))
        q.queue.step()
        q.queue.start(run.id)
        q.jobs.set("02000000", JobState.SUCCEEDED, is_plain_driver=True)

        q.queue.step()

        assert q.state(run) is RunState.FAILED

    def test_a_waiting_job_that_dies_leaves_the_queue(self, q: Queue) -> None:
        """Ctrl-C while waiting: the next one moves up."""
        q.running()
        q.jobs.set("raysubmit_a", JobState.RUNNING)
        run = q.queue.register("raysubmit_a", RunRequest(task="train_model"))
        q.jobs.set("raysubmit_a", JobState.STOPPED)

        q.queue.step()

        assert q.state(run) is RunState.CANCELLED

    def test_the_hard_limit_stops_the_job(self, q: Queue) -> None:
        """After four hours the job is stopped and the run has timed out."""
        run = q.running()
        q.clock.advance(LANES["ml_training"].hard_limit_s)
        q.queue.step()
        assert q.jobs.stopped == [run.id]

        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()

        ended = q.queue.get(run.id)
        assert (ended.state, ended.reason) == (RunState.TIMED_OUT, "passed its hard limit of 14400 s")

    def test_a_worker_group_that_does_not_start_fails_the_run(self, q: Queue) -> None:
        """Sixty seconds after the lease the run fails with what it takes and what is free."""
        run = q.submit()
        q.queue.step()
        q.queue.lease(run.id)
        q.jobs.used["CPU"] = 2.0
        q.clock.advance(60)
        q.queue.step()
        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()

        ended = q.queue.get(run.id)
        assert ended.state is RunState.FAILED
        assert ended.reason == "its worker group did not start within 60 s; it takes 1 CPU (free 0 of 2)"

    def test_a_job_that_never_asks_for_its_lease_fails(self, q: Queue) -> None:
        """A program that hangs at its start does not hold the lane for hours."""
        run = q.submit()
        q.queue.step()
        q.clock.advance(60)
        q.queue.step()
        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()

        assert q.queue.get(run.id).reason == "its job did not ask for its lease within 60 s"

    def test_a_job_that_ray_refuses_fails_with_its_words(self, q: Queue) -> None:
        """The user reads why."""
        q.jobs.refuse = "no such runtime environment"
        run = q.submit()
        q.queue.step()

        assert "no such runtime environment" in q.queue.get(run.id).reason


class TestAwayAndBack:
    def test_a_launch_that_could_not_be_told_is_repeated(self, q: Queue) -> None:
        """The dashboard was away for a moment: the run still begins."""
        run = q.submit()
        q.queue.step()
        q.jobs.launched.clear()
        q.jobs.forget_all()  # as if the queue had died between its commit and the launch

        q.restart()
        q.queue.step()

        assert [job for job, _ in q.jobs.launched] == [run.id]

    def test_nothing_ends_while_ray_does_not_answer(self, q: Queue) -> None:
        """Silence is not death."""
        run = q.running()
        q.jobs.is_away = True
        q.clock.advance(30)
        q.queue.step()

        assert q.state(run) is RunState.RUNNING

    def test_runs_of_a_ray_that_was_restarted_fail_with_that_reason(self, q: Queue) -> None:
        """Their jobs are unknown to the new Ray."""
        run = q.running()
        waiting = q.submit()
        q.jobs.forget_all()
        q.restart()
        q.queue.step()

        assert (q.state(run), q.queue.get(run.id).reason) == (RunState.FAILED, "Ray was restarted")
        # It had no job yet, so it lost nothing, and the lane is free for it.
        assert q.state(waiting) is RunState.STARTING

    def test_limits_count_from_the_first_lease_whatever_restarts(self, q: Queue) -> None:
        """A driver that asks again, of another process, is told the same two moments."""
        run = q.submit()
        q.queue.step()
        first = q.queue.lease(run.id)
        q.clock.advance(3600)
        q.restart()
        again = q.queue.lease(run.id)
        q.queue.start(run.id)
        q.clock.advance(3600)
        q.restart()

        deadlines = (first.soft_deadline, first.hard_deadline)
        assert (again.soft_deadline, again.hard_deadline) == deadlines
        assert (q.queue.lease(run.id).soft_deadline, q.queue.lease(run.id).hard_deadline) == deadlines

    def test_the_hard_limit_holds_over_restarts_of_the_queue(self, q: Queue) -> None:
        """Also where the queue is away when the limit is passed, and when it dies between asking and being obeyed."""
        run = q.running()
        limit_s = LANES["ml_training"].hard_limit_s
        q.clock.advance(limit_s / 2)
        q.restart()
        q.queue.step()
        assert q.jobs.stopped == []

        q.clock.advance(limit_s / 2)
        q.restart()
        q.queue.step()
        q.restart()
        q.queue.step()
        assert q.jobs.stopped == [run.id, run.id]
        assert not q.queue.lease(run.id).granted

        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()
        assert (q.state(run), q.queue.get(run.id).reason) == (RunState.TIMED_OUT, "passed its hard limit of 14400 s")

    def test_a_restarted_queue_goes_on_watching(self, q: Queue) -> None:
        """The table holds all there is to know, the wish to stop included."""
        run = q.running()
        q.queue.cancel(run.id, "ada")
        q.restart()
        q.queue.step()
        q.jobs.set(run.id, JobState.STOPPED)
        q.queue.step()

        assert q.state(run) is RunState.CANCELLED
