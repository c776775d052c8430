"""Root of the project's errors, and those of the cluster folder.

Fields go through ``args`` and text through ``__str__``: an error crosses processes by
pickle, and a formatted ``super().__init__`` would not survive it.
"""


class ClusterError(Exception):
    """Any failure that the project itself names."""


class SettingsError(ClusterError):
    """A setting has a value that cannot be used."""

    def __init__(self, name: str, value: str, reason: str) -> None:
        super().__init__(name, value, reason)
        self.name = name
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}: {self.reason}"


class ServiceUnavailableError(ClusterError):
    """A service the floor depends on cannot be reached."""

    def __init__(self, service: str, address: str, reason: str) -> None:
        super().__init__(service, address, reason)
        self.service = service
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.service} at {self.address} cannot be reached: {self.reason}"


class UnknownLaneError(ClusterError):
    """No lane has this name."""

    def __init__(self, lane: str, known: tuple[str, ...]) -> None:
        super().__init__(lane, known)
        self.lane = lane
        self.known = known

    def __str__(self) -> str:
        return f"no lane {self.lane!r}; there are {', '.join(self.known)}"


class UnknownTaskError(ClusterError):
    """No task has this name, or it cannot be started as a run."""

    def __init__(self, task: str, known: tuple[str, ...]) -> None:
        super().__init__(task, known)
        self.task = task
        self.known = known

    def __str__(self) -> str:
        return f"no task {self.task!r} to run; there are {', '.join(self.known)}"


class RunNotFoundError(ClusterError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"no run {self.run_id!r}"


class RunStateError(ClusterError):
    """The run is in a state in which this cannot be done."""

    def __init__(self, run_id: str, state: str, action: str) -> None:
        super().__init__(run_id, state, action)
        self.run_id = run_id
        self.state = state
        self.action = action

    def __str__(self) -> str:
        return f"cannot {self.action} run {self.run_id!r}: it is {self.state}"


class CircuitOpenError(ClusterError):
    """A breaker refused the call, because the service failed too often."""

    def __init__(self, service: str, retry_in_s: float) -> None:
        super().__init__(service, retry_in_s)
        self.service = service
        self.retry_in_s = retry_in_s

    def __str__(self) -> str:
        return f"circuit of {self.service!r} is open, next try in {self.retry_in_s:.0f} s"


class CallTimeoutError(ClusterError, TimeoutError):
    """A guarded call ran out of its time."""

    def __init__(self, service: str, timeout_s: float) -> None:
        super().__init__(service, timeout_s)
        self.service = service
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"call of {self.service!r} took longer than {self.timeout_s:g} s"


class SoftLimitExceededError(ClusterError):
    """A task passed its soft limit and should clean up and end."""

    def __init__(self, task: str, limit_s: float) -> None:
        super().__init__(task, limit_s)
        self.task = task
        self.limit_s = limit_s

    def __str__(self) -> str:
        return f"task {self.task!r} passed its soft limit of {self.limit_s:g} s"


class HardLimitExceededError(ClusterError):
    """A task passed its hard limit and was ended."""

    def __init__(self, task: str, limit_s: float) -> None:
        super().__init__(task, limit_s)
        self.task = task
        self.limit_s = limit_s

    def __str__(self) -> str:
        return f"task {self.task!r} was ended at its hard limit of {self.limit_s:g} s"


class TaskCancelledError(ClusterError):
    """A task was cancelled before it gave a result."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"task {self.task!r} was cancelled"


class LaunchRefusedError(ClusterError):
    """Ray will never start this job."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"the job of run {self.run_id!r} cannot be started: {self.reason}"
