"""Errors of the ingest folder that a caller can act on."""

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


class StoreUnsafeError(IngestError):
    """A store is configured so that it may lose what it confirmed; ingest refuses to use it."""

    def __init__(self, store: str, option: str, value: str, wanted: str) -> None:
        super().__init__(store, option, value, wanted)
        self.store = store
        self.option = option
        self.value = value
        self.wanted = wanted

    def __str__(self) -> str:
        return f"store {self.store} has {self.option}={self.value}; set it to {self.wanted}"


class BrokerUnavailableError(IngestError):
    """The MQTT broker did not take a message in time; whether it will be delivered is unknown."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"MQTT broker at {self.address}: {self.reason}"
