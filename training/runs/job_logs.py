"""What a run's driver and workers wrote, as its Ray Job keeps it.

Ray shell. Invariant: a run whose job never began or was cleaned up says so instead of being silent.
"""

import asyncio
from collections.abc import Iterator

from ray.job_submission import JobSubmissionClient

from cluster.errors import ServiceUnavailableError
from cluster.ray_jobs import dashboard_url
from cluster.runs import Run

SERVICE = "ray"


def read_logs(run: Run, *, follow: bool = False) -> Iterator[str]:
    """Yield the log so far; with ``follow`` also what comes, until the job has ended.

    Raises:
        ServiceUnavailableError: Ray's job server does not answer, or it has no such job (any more).
    """
    try:
        client = JobSubmissionClient(dashboard_url())
        if not follow:
            yield client.get_job_logs(run.submission_id)
            return
        following = client.tail_job_logs(run.submission_id)
        loop = asyncio.new_event_loop()
        try:
            while True:
                yield loop.run_until_complete(following.__anext__())
        except StopAsyncIteration:
            return
        finally:
            loop.close()
    except (RuntimeError, ConnectionError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        text = f"no log of run {run.id} ({run.state.value}): {reason}"
        raise ServiceUnavailableError(SERVICE, dashboard_url(), text) from error
