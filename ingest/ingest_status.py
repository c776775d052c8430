"""What ingest says of itself."""

from dataclasses import dataclass, field

from ingest.store_bounds import StoreReport


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """What ingest is doing, for people; sent to the NOC once a second."""

    rate: float
    """Readings stored per second, over the last tick."""
    window: int
    """Messages received and not yet acknowledged."""
    lag_s: float
    """How long the oldest of them has waited."""
    readings_total: int
    """Readings ever stored in the floor's stream."""
    alerts_total: int
    """Device alerts stored by this process."""
    dead_letters: int
    """Dead letters in the store, repetitions counted."""
    duplicates_total: int
    """Readings that came again to this process and were stored once."""
    devices_online: int
    broker_connected: bool
    broker: str
    mqtt_version: str
    """Spoken with the broker, or tried next."""
    broker_problem: str | None
    blocked: dict[str, str]
    """Lanes that stopped acknowledging, with the reason; empty when all is well."""
    stores: dict[str, StoreReport] = field(default_factory=dict)
    """Where each store stands to its bound."""
