"""Hand-written stand-ins of the cluster folder's seams: time and jobs."""

from collections.abc import Sequence

from cluster.admission import Capacity
from cluster.errors import LaunchRefusedError, ServiceUnavailableError
from cluster.job_backend import JobReport, JobState
from cluster.runs import Run


class FakeClock:
    """Both clocks of a process; they move only when a test says so."""

    def __init__(self, time_s: float = 1_700_000_000.0) -> None:
        self._time_s = time_s
        self._monotonic_s = 1000.0

    def time_s(self) -> float:
        return self._time_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        self._time_s += seconds
        self._monotonic_s += seconds


class FakeJobs:
    """A ``JobBackend`` whose jobs do what the test says."""

    def __init__(self, cpus: float = 2.0) -> None:
        self.reports: dict[str, JobReport] = {}
        self.launched: list[tuple[str, str]] = []
        self.stopped: list[str] = []
        self.total: dict[str, float] = {
            "CPU": cpus,
            "ml_training": 1.0,
            "ai_processing": 4.0,
            "general": 8.0,
            "external": 4.0,
        }
        self.used: dict[str, float] = {}
        self.holds: dict[str, list[str]] = {}
        self.refuse = ""
        self.is_away = False

    def launch(self, run: Run, entrypoint: str) -> None:
        if self.is_away:
            raise ServiceUnavailableError("jobs", "fake", "away")
        if self.refuse:
            raise LaunchRefusedError(run.id, self.refuse)
        self.launched.append((run.submission_id, entrypoint))
        self.set(run.submission_id, JobState.RUNNING)

    def stop(self, submission_id: str) -> None:
        if self.is_away:
            raise ServiceUnavailableError("jobs", "fake", "away")
        self.stopped.append(submission_id)

    def report(self, submission_id: str) -> JobReport:
        if self.is_away:
            return JobReport(state=JobState.UNREACHABLE, message="jobs are away")
        return self.reports.get(submission_id, JobReport(state=JobState.UNKNOWN))

    def capacity(self) -> Capacity | None:
        if self.is_away:
            return None
        available = {name: amount - self.used.get(name, 0.0) for name, amount in self.total.items()}
        return Capacity(total=self.total, available=available)

    def holders(self, resource: str) -> Sequence[str]:
        return self.holds.get(resource, [])

    def set(self, submission_id: str, state: JobState, message: str = "", *, is_plain_driver: bool = False) -> None:
        """Let a job be in ``state``."""
        self.reports[submission_id] = JobReport(state=state, message=message, is_plain_driver=is_plain_driver)

    def forget_all(self) -> None:
        """Be a Ray that was started anew."""
        self.reports.clear()
