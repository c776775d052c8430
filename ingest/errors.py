"""Errors of the ingest folder: devices, telemetry, detection and alerts."""

from cluster.errors import ClusterError


class IngestError(ClusterError):
    """Any failure of the ingest folder."""


class ScorerError(IngestError):
    """A model version cannot be loaded or does not score as it should."""

    def __init__(self, scorer: str, version: str, reason: str) -> None:
        super().__init__(scorer, version, reason)
        self.scorer = scorer
        self.version = version
        self.reason = reason

    def __str__(self) -> str:
        return f"model {self.scorer}@{self.version} cannot be used: {self.reason}"


class StaleRevisionError(IngestError):
    """A live model's alias was moved by another writer since it was read."""

    def __init__(self, alias: str, expected_revision: int) -> None:
        super().__init__(alias, expected_revision)
        self.alias = alias
        self.expected_revision = expected_revision

    def __str__(self) -> str:
        return f"alias {self.alias!r} is no longer at revision {self.expected_revision}"


class AlertNotFoundError(IngestError):
    """No alert has this id."""

    def __init__(self, alert_id: str) -> None:
        super().__init__(alert_id)
        self.alert_id = alert_id

    def __str__(self) -> str:
        return f"there is no alert {self.alert_id!r}"


class AlertConflictError(IngestError):
    """Another writer changed the alerts again and again; nothing was changed by this call."""

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return f"the alerts were changed by others during each of {self.attempts} attempts"
