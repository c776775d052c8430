"""Errors of the ingest folder: devices, telemetry, detection and alerts."""

from cluster.errors import ClusterError


class IngestError(ClusterError):
    """Any failure on the way of a device's message, or of a command back to it."""


class StoreUnavailableError(IngestError):
    """A durable store cannot take data now; the same data may be offered again later."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"store {self.store} is unavailable: {self.reason}"


class StoreFullError(StoreUnavailableError):
    """A durable store reached its bound; it takes data again when its consumers have caught up."""

    def __str__(self) -> str:
        return f"store {self.store} is full: {self.reason}"


class StoreRefusedError(IngestError):
    """A store will never take this item: what it holds is at fault, not the store."""

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"store {self.store} refused an item: {self.reason}"


class StoreUnsafeError(StoreUnavailableError):
    """A store is configured so that it may lose what it confirmed; ingest waits until that is changed."""

    def __init__(self, store: str, option: str, value: str, wanted: str) -> None:
        super().__init__(store, f"{option} is {value}, set it to {wanted}")
        self.args = (store, option, value, wanted)
        self.option = option
        self.value = value
        self.wanted = wanted

    def __str__(self) -> str:
        return f"store {self.store} may lose what it confirmed: {self.reason}"


class BrokerUnavailableError(IngestError):
    """The MQTT broker did not take a message in time; whether it will be delivered is unknown."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"MQTT broker at {self.address}: {self.reason}"


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


class DeadLetterNotFoundError(IngestError):
    """No dead letter has this id."""

    def __init__(self, letter_id: int) -> None:
        super().__init__(letter_id)
        self.letter_id = letter_id

    def __str__(self) -> str:
        return f"there is no dead letter {self.letter_id}"
