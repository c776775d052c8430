"""From a payload's bytes to what the device said, or the reason why it cannot be used.

Pure and fast: one payload, no memory of earlier ones, no clock (the time of arrival comes
in). It trusts nothing: fields that are not asked for are refused, and tenant and device come
from the topic alone. Invariant: the only exception it raises is ``PayloadError``.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from ingest.alerts.model import Severity
from ingest.codecs import JSON, Codec
from ingest.payload import AckStatus, CommandAck, DeviceAlert, Flag, PayloadError, Reading, Reason, StateChange
from ingest.strict_json import count_texts, count_texts_within
from ingest.topics import Topic

EARLIEST_S = 946_684_800.0
"""2000-01-01: a device time before it is a clock that was never set (or seconds for milliseconds)."""
MAX_SEQ = 2**53 - 1
"""Above it a JavaScript reader of our JSON would see another number."""
MAX_METRICS = 256
MAX_LABELS = 32
MAX_MESSAGE_CHARS = 2000
MAX_LABEL_CHARS = 256
MAX_DETAILS_BYTES = 4096
"""As compact JSON: with the alert itself it must fit into a publication, and into the history of every repetition."""
MAX_TIME_CHARS = 40
KNOWN_NAMES_LIMIT = 10_000
CONTENT_KEY_BYTES = 16

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_TELEMETRY_FIELDS = frozenset({"ts", "boot_id", "seq", "values", "recorded_at"})
_ALERT_FIELDS = frozenset(
    {"ts", "boot_id", "seq", "alert_type", "severity", "message", "metric", "value", "threshold", "labels"}
    | {"details", "recorded_at"}
)
_STATE_FIELDS = frozenset({"online", "ts", "boot_id", "seq"})
_ACK_FIELDS = frozenset({"command_id", "status", "detail", "ts", "boot_id", "seq"})
_known_names: set[str] = set()
"""Names that passed the pattern before; devices repeat themselves, and a look here is ten times as fast."""
_SEVERITIES = {str(severity): severity for severity in Severity}
_ACK_STATUSES = {str(status): status for status in AckStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockTolerance:
    """How far a device's clock may be off before its time is flagged."""

    future_s: float = 60.0
    """Ahead of ours by more: the time of arrival is used instead."""
    late_s: float = 3600.0
    """Behind ours by more: kept, and flagged as late."""

    def __post_init__(self) -> None:
        if self.future_s < 0 or self.late_s < 0:
            raise ValueError("future_s and late_s must not be negative")


class Decoder:
    """Turns payloads into readings, alerts, presence and answers to commands."""

    def __init__(self, tolerance: ClockTolerance) -> None:
        self._tolerance = tolerance

    def reading(
        self,
        topic: Topic,
        data: bytes,
        received_at: float,
        qos: int = 1,
        codec: Codec = JSON,
        broker_ts: float | None = None,
    ) -> Reading:
        """Return the reading in a telemetry payload.

        Raises:
            PayloadError: it is none.
        """
        document = codec.load(data)
        if not document.keys() <= _TELEMETRY_FIELDS:
            raise _unknown_field(document, _TELEMETRY_FIELDS)
        values = _values(document)
        codec.check(data, count_texts(document) + len(values))
        boot_id, seq = _key(document)
        ts, device_ts, flags = self._device_time(document.get("ts"), received_at)
        content_key = _content_key(topic, data, flags) if seq is None else None
        if qos == 0:
            flags.append(Flag.UNRELIABLE)
        return Reading(
            topic.tenant,
            topic.device,
            boot_id,
            seq,
            ts,
            values,
            _recorded_at(document),
            received_at,
            tuple(flags),
            device_ts,
            broker_ts,
            content_key,
        )

    def alert(self, topic: Topic, data: bytes, received_at: float, qos: int = 1, codec: Codec = JSON) -> DeviceAlert:
        """Return the alert in an alert payload.

        Raises:
            PayloadError: it is none.
        """
        document = codec.load(data)
        if not document.keys() <= _ALERT_FIELDS:
            raise _unknown_field(document, _ALERT_FIELDS)
        severity = _required(document, "severity")
        if type(severity) is not str or severity not in _SEVERITIES:
            raise PayloadError(Reason.BAD_SEVERITY, f"must be one of {', '.join(_SEVERITIES)}")
        alert_type = _name(_required(document, "alert_type"), "alert_type")
        message = _free_text(_required(document, "message"), "message", MAX_MESSAGE_CHARS)
        metric = document.get("metric")
        labels = _labels(document.get("labels"))
        details = document.get("details")
        num_texts = count_texts(document) + 2 * len(labels)
        if details is not None:
            num_texts += _check_details(details)
        codec.check(data, num_texts)
        boot_id, seq = _key(document)
        ts, _, flags = self._device_time(document.get("ts"), received_at)
        content_key = _content_key(topic, data, flags) if seq is None else None
        if qos == 0:
            flags.append(Flag.UNRELIABLE)
        return DeviceAlert(
            tenant=topic.tenant,
            device=topic.device,
            boot_id=boot_id,
            seq=seq,
            ts=ts,
            alert_type=alert_type,
            severity=_SEVERITIES[severity],
            message=message,
            received_at=received_at,
            metric=None if metric is None else _name(metric, "metric"),
            value=_optional_number(document, "value"),
            threshold=_optional_number(document, "threshold"),
            labels=labels,
            details=details,
            recorded_at=_recorded_at(document),
            flags=tuple(flags),
            content_key=content_key,
        )

    def state(self, topic: Topic, data: bytes, received_at: float, codec: Codec = JSON) -> StateChange:
        """Return the presence in a state payload.

        Raises:
            PayloadError: it is none.
        """
        document = codec.load(data)
        if not document.keys() <= _STATE_FIELDS:
            raise _unknown_field(document, _STATE_FIELDS)
        online = _required(document, "online")
        if type(online) is not bool:
            raise PayloadError(Reason.WRONG_TYPE, "online must be true or false")
        codec.check(data, count_texts(document))
        return StateChange(topic.tenant, topic.device, online, received_at)

    def command_ack(
        self, topic: Topic, data: bytes, received_at: float, correlation: bytes = b"", codec: Codec = JSON
    ) -> CommandAck:
        """Return the answer to a command in an acknowledgement's payload.

        Args:
            correlation: correlation data of MQTT 5, which names the command where the payload does not.

        Raises:
            PayloadError: it is none.
        """
        document = codec.load(data)
        if not document.keys() <= _ACK_FIELDS:
            raise _unknown_field(document, _ACK_FIELDS)
        status = _required(document, "status")
        if type(status) is not str or status not in _ACK_STATUSES:
            raise PayloadError(Reason.BAD_VALUE, f"status must be one of {', '.join(_ACK_STATUSES)}")
        detail = document.get("detail")
        codec.check(data, count_texts(document))
        return CommandAck(
            tenant=topic.tenant,
            device=topic.device,
            command_id=_command_id(document.get("command_id"), correlation),
            status=_ACK_STATUSES[status],
            detail="" if detail is None else _free_text(detail, "detail", MAX_MESSAGE_CHARS),
            received_at=received_at,
        )

    def _device_time(self, value: Any, received_at: float) -> tuple[float, float | None, list[Flag]]:
        """Return the time to order by, what the device's clock said where that is another, and why."""
        if value is None:
            return received_at, None, [Flag.NO_CLOCK]
        if type(value) is int or type(value) is float:
            ts = value / 1000
        elif type(value) is str:
            ts = seconds_of(value)
        else:
            raise PayloadError(Reason.WRONG_TYPE, "ts must be milliseconds or an ISO 8601 text")
        if ts < EARLIEST_S:
            return received_at, float(ts), [Flag.BAD_CLOCK]
        if ts > received_at + self._tolerance.future_s:
            return received_at, float(ts), [Flag.FUTURE]
        if ts < received_at - self._tolerance.late_s:
            return float(ts), None, [Flag.LATE]
        return float(ts), None, []


def _required(document: Mapping[str, Any], field: str) -> Any:
    try:
        return document[field]
    except KeyError:
        raise PayloadError(Reason.MISSING_FIELD, field) from None


def _unknown_field(document: Mapping[str, Any], known: frozenset[str]) -> PayloadError:
    # Our own names only: a stranger's key is payload, and payload goes into no log.
    return PayloadError(Reason.UNKNOWN_FIELD, f"{len(document.keys() - known)} besides {', '.join(sorted(known))}")


def _values(document: Mapping[str, Any]) -> dict[str, float]:
    values = _required(document, "values")
    if type(values) is not dict:
        raise PayloadError(Reason.WRONG_TYPE, "values must be an object")
    if not 0 < len(values) <= MAX_METRICS:
        raise PayloadError(Reason.BAD_VALUE, f"values must name 1-{MAX_METRICS} metrics, got {len(values)}")
    for metric, value in values.items():
        if type(value) is not float:
            if type(value) is not int:
                raise PayloadError(Reason.WRONG_TYPE, "every value must be a number")
            values[metric] = float(value)
        if metric not in _known_names and not _is_name(metric):
            raise PayloadError(Reason.BAD_VALUE, "a metric's name must be 1-64 of [A-Za-z0-9_.:-]")
    return values


def _key(document: Mapping[str, Any]) -> tuple[str, int | None]:
    boot_id = document.get("boot_id")
    seq = document.get("seq")
    if boot_id is not None:
        _name(boot_id, "boot_id")
    if seq is not None:
        if type(seq) is not int:
            raise PayloadError(Reason.WRONG_TYPE, "seq must be a whole number")
        if not 0 <= seq <= MAX_SEQ:
            raise PayloadError(Reason.BAD_VALUE, "seq must be 0 to 2^53 - 1")
    if boot_id is None or seq is None:
        # A number without a boot starts again with the device: as a key it would hide new readings.
        return boot_id or "", None
    return boot_id, seq


def _content_key(topic: Topic, data: bytes, flags: list[Flag]) -> bytes | None:
    """Return the second-best key, or None with a flag: content alone is none.

    A clock that runs tells two equal readings apart; one that is missing or was never set does not.
    """
    if Flag.NO_CLOCK in flags or Flag.BAD_CLOCK in flags:
        flags.append(Flag.UNKEYED)
        return None
    # The device's time is part of the bytes.
    return hashlib.blake2b(f"{topic.tenant}/{topic.device}\0".encode() + data, digest_size=CONTENT_KEY_BYTES).digest()


def _command_id(value: Any, correlation: bytes) -> str:
    if value is None and not correlation:
        raise PayloadError(Reason.MISSING_FIELD, "command_id")
    named = [_name(value, "command_id")] if value is not None else []
    if correlation:
        named.append(_name(correlation.decode("utf-8", "replace"), "the correlation data"))
    if len(set(named)) > 1:
        raise PayloadError(Reason.BAD_VALUE, "command_id and the correlation data differ")
    return named[0]


def _name(value: Any, field: str) -> str:
    if type(value) is not str:
        raise PayloadError(Reason.WRONG_TYPE, f"{field} must be a text")
    if value not in _known_names and not _is_name(value):
        raise PayloadError(Reason.BAD_VALUE, f"{field} must be 1-64 of [A-Za-z0-9_.:-]")
    return value


def _is_name(text: str) -> bool:
    if not _NAME.fullmatch(text):
        return False
    if len(_known_names) >= KNOWN_NAMES_LIMIT:
        _known_names.clear()
    _known_names.add(text)
    return True


def _free_text(value: Any, field: str, limit: int) -> str:
    if type(value) is not str:
        raise PayloadError(Reason.WRONG_TYPE, f"{field} must be a text")
    if not 0 < len(value) <= limit:
        raise PayloadError(Reason.BAD_VALUE, f"{field} must have 1-{limit} characters, got {len(value)}")
    if "\0" in value:
        raise PayloadError(Reason.BAD_TEXT, f"NUL in {field}")
    return value


def _labels(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise PayloadError(Reason.WRONG_TYPE, "labels must be an object")
    if len(value) > MAX_LABELS:
        raise PayloadError(Reason.BAD_VALUE, f"at most {MAX_LABELS} labels, got {len(value)}")
    return {_name(key, "a label's name"): _free_text(text, "a label", MAX_LABEL_CHARS) for key, text in value.items()}


def _check_details(value: Any) -> int:
    """Return the number of texts in an alert's details, which may say anything that JSON can, within bounds."""
    if type(value) is not dict:
        raise PayloadError(Reason.WRONG_TYPE, "details must be an object")
    num_texts = count_texts_within(value)
    num_bytes = len(orjson.dumps(value))
    if num_bytes > MAX_DETAILS_BYTES:
        raise PayloadError(Reason.BAD_VALUE, f"details must have at most {MAX_DETAILS_BYTES} bytes, got {num_bytes}")
    return num_texts


def _optional_number(document: Mapping[str, Any], field: str) -> float | None:
    value = document.get(field)
    if value is None:
        return None
    if type(value) is not int and type(value) is not float:
        raise PayloadError(Reason.WRONG_TYPE, f"{field} must be a number")
    return float(value)


def _recorded_at(document: Mapping[str, Any]) -> str | None:
    value = document.get("recorded_at")
    if value is None:
        return None
    if type(value) is not str:
        raise PayloadError(Reason.WRONG_TYPE, "recorded_at must be a text")
    if seconds_of(value) == 0.0:
        raise PayloadError(Reason.BAD_VALUE, "recorded_at must be an ISO 8601 time")
    return value


def seconds_of(text: str) -> float:
    """Return seconds since the epoch; 0 for a text that is no time. Without an offset it is UTC."""
    if len(text) > MAX_TIME_CHARS:
        return 0.0
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
