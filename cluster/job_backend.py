"""What the run queue needs of the cluster: jobs that start, stop and report, and what is free.

The seam between the queue, which decides, and Ray (``ray_jobs.py``), which does. No
logic. Invariant: a job is known by its submission id, chosen by who launches it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cluster.admission import Capacity
from cluster.runs import Run


class JobState(StrEnum):
    """What Ray says of a job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """Ray has no such job."""
    UNREACHABLE = "unreachable"
    """Ray did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What Ray says of a job, and its own words for it."""

    state: JobState
    message: str = ""
    is_plain_driver: bool = False
    """A driver that is no Ray Job: its end says nothing about success."""


class JobBackend(Protocol):
    """Runs jobs. Guarantee: every call ends within seconds, and launching twice launches once."""

    def launch(self, run: Run, entrypoint: str) -> None:
        """Start the job of ``run`` under its submission id.

        Raises:
            LaunchRefusedError: it can never be started.
            ServiceUnavailableError: not now.
        """
        ...

    def stop(self, submission_id: str) -> None:
        """Ask a job to stop; one that is gone already is fine.

        Raises:
            ServiceUnavailableError: not now.
        """
        ...

    def report(self, submission_id: str) -> JobReport:
        """Say how a job does."""
        ...

    def capacity(self) -> Capacity | None:
        """Return what the cluster has; None when it does not answer."""
        ...

    def holders(self, resource: str) -> Sequence[str]:
        """Name what holds ``resource``, for people."""
        ...
