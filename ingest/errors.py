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


class BrokerRefusedError(IngestError, ValueError):
    """The MQTT broker answered that it will not take this message: no outage, and no use in trying again."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"MQTT broker at {self.address} refused the message: {self.reason}"


class CommandNotFoundError(IngestError):
    """No command has this id."""

    def __init__(self, command_id: str) -> None:
        super().__init__(command_id)
        self.command_id = command_id

    def __str__(self) -> str:
        return f"there is no command {self.command_id!r}"


class CommandConflictError(IngestError):
    """A request id was used before, for another command."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"the request_id {self.request_id!r} was used for another command"


class DeviceBusyError(IngestError):
    """A device has so many open commands that it gets no further one."""

    def __init__(self, device: str, limit: int) -> None:
        super().__init__(device, limit)
        self.device = device
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} commands of {self.device} are open: wait until some of them have ended"


class DirectoryNotFoundError(IngestError):
    """The directory has no such entry."""

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.title = title

    def __str__(self) -> str:
        return f"there is no {self.title}"


class DirectoryReferenceError(IngestError):
    """An entry speaks of a tenant, a client or a user that the directory does not have."""

    def __init__(self, title: str, missing: str) -> None:
        super().__init__(title, missing)
        self.title = title
        self.missing = missing

    def __str__(self) -> str:
        return f"{self.title}: there is no {self.missing}"


class DirectoryConflictError(IngestError):
    """What other entries say stands in the way of a change."""

    def __init__(self, title: str, reason: str) -> None:
        super().__init__(title, reason)
        self.title = title
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


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


class SilenceNotFoundError(IngestError):
    """No silence has this id."""

    def __init__(self, silence_id: str) -> None:
        super().__init__(silence_id)
        self.silence_id = silence_id

    def __str__(self) -> str:
        return f"there is no silence {self.silence_id!r}"


class HeartbeatNotFoundError(IngestError):
    """No heartbeat has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no heartbeat {self.name!r}"


class VersionConflictError(IngestError):
    """Something is at another version than the caller has seen; nothing was changed."""

    def __init__(self, what: str, expected: dict[str, int], actual: dict[str, int]) -> None:
        super().__init__(what, expected, actual)
        self.what = what
        self.expected = expected
        """Id -> version that the caller named, of those that differ."""
        self.actual = actual
        """The same ids -> version that they have."""

    def __str__(self) -> str:
        first = next(iter(self.expected))
        text = f"{self.what} {first!r} is at version {self.actual[first]}, not {self.expected[first]}"
        return text + (f", and {len(self.expected) - 1} more differ" if len(self.expected) > 1 else "")


class AlertConflictError(IngestError):
    """Another writer changed the alerts again and again; nothing was changed by this call."""

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return f"the alerts were changed by others during each of {self.attempts} attempts"


class RulesFileError(IngestError):
    """A file of rules cannot be used; the rules before it stay in force."""

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems
        """Every mistake found, each with its line and field."""

    def __str__(self) -> str:
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return f"{self.source}, {self.problems[0]}{more}"


class ReceiverUnavailableError(IngestError):
    """A server that is told of alerts is away or broken; counts as an outage of it."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class ReceiverRefusedError(IngestError, ValueError):
    """A server that is told of alerts does not take this message; it lives, so it is no outage."""

    def __init__(self, host: str, status: int, reason: str, retry_after_s: float | None) -> None:
        super().__init__(host, status, reason, retry_after_s)
        self.host = host
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s
        """Pause that it asks for; None: it does not say."""

    def __str__(self) -> str:
        return f"{self.host} answered {self.status} {self.reason}".strip()


class DeadLetterNotFoundError(IngestError):
    """No dead letter has this id."""

    def __init__(self, letter_id: int) -> None:
        super().__init__(letter_id)
        self.letter_id = letter_id

    def __str__(self) -> str:
        return f"there is no dead letter {self.letter_id}"
