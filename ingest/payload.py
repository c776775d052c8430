"""What a device can say: a reading, an alert, a change of presence -- or something unusable.

Types only: ``decoder.py`` makes them from bytes, ``telemetry_redis.py`` and the alert
engine store them. Invariant: an instance has passed every check of the decoder, so its
numbers are finite, its texts are free of NUL and surrogates, and its ``ts`` is a time
that the floor may order by.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import orjson

from ingest.alerts.model import Severity


class Reason(StrEnum):
    """Why a message cannot be used; the closed set of dead-letter reasons and of a metric's label."""

    EMPTY = "empty"
    OVERSIZE = "oversize"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    BAD_NUMBER = "bad_number"
    BAD_TEXT = "bad_text"
    DUPLICATE_KEY = "duplicate_key"
    NOT_OBJECT = "not_object"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    BAD_VALUE = "bad_value"
    BAD_SEVERITY = "bad_severity"
    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_CODEC = "unknown_codec"
    FOREIGN_TENANT = "foreign_tenant"
    REFUSED_BY_STORE = "refused_by_store"


class Flag(StrEnum):
    """What is odd about a message that is used all the same."""

    UNKEYED = "unkeyed"
    """Neither (boot_id, seq) nor a device time: a redelivery cannot be told from a new one, so it is stored again."""
    NO_CLOCK = "no_clock"
    """No device time; ``ts`` is the time of arrival."""
    BAD_CLOCK = "bad_clock"
    """A device time that cannot be true; ``ts`` is the time of arrival."""
    FUTURE = "future"
    """A device time ahead of ours by more than the tolerance; ``ts`` is the time of arrival."""
    LATE = "late"
    """A device time far behind ours; ``ts`` keeps it."""
    UNRELIABLE = "unreliable"
    """Sent with QoS 0: the broker may have dropped others like it."""


class PayloadError(ValueError):
    """A message cannot be used; ``reason`` says why, ``detail`` where (never the payload itself)."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


@dataclass(frozen=True, slots=True)
class Reading:
    """One telemetry payload: the metrics of one device at one time.

    Identified by (tenant, device, boot_id, seq) where ``seq`` is not None, else by
    ``content_key``; with neither every arrival counts.
    """

    tenant: str
    device: str
    boot_id: str
    seq: int | None
    ts: float
    """Device time in seconds since the epoch, or the time of arrival (see ``flags``)."""
    values: dict[str, float]
    recorded_at: str | None
    """Original time of replayed telemetry, as the device sent it (ISO 8601)."""
    received_at: float
    """When ingest received it, seconds since the epoch."""
    flags: tuple[str, ...] = ()
    device_ts: float | None = None
    """What the device's clock said, where ``ts`` is not that (see ``flags``); seconds since the epoch."""
    broker_ts: float | None = None
    """When the broker received it, where the broker says so; seconds since the epoch."""
    content_key: bytes | None = field(default=None, compare=False)
    """Hash of device, device time and content, where there is no ``seq`` but a device time; not stored."""

    @property
    def is_keyed(self) -> bool:
        """Say whether a repetition of it can be told from a new reading."""
        return self.seq is not None or self.content_key is not None


@dataclass(frozen=True, slots=True)
class DeviceAlert:
    """One alert that a device raised by itself.

    Identified by (tenant, device, boot_id, seq) where ``seq`` is not None, else by
    ``content_key``; alerts and readings count separately.
    """

    tenant: str
    device: str
    boot_id: str
    seq: int | None
    ts: float
    alert_type: str
    severity: Severity
    message: str
    received_at: float
    metric: str | None = None
    value: float | None = None
    threshold: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    recorded_at: str | None = None
    flags: tuple[str, ...] = ()
    content_key: bytes | None = field(default=None, compare=False)
    """As of a reading."""

    @property
    def key(self) -> str | None:
        """What makes two arrivals the same alert; None: nothing does."""
        if self.seq is not None:
            return f"alert:{self.tenant}/{self.device}:{self.boot_id}/{self.seq}"
        return None if self.content_key is None else f"alert:{self.tenant}/{self.device}#{self.content_key.hex()}"

    @property
    def is_keyed(self) -> bool:
        """Say whether a repetition of it can be told from a new alert."""
        return self.seq is not None or self.content_key is not None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A device's retained birth or its last will."""

    tenant: str
    device: str
    online: bool
    received_at: float
    is_retained: bool = False
    """The broker's copy of an earlier announcement, sent because we subscribed."""


def encode_reading(reading: Reading) -> bytes:
    """Return the form in which a reading lies in the telemetry stream."""
    # As a dict: orjson takes twice as long for a dataclass with slots.
    fields = {
        "tenant": reading.tenant,
        "device": reading.device,
        "boot_id": reading.boot_id,
        "seq": reading.seq,
        "ts": reading.ts,
        "values": reading.values,
        "recorded_at": reading.recorded_at,
        "received_at": reading.received_at,
        "flags": reading.flags,
    }
    # Rare, and each of them costs Valkey's memory with every reading.
    if reading.device_ts is not None:
        fields["device_ts"] = reading.device_ts
    if reading.broker_ts is not None:
        fields["broker_ts"] = reading.broker_ts
    return orjson.dumps(fields)


def decode_reading(data: bytes) -> Reading:
    """Return the reading that ``encode_reading`` wrote."""
    fields = orjson.loads(data)
    fields["flags"] = tuple(fields["flags"])
    return Reading(**fields)
