"""Settings of ingest."""

from dataclasses import dataclass

from ingest.directory import MAX_UNKNOWN
from ingest.shares import check_tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """Batches, queues and housekeeping of ingest."""

    actors: int = 1
    """Ingest actors of the floor; more than one share the work where the broker has shared subscriptions."""
    tenants: tuple[str, ...] = ()
    """Tenants to deal out to several actors where the broker has none, comma-separated; every other one is the
    first actor's."""
    telemetry_batch: int = 500
    """Readings stored together."""
    telemetry_batch_bytes: int = 4 * 1024 * 1024
    """Payload bytes stored together."""
    telemetry_linger_s: float = 0.02
    """How long a batch of readings waits for more, in seconds; alerts never wait."""
    alert_batch: int = 256
    """Alerts committed together when so many are there at once."""
    queue_count: int = 8192
    """Messages that may wait for each store; above it ingest stops reading."""
    queue_bytes: int = 64 * 1024 * 1024
    """Payload bytes that may wait for each store."""
    future_s: float = 60.0
    """A device time ahead of ours by more is replaced by the time of arrival, in seconds."""
    late_s: float = 3600.0
    """A device time behind ours by more is flagged, in seconds."""
    offline_after_s: float = 900.0
    """A device that nothing was heard of for so long is offline though no last will came, in seconds; 0: never."""
    unknown_devices: int = MAX_UNKNOWN
    """Devices in the directory that nobody registered; what further ones send is stored, but they are not listed."""
    tick_s: float = 1.0
    """Pace of status messages and watchdogs, in seconds."""
    directory_s: float = 5.0
    """Pace at which the directory learns who was heard of, in seconds."""

    def __post_init__(self) -> None:
        for name in ("actors", "telemetry_batch", "telemetry_batch_bytes", "alert_batch", "queue_count", "queue_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_tenants(self.tenants)
        if self.unknown_devices < 0:
            raise ValueError(f"unknown_devices must not be negative, got {self.unknown_devices}")
        if self.offline_after_s < 0:
            raise ValueError(f"offline_after_s must not be negative, got {self.offline_after_s}")
        for name in ("tick_s", "directory_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
