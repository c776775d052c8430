"""The run queue's jobs as Ray Jobs, and what the Ray cluster has free.

The only file that speaks Ray's job API. Keeps nothing. Invariant: every request ends
within ``REQUEST_TIMEOUT_S``; a job that Ray does not know and a Ray that does not answer
are told apart.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray._private.worker import get_dashboard_url
from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from cluster.admission import Capacity
from cluster.errors import LaunchRefusedError, ServiceUnavailableError
from cluster.job_backend import JobReport, JobState
from cluster.run_queue_client import RUN_ID_VARIABLE
from cluster.runs import Run

logger = logging.getLogger(__name__)

DASHBOARD_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's own name for it; the supervisor exports it to every process of the floor."""
REQUEST_TIMEOUT_S = 5.0
SERVICE = "Ray's job server"

STATES = {
    JobStatus.PENDING: JobState.PENDING,
    JobStatus.RUNNING: JobState.RUNNING,
    JobStatus.STOPPED: JobState.STOPPED,
    JobStatus.SUCCEEDED: JobState.SUCCEEDED,
    JobStatus.FAILED: JobState.FAILED,
}


class _BoundedClient(JobSubmissionClient):
    """Ray's client sends its requests without a timeout, so a stopped dashboard would hang the queue."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **({"timeout": REQUEST_TIMEOUT_S} | options))


class RayJobs:
    """The ``JobBackend`` on Ray Jobs."""

    def __init__(self, dashboard_url: str, env_vars: Mapping[str, str] | None = None) -> None:
        """Say where jobs are taken, and what every launched one finds in its environment."""
        self._url = dashboard_url
        self._env_vars = dict(env_vars or {})
        self._client: JobSubmissionClient | None = None

    def launch(self, run: Run, entrypoint: str) -> None:
        """Start the job of ``run`` under its submission id.

        No working directory is uploaded: the project is installed wherever Ray runs.

        Raises:
            LaunchRefusedError: it can never be started.
            ServiceUnavailableError: not now.
        """
        variables = self._env_vars | {
            RUN_ID_VARIABLE: run.id,
            "WATCHFLOOR_RUN_SOFT_LIMIT_S": f"{run.soft_limit_s:g}",
            "WATCHFLOOR_RUN_HARD_LIMIT_S": f"{run.hard_limit_s:g}",
        }
        try:
            self._connected().submit_job(
                entrypoint=entrypoint,
                submission_id=run.submission_id,
                runtime_env={"env_vars": variables},
                metadata={"run_id": run.id, "task": run.task, "lane": run.lane, "user_id": run.user_id},
            )
        except (OSError, RuntimeError) as error:
            text = str(error)
            if "already exists" in text:
                return  # launched before the queue could note it
            if "status code 4" in text:
                raise LaunchRefusedError(run.id, _first_line(text)) from error
            raise self._unavailable(error) from error

    def stop(self, submission_id: str) -> None:
        """Ask a job to stop; one that is gone already is fine.

        Raises:
            ServiceUnavailableError: not now.
        """
        try:
            self._connected().stop_job(submission_id)
        except (OSError, RuntimeError) as error:
            if "status code 404" in str(error) or "status code 400" in str(error):
                return  # unknown, or a plain driver: that one ends itself when it is told
            raise self._unavailable(error) from error

    def stop_launched(self) -> None:
        """Ask every job that a queue has launched, and that has not ended, to stop.

        Raises:
            ServiceUnavailableError: not now.
        """
        try:
            jobs = self._connected().list_jobs()
        except (OSError, RuntimeError) as error:
            raise self._unavailable(error) from error
        for job in jobs:
            if "run_id" in (job.metadata or {}) and not JobStatus(job.status).is_terminal() and job.submission_id:
                self.stop(job.submission_id)

    def report(self, submission_id: str) -> JobReport:
        """Say how a job does."""
        try:
            info = self._connected().get_job_info(submission_id)
        except (OSError, RuntimeError) as error:
            if "status code 404" in str(error):
                return JobReport(state=JobState.UNKNOWN)
            return JobReport(state=JobState.UNREACHABLE, message=_first_line(str(self._unavailable(error))))
        except ServiceUnavailableError as error:
            return JobReport(state=JobState.UNREACHABLE, message=_first_line(str(error)))
        return JobReport(
            state=STATES[JobStatus(info.status)],
            message=_first_line(info.message or ""),
            is_plain_driver=info.submission_id is None,
        )

    def capacity(self) -> Capacity | None:
        """Return what the cluster has; None when it does not answer."""
        try:
            total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            return Capacity(total=total, available=available)
        except RayError as error:
            logger.warning("Ray does not say what is free: %s", error)
            return None

    def holders(self, resource: str) -> Sequence[str]:
        """Name the actors that hold ``resource``, for people."""
        try:
            actors = list_actors(
                address=self._url, filters=[("state", "=", "ALIVE")], detail=True, timeout=int(REQUEST_TIMEOUT_S)
            )
        except (OSError, RuntimeError, RayStateApiException) as error:
            logger.warning("Ray does not say who holds %s: %s", resource, error)
            return []
        held = [((actor.required_resources or {}).get(resource, 0), actor.name or actor.class_name) for actor in actors]
        return [f"{name} ({amount:g})" for amount, name in held if amount > 0]

    def _connected(self) -> JobSubmissionClient:
        if self._client is None:
            try:
                self._client = _BoundedClient(self._url)
            except (OSError, RuntimeError) as error:
                raise self._unavailable(error) from error
        return self._client

    def _unavailable(self, error: Exception) -> ServiceUnavailableError:
        return ServiceUnavailableError(SERVICE, self._url, _first_line(str(error)))


def dashboard_url() -> str:
    """Return where this floor's Ray takes jobs: as the environment says, else as the connected Ray does."""
    return os.environ.get(DASHBOARD_VARIABLE) or f"http://{get_dashboard_url()}"  # type: ignore[no-untyped-call]


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0][:500] if lines else ""
