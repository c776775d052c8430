"""Errors of the training folder that a caller can act on.

Fields go through ``args`` and text through ``__str__``, so that they survive the pickle
between a Train worker and its driver.
"""

from cluster.errors import ClusterError


class TrainingError(ClusterError):
    """Any failure of a data set, a training run, a model file or the registry."""


class UnknownDatasetError(TrainingError):
    """No data set has this name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"no data set {self.name!r}: {self.reason}"


class DatasetFileError(TrainingError):
    """A file cannot be taken in as a data set, or a data set not be written as such a file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class NotEnoughDataError(TrainingError):
    """The data set is too small to train on and to judge the result."""

    def __init__(self, name: str, part: str, windows: int, needed: int, readings: int, series: int) -> None:
        super().__init__(name, part, windows, needed, readings, series)
        self.name = name
        self.part = part
        self.windows = windows
        self.needed = needed
        self.readings = readings
        self.series = series

    def __str__(self) -> str:
        return (
            f"data set {self.name!r} is too small: {self.windows} windows for {self.part}, {self.needed} needed "
            f"({self.readings} readings of {self.series} series so far); wait for more telemetry "
            "or train on a recorded series such as recorded:nyc_taxi"
        )


class UnknownModelTypeError(TrainingError):
    """No model type has this name."""

    def __init__(self, model_type: str, known: tuple[str, ...]) -> None:
        super().__init__(model_type, known)
        self.model_type = model_type
        self.known = known

    def __str__(self) -> str:
        return f"no model type {self.model_type!r}; there are {', '.join(self.known)}"


class HyperparameterError(TrainingError):
    """A hyperparameter does not exist or has a value that cannot be used."""

    def __init__(self, name: str, value: str, reason: str) -> None:
        super().__init__(name, value, reason)
        self.name = name
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"hyperparameter {self.name}={self.value!r}: {self.reason}"


class ModelFileError(TrainingError):
    """The files of a model version are truncated, foreign or changed; nothing was loaded."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason

    def __str__(self) -> str:
        return f"model at {self.uri} is refused: {self.reason}"


class ModelVersionExistsError(TrainingError):
    """A version of this name exists already; versions are never written twice."""

    def __init__(self, model_type: str, version: str) -> None:
        super().__init__(model_type, version)
        self.model_type = model_type
        self.version = version

    def __str__(self) -> str:
        return f"{self.model_type} version {self.version} exists already and is immutable"


class ModelVersionNotFoundError(TrainingError):
    """No version has this name."""

    def __init__(self, model_type: str, version: str) -> None:
        super().__init__(model_type, version)
        self.model_type = model_type
        self.version = version

    def __str__(self) -> str:
        return f"{self.model_type} has no version {self.version!r}"


class ReportNotFoundError(TrainingError):
    """A version was not judged yet, or not on this data set."""

    def __init__(self, model_type: str, version: str, dataset_id: str) -> None:
        super().__init__(model_type, version, dataset_id)
        self.model_type = model_type
        self.version = version
        self.dataset_id = dataset_id

    def __str__(self) -> str:
        on = f" on data set {self.dataset_id[:12]}" if self.dataset_id else ""
        return (
            f"{self.model_type}@{self.version} has no report{on}: "
            f"python -m training evaluate {self.model_type}:{self.version} --dataset NAME"
        )


class CheckpointError(TrainingError):
    """A checkpoint cannot be used to continue this run."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"checkpoint {self.path} cannot be used: {self.reason}"


class TornCheckpointError(CheckpointError):
    """A checkpoint was not written to its end, or was changed since; the one before it may be whole."""


class SoftLimitReachedError(TrainingError):
    """The run stopped itself at its soft limit; its checkpoint is kept."""

    def __init__(self, run_id: str, epoch: int, epochs: int) -> None:
        super().__init__(run_id, epoch, epochs)
        self.run_id = run_id
        self.epoch = epoch
        self.epochs = epochs

    def __str__(self) -> str:
        return f"soft limit reached in epoch {self.epoch + 1} of {self.epochs}; checkpoint kept"


class WorkersDidNotStartError(TrainingError):
    """The worker group did not start in time; what it waited for is in the text."""

    def __init__(self, timeout_s: float, waits_for: str) -> None:
        super().__init__(timeout_s, waits_for)
        self.timeout_s = timeout_s
        self.waits_for = waits_for

    def __str__(self) -> str:
        return f"the worker group did not start in {self.timeout_s:.0f} s: {self.waits_for}"


class WorkersFailedError(TrainingError):
    """The workers of a run, or what steers them, failed for good."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StaleLeaseError(TrainingError):
    """The question is no longer with the person who answers it."""

    def __init__(self, request_id: str, token: int, reason: str) -> None:
        super().__init__(request_id, token, reason)
        self.request_id = request_id
        self.token = token
        self.reason = reason

    def __str__(self) -> str:
        return f"question {self.request_id} (lease {self.token}): {self.reason}"
