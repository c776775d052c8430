"""Payloads that cannot be used, with the reason each must get; shared by unit and integration tests.

The catalogue's numbers (B1-B27) are those of the reliability notes.
"""

from dataclasses import dataclass

import orjson

from ingest.payload import Reason


@dataclass(frozen=True)
class BadPayload:
    """One case."""

    name: str
    payload: bytes
    reason: Reason
    kind: str = "telemetry"


def telemetry(**fields: object) -> bytes:
    """Return a good telemetry payload with some fields replaced; ``...`` leaves one out."""
    return _document({"ts": 1_790_000_000_000, "boot_id": "b1", "seq": 1, "values": {"temp": 20.5}}, fields)


def alert(**fields: object) -> bytes:
    """Return a good alert payload with some fields replaced; ``...`` leaves one out."""
    good = {"ts": 1_790_000_000_000, "boot_id": "b1", "seq": 1, "alert_type": "leak", "severity": "high"}
    return _document({**good, "message": "Water on the floor"}, fields)


def _document(good: dict[str, object], fields: dict[str, object]) -> bytes:
    return orjson.dumps({name: value for name, value in {**good, **fields}.items() if value is not ...})


BAD_PAYLOADS = [
    BadPayload("b1-empty", b"", Reason.EMPTY),
    BadPayload("b1-spaces", b" \n\t ", Reason.EMPTY),
    BadPayload("b2-latin1", b'{"ts":1,"values":{"temp":"\xe9"}}', Reason.NOT_UTF8),
    BadPayload("b2-random-bytes", bytes(range(128, 256)), Reason.NOT_UTF8),
    BadPayload("b2-overlong", b'{"a":"\xc0\xaf"}', Reason.NOT_UTF8),
    BadPayload("b3-word", b"hello", Reason.NOT_JSON),
    BadPayload("b3-truncated", telemetry()[:-5], Reason.NOT_JSON),
    BadPayload("b3-trailing", telemetry() + b"x", Reason.NOT_JSON),
    BadPayload("b3-two-documents", telemetry() * 2, Reason.NOT_JSON),
    BadPayload("b3-single-quotes", b"{'values': {'temp': 1}}", Reason.NOT_JSON),
    BadPayload("b3-comment", b'{"values":{"temp":1} /* hot */}', Reason.NOT_JSON),
    BadPayload("b3-trailing-comma", b'{"values":{"temp":1},}', Reason.NOT_JSON),
    BadPayload("b3-control-character", b'{"boot_id":"a\x01b","values":{"temp":1}}', Reason.NOT_JSON),
    BadPayload("b3-nul-byte", b"\x00", Reason.NOT_JSON),
    BadPayload("b4-number", b"42", Reason.NOT_OBJECT),
    BadPayload("b4-text", b'"hello"', Reason.NOT_OBJECT),
    BadPayload("b4-null", b"null", Reason.NOT_OBJECT),
    BadPayload("b4-array", b"[" + telemetry() + b"]", Reason.NOT_OBJECT),
    BadPayload("b5-no-values", telemetry(values=...), Reason.MISSING_FIELD),
    BadPayload("b5-extra-field", telemetry(is_admin=True), Reason.UNKNOWN_FIELD),
    BadPayload("b5-values-list", telemetry(values=[1, 2]), Reason.WRONG_TYPE),
    BadPayload("b5-values-null", telemetry(values=None), Reason.WRONG_TYPE),
    BadPayload("b5-values-empty", telemetry(values={}), Reason.BAD_VALUE),
    BadPayload("b5-value-text", telemetry(values={"temp": "20.5"}), Reason.WRONG_TYPE),
    BadPayload("b5-value-null", telemetry(values={"temp": None}), Reason.WRONG_TYPE),
    BadPayload("b5-value-bool", telemetry(values={"temp": True}), Reason.WRONG_TYPE),
    BadPayload("b5-value-object", telemetry(values={"temp": {"c": 20}}), Reason.WRONG_TYPE),
    BadPayload("b5-too-many-metrics", telemetry(values={f"m{i}": i for i in range(257)}), Reason.BAD_VALUE),
    BadPayload("b5-metric-empty", telemetry(values={"": 1}), Reason.BAD_VALUE),
    BadPayload("b5-metric-space", telemetry(values={"room temp": 1}), Reason.BAD_VALUE),
    BadPayload("b5-metric-long", telemetry(values={"m" * 65: 1}), Reason.BAD_VALUE),
    BadPayload("b5-boot-id-number", telemetry(boot_id=7), Reason.WRONG_TYPE),
    BadPayload("b5-boot-id-path", telemetry(boot_id="../../etc"), Reason.BAD_VALUE),
    BadPayload("b5-boot-id-empty", telemetry(boot_id=""), Reason.BAD_VALUE),
    BadPayload("b5-seq-text", telemetry(seq="1"), Reason.WRONG_TYPE),
    BadPayload("b5-seq-float", telemetry(seq=1.0), Reason.WRONG_TYPE),
    BadPayload("b5-seq-bool", telemetry(seq=True), Reason.WRONG_TYPE),
    BadPayload("b5-seq-negative", telemetry(seq=-1), Reason.BAD_VALUE),
    BadPayload("b5-seq-beyond-js", telemetry(seq=2**53), Reason.BAD_VALUE),
    BadPayload("b5-ts-list", telemetry(ts=[1]), Reason.WRONG_TYPE),
    BadPayload("b5-ts-bool", telemetry(ts=True), Reason.WRONG_TYPE),
    BadPayload("b5-recorded-at-number", telemetry(recorded_at=5), Reason.WRONG_TYPE),
    BadPayload("b5-recorded-at-word", telemetry(recorded_at="yesterday"), Reason.BAD_VALUE),
    BadPayload("b6-nan", b'{"values":{"temp":NaN}}', Reason.BAD_NUMBER),
    BadPayload("b6-infinity", b'{"values":{"temp":-Infinity}}', Reason.BAD_NUMBER),
    BadPayload("b6-1e999", b'{"values":{"temp":1e999}}', Reason.BAD_NUMBER),
    BadPayload("b7-brackets", b"[" * 100_000, Reason.TOO_DEEP),
    BadPayload("b7-objects", b'{"a":' * 2000 + b"1" + b"}" * 2000, Reason.TOO_DEEP),
    BadPayload("b7-nested-value", telemetry(values={"t": {"a": {"b": {"c": 1}}}}), Reason.WRONG_TYPE),
    BadPayload("b8-5000-digits", b'{"values":{"temp":' + b"9" * 5000 + b"}}", Reason.BAD_NUMBER),
    BadPayload("b9-lone-surrogate", b'{"boot_id":"\\ud800","values":{"temp":1}}', Reason.BAD_TEXT),
    BadPayload("b9-surrogate-key", b'{"\\udfff":1}', Reason.BAD_TEXT),
    BadPayload("b10-key-twice", b'{"seq":1,"seq":2,"boot_id":"b","values":{"temp":1}}', Reason.DUPLICATE_KEY),
    BadPayload("b10-metric-twice", b'{"values":{"temp":1,"temp":2}}', Reason.DUPLICATE_KEY),
    BadPayload("b10-escaped-twin", b'{"values":{"temp":1,"tem\\u0070":2}}', Reason.DUPLICATE_KEY),
    BadPayload("b11-nul-in-boot-id", b'{"boot_id":"b\\u0000","values":{"temp":1}}', Reason.BAD_VALUE),
    BadPayload("b11-nul-in-message", alert(message="a\0b"), Reason.BAD_TEXT, "alert"),
    BadPayload("b11-nul-in-label", alert(labels={"a": "\0"}), Reason.BAD_TEXT, "alert"),
    BadPayload("b12-bom", b"\xef\xbb\xbf" + telemetry(), Reason.NOT_UTF8),
    BadPayload("b12-utf16", telemetry().decode().encode("utf-16"), Reason.NOT_UTF8),
    BadPayload("b12-utf32", telemetry().decode().encode("utf-32"), Reason.NOT_UTF8),
    BadPayload("b17-tenant-in-payload", telemetry(tenant_id="other"), Reason.UNKNOWN_FIELD),
    BadPayload("b27-severity-unknown", alert(severity="apocalyptic"), Reason.BAD_SEVERITY, "alert"),
    BadPayload("b27-severity-case", alert(severity="HIGH"), Reason.BAD_SEVERITY, "alert"),
    BadPayload("b27-severity-number", alert(severity=5), Reason.BAD_SEVERITY, "alert"),
    BadPayload("b27-severity-missing", alert(severity=...), Reason.MISSING_FIELD, "alert"),
    BadPayload("alert-no-message", alert(message=...), Reason.MISSING_FIELD, "alert"),
    BadPayload("alert-message-empty", alert(message=""), Reason.BAD_VALUE, "alert"),
    BadPayload("alert-message-long", alert(message="x" * 2001), Reason.BAD_VALUE, "alert"),
    BadPayload("alert-message-list", alert(message=["x"]), Reason.WRONG_TYPE, "alert"),
    BadPayload("alert-type-markup", alert(alert_type="<script>"), Reason.BAD_VALUE, "alert"),
    BadPayload("alert-value-text", alert(value="hot"), Reason.WRONG_TYPE, "alert"),
    BadPayload("alert-value-nan", alert().replace(b'"seq":1', b'"value":NaN'), Reason.BAD_NUMBER, "alert"),
    BadPayload("alert-labels-list", alert(labels=["a"]), Reason.WRONG_TYPE, "alert"),
    BadPayload("alert-labels-nested", alert(labels={"a": {"b": "c"}}), Reason.WRONG_TYPE, "alert"),
    BadPayload("alert-labels-many", alert(labels={f"l{i}": "x" for i in range(33)}), Reason.BAD_VALUE, "alert"),
    BadPayload("alert-details-list", alert(details=[1]), Reason.WRONG_TYPE, "alert"),
    BadPayload("alert-details-long", alert(details={"a": "x" * 4100}), Reason.BAD_VALUE, "alert"),
    BadPayload("alert-details-deep", alert(details={"a": [[[[[[[[1]]]]]]]]}), Reason.TOO_DEEP, "alert"),
    BadPayload("alert-details-nul", alert(details={"a": ["\0"]}), Reason.BAD_TEXT, "alert"),
    BadPayload(
        "alert-details-twice", alert(details=7).replace(b":7", b':{"a":1,"a":2}'), Reason.DUPLICATE_KEY, "alert"
    ),
    BadPayload("alert-extra", alert(id=1), Reason.UNKNOWN_FIELD, "alert"),
    BadPayload("alert-as-reading", alert(), Reason.UNKNOWN_FIELD, "telemetry"),
    BadPayload("reading-as-alert", telemetry(), Reason.UNKNOWN_FIELD, "alert"),
    BadPayload("state-no-online", b"{}", Reason.MISSING_FIELD, "state"),
    BadPayload("state-online-number", b'{"online":1}', Reason.WRONG_TYPE, "state"),
    BadPayload("state-extra", b'{"online":true,"x":1}', Reason.UNKNOWN_FIELD, "state"),
    BadPayload("state-word", b"online", Reason.NOT_JSON, "state"),
    BadPayload("ack-empty", b"", Reason.EMPTY, "cmd/ack"),
    BadPayload("ack-no-id", b'{"status":"ok"}', Reason.MISSING_FIELD, "cmd/ack"),
    BadPayload("ack-no-status", b'{"command_id":"c1"}', Reason.MISSING_FIELD, "cmd/ack"),
    BadPayload("ack-status-of-ours", b'{"command_id":"c1","status":"timed_out"}', Reason.BAD_VALUE, "cmd/ack"),
    BadPayload("ack-status-bool", b'{"command_id":"c1","status":true}', Reason.BAD_VALUE, "cmd/ack"),
    BadPayload("ack-id-number", b'{"command_id":1,"status":"ok"}', Reason.WRONG_TYPE, "cmd/ack"),
    BadPayload("ack-id-path", b'{"command_id":"../c1","status":"ok"}', Reason.BAD_VALUE, "cmd/ack"),
    BadPayload("ack-detail-list", b'{"command_id":"c1","status":"ok","detail":[]}', Reason.WRONG_TYPE, "cmd/ack"),
    BadPayload("ack-detail-nul", b'{"command_id":"c1","status":"ok","detail":"\\u0000"}', Reason.BAD_TEXT, "cmd/ack"),
    BadPayload(
        "ack-detail-long",
        b'{"command_id":"c1","status":"ok","detail":"%s"}' % (b"x" * 2001),
        Reason.BAD_VALUE,
        "cmd/ack",
    ),
    BadPayload("ack-extra", b'{"command_id":"c1","status":"ok","user_id":"nora"}', Reason.UNKNOWN_FIELD, "cmd/ack"),
    BadPayload("ack-twice", b'{"command_id":"c1","status":"ok","status":"failed"}', Reason.DUPLICATE_KEY, "cmd/ack"),
]
