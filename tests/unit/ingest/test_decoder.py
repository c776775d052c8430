"""The decoder: what it takes, what it refuses and why, and that nothing else comes out of it."""

import math
from datetime import UTC, datetime

import orjson
import pytest
from bad_payloads import BAD_PAYLOADS, BadPayload, alert, telemetry
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.alerts.model import Severity
from ingest.decoder import _ACK_FIELDS, _ALERT_FIELDS, _TELEMETRY_FIELDS, ClockTolerance, Decoder
from ingest.payload import (
    AckStatus,
    CommandAck,
    DeviceAlert,
    Flag,
    PayloadError,
    Reading,
    Reason,
    StateChange,
    decode_reading,
    encode_reading,
)
from ingest.topics import Topic, TopicClass

NOW = 1_790_000_001.0
TELEMETRY = Topic(TopicClass.TELEMETRY, "acme", "pump-7")
ALERT = Topic(TopicClass.ALERT, "acme", "pump-7")
STATE = Topic(TopicClass.STATE, "acme", "pump-7")
ACK = Topic(TopicClass.COMMAND_ACK, "acme", "pump-7")


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(ClockTolerance())


def decode(decoder: Decoder, kind: str, data: bytes) -> Reading | DeviceAlert | StateChange | CommandAck:
    if kind == "telemetry":
        return decoder.reading(TELEMETRY, data, NOW)
    if kind == "alert":
        return decoder.alert(ALERT, data, NOW)
    if kind == "cmd/ack":
        return decoder.command_ack(ACK, data, NOW)
    return decoder.state(STATE, data, NOW)


def test_an_answer_names_its_command_in_the_payload_or_beside_it(decoder: Decoder) -> None:
    """MQTT 5's correlation data stands for the id; the two must not differ, and neither may be nonsense."""
    data = b'{"command_id":"c1","status":"failed","detail":"stuck","ts":1}'
    expected = CommandAck("acme", "pump-7", "c1", AckStatus.FAILED, "stuck", NOW)

    assert decoder.command_ack(ACK, data, NOW) == decoder.command_ack(ACK, data, NOW, b"c1") == expected
    assert decoder.command_ack(ACK, b'{"status":"ok"}', NOW, b"c1").command_id == "c1"
    for correlation in (b"c2", b"\xff", b"c 1", b"c" * 65):
        with pytest.raises(PayloadError, match="bad_value"):
            decoder.command_ack(ACK, data, NOW, correlation)


def test_a_reading_carries_what_the_device_said(decoder: Decoder) -> None:
    """Values become floats, milliseconds become seconds, the topic names the device."""
    data = telemetry(ts=1_790_000_000_500, values={"temp": 20, "rpm": 1.5}, recorded_at="2013-12-02T21:15:00Z")

    assert decoder.reading(TELEMETRY, data, NOW) == Reading(
        tenant="acme",
        device="pump-7",
        boot_id="b1",
        seq=1,
        ts=1_790_000_000.5,
        values={"temp": 20.0, "rpm": 1.5},
        recorded_at="2013-12-02T21:15:00Z",
        received_at=NOW,
        flags=(),
    )


def test_an_alert_carries_what_the_device_said(decoder: Decoder) -> None:
    """All optional fields arrive."""
    data = alert(metric="level", value=3, threshold=2.5, labels={"room": "B 12"})

    assert decoder.alert(ALERT, data, NOW) == DeviceAlert(
        tenant="acme",
        device="pump-7",
        boot_id="b1",
        seq=1,
        ts=1_790_000_000.0,
        alert_type="leak",
        severity=Severity.HIGH,
        message="Water on the floor",
        received_at=NOW,
        metric="level",
        value=3.0,
        threshold=2.5,
        labels={"room": "B 12"},
    )


@pytest.mark.parametrize("online", [True, False])
def test_a_state_carries_presence(decoder: Decoder, online: bool) -> None:
    """Birth and last will are told apart."""
    assert decoder.state(STATE, orjson.dumps({"online": online}), NOW) == StateChange("acme", "pump-7", online, NOW)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in BAD_PAYLOADS])
def test_a_bad_payload_gets_its_reason(decoder: Decoder, bad: BadPayload) -> None:
    """Every case of the catalogue is refused with the reason that says what is wrong."""
    with pytest.raises(PayloadError) as refused:
        decode(decoder, bad.kind, bad.payload)

    assert refused.value.reason == bad.reason


def test_the_catalogue_is_long_enough() -> None:
    """At least sixty cases, and every reason that a payload alone can earn occurs."""
    elsewhere = {Reason.OVERSIZE, Reason.UNKNOWN_TOPIC, Reason.UNKNOWN_CODEC, Reason.FOREIGN_TENANT}
    elsewhere |= {Reason.REFUSED_BY_STORE}

    assert len(BAD_PAYLOADS) >= 60
    assert {bad.reason for bad in BAD_PAYLOADS} == set(Reason) - elsewhere


def test_a_refusal_never_quotes_the_payload(decoder: Decoder) -> None:
    """Details go into logs and pages; what a stranger sent does not."""
    for bad in BAD_PAYLOADS:
        with pytest.raises(PayloadError) as refused:
            decode(decoder, bad.kind, bad.payload)
        for stranger in ("is_admin", "apocalyptic", "<script>", "tenant_id", "../../etc", "yesterday"):
            assert stranger not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        pytest.param({"ts": ...}, Flag.NO_CLOCK, id="no-time"),
        pytest.param({"ts": 0}, Flag.BAD_CLOCK, id="1970"),
        pytest.param({"ts": -5}, Flag.BAD_CLOCK, id="negative"),
        pytest.param({"ts": 1_790_000_000}, Flag.BAD_CLOCK, id="seconds-for-milliseconds"),
        pytest.param({"ts": "soon"}, Flag.BAD_CLOCK, id="no-time-text"),
        pytest.param({"ts": "x" * 500}, Flag.BAD_CLOCK, id="endless-text"),
        pytest.param({"ts": (NOW + 315e6) * 1000}, Flag.FUTURE, id="ten-years-ahead"),
        pytest.param({"ts": 1e300}, Flag.FUTURE, id="end-of-time"),
        pytest.param({"ts": (NOW + 61) * 1000}, Flag.FUTURE, id="a-minute-ahead"),
    ],
)
def test_an_odd_reading_is_used_with_a_flag(decoder: Decoder, fields: dict[str, object], flag: Flag) -> None:
    """A bad clock or a missing key costs a flag, never the reading; the time of arrival stands in."""
    reading = decoder.reading(TELEMETRY, telemetry(**fields), NOW)

    assert reading.flags == (flag,)
    assert reading.ts == NOW


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param(..., None, id="nothing"),
        pytest.param(NOW * 1000, None, id="the-time"),
        pytest.param((NOW - 7200) * 1000, None, id="late"),
        pytest.param(0, 0.0, id="1970"),
        pytest.param((NOW + 3600) * 1000, NOW + 3600, id="future"),
    ],
)
def test_what_a_wrong_clock_said_is_kept(decoder: Decoder, said: object, kept: float | None) -> None:
    """The floor orders by its own time then, and nobody has lost the device's."""
    reading = decoder.reading(TELEMETRY, telemetry(ts=said), NOW)

    assert reading.device_ts == kept
    assert decode_reading(encode_reading(reading)) == reading


def test_without_a_number_time_and_content_are_the_key(decoder: Decoder) -> None:
    """The same device, the same device time and the same bytes are the same reading; anything else is another."""
    same = telemetry(seq=...)
    keys = [
        decoder.reading(topic, data, NOW).content_key
        for topic, data in (
            (TELEMETRY, same),
            (Topic(TopicClass.TELEMETRY, "acme", "pump-8"), same),
            (Topic(TopicClass.TELEMETRY, "acme2", "pump-7"), same),
            (TELEMETRY, telemetry(seq=..., ts=1_790_000_000_001)),
            (TELEMETRY, telemetry(seq=..., values={"temp": 20.6})),
            (TELEMETRY, telemetry(boot_id=...)),
        )
    ]

    again = decoder.reading(TELEMETRY, same, NOW + 5)
    assert again.content_key == keys[0]
    assert again.flags == ()
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("ts", [pytest.param(..., id="no-clock"), pytest.param(0, id="a-clock-never-set")])
def test_content_alone_is_no_key(decoder: Decoder, ts: object) -> None:
    """Without a clock that runs, equal readings are as many as arrived; the flag says so."""
    reading = decoder.reading(TELEMETRY, telemetry(seq=..., ts=ts), NOW)
    raised = decoder.alert(ALERT, alert(seq=..., ts=ts), NOW)

    assert (reading.content_key, reading.is_keyed) == (None, False)
    assert (raised.key, raised.is_keyed) == (None, False)
    assert Flag.UNKEYED in reading.flags
    assert Flag.UNKEYED in raised.flags


def test_an_alert_without_a_number_is_known_by_time_and_content(decoder: Decoder) -> None:
    """As a reading is; and its key fits into the events' column."""
    first, again, other = (
        decoder.alert(ALERT, data, NOW) for data in (alert(seq=...), alert(seq=...), alert(seq=..., severity="low"))
    )

    assert first.key == again.key != other.key
    assert decoder.alert(ALERT, alert(), NOW).key == "alert:acme/pump-7:b1/1"
    assert len("alert:" + "t" * 64 + "/" + "d" * 64 + "#" + "0" * 32) <= 320


def test_a_late_reading_keeps_its_time(decoder: Decoder) -> None:
    """What a device measured while it was offline belongs where it was measured."""
    reading = decoder.reading(TELEMETRY, telemetry(ts=(NOW - 7200) * 1000), NOW)

    assert (reading.ts, reading.flags) == (NOW - 7200, (Flag.LATE,))


@pytest.mark.parametrize(
    "text",
    ["2026-09-21T14:13:20Z", "2026-09-21T16:13:20+02:00", "2026-09-21T14:13:20", "2026-09-21 14:13:20.000"],
)
def test_iso_times_are_taken(decoder: Decoder, text: str) -> None:
    """With and without an offset; without one it is UTC."""
    reading = decoder.reading(TELEMETRY, telemetry(ts=text), NOW)

    assert reading.ts == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC).timestamp() == 1_790_000_000.0
    assert reading.flags == ()


def test_qos_0_is_flagged(decoder: Decoder) -> None:
    """QoS 0 on a topic meant for QoS 1 is used, and said to be unreliable."""
    assert decoder.reading(TELEMETRY, telemetry(), NOW, qos=0).flags == (Flag.UNRELIABLE,)


@pytest.mark.parametrize("text", ["a:b", "12:30:00", '":"', '":' * 50, '\\":', "\\"])
def test_what_looks_like_a_key_in_a_text_is_none(decoder: Decoder, text: str) -> None:
    """The quick test for duplicate keys counts quotes; texts with quotes and colons must not count as keys."""
    assert decoder.alert(ALERT, alert(message=text), NOW).message == text


@pytest.mark.parametrize(
    "payload",
    [
        b'{"values" :{"temp":1,"temp":2}}',
        b'{"boot_id":"a\\u003ab","values":{"temp":1,"temp":2}}',
        b'{"boot_id":"b","boot_id":null,"values":{"temp":1}}',
        b'{"boot_id":null,"boot_id":"b","values":{"temp":1}}',
        b'{"values":{"temp":1},"values":{"temp":1,"rpm":2}}',
        b'{"values":{"a":1,"b":2,"c":3},"values":{"temp":1}}',
        b'{"ts":null,"values":{"temp":1},"ts":"2026-09-21T14:13:20Z"}',
    ],
)
def test_no_spelling_hides_a_duplicate_key(decoder: Decoder, payload: bytes) -> None:
    """Spaces, escapes and values of other types do not balance the count."""
    with pytest.raises(PayloadError, match="duplicate_key"):
        decoder.reading(TELEMETRY, payload, NOW)


def test_spaces_around_colons_are_no_duplicate_keys(decoder: Decoder) -> None:
    """Nor are they a way past the test."""
    spaced = b'{ "values" : { "temp" : 1 , "rpm" : 2 } }'

    assert decoder.reading(TELEMETRY, spaced, NOW).values == {"temp": 1.0, "rpm": 2.0}
    with pytest.raises(PayloadError, match="duplicate_key"):
        decoder.reading(TELEMETRY, spaced.replace(b"rpm", b"temp"), NOW)
    with pytest.raises(PayloadError, match="duplicate_key"):
        decoder.reading(TELEMETRY, b'{"values":{"temp" :1},"values":{"temp":1}}', NOW)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
almost = st.dictionaries(
    st.sampled_from(sorted(_TELEMETRY_FIELDS | _ALERT_FIELDS | _ACK_FIELDS)),
    documents | st.dictionaries(st.text(max_size=5), scalars, max_size=3),
)


@settings(max_examples=300)
@given(st.binary(max_size=200) | almost.map(lambda document: _dumped(document)))
def test_any_bytes_give_a_result_or_a_payload_error(data: bytes) -> None:
    """Nothing a device sends makes the decoder raise anything else, and what passes is sound."""
    decoder = Decoder(ClockTolerance())
    for kind in ("telemetry", "alert", "state", "cmd/ack"):
        try:
            decoded = decode(decoder, kind, data)
        except PayloadError:
            continue
        if isinstance(decoded, Reading):
            assert math.isfinite(decoded.ts)
            assert all(math.isfinite(value) for value in decoded.values.values())
            assert decode_reading(encode_reading(decoded)) == decoded


@settings(max_examples=200)
@given(
    values=st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.:-]{1,12}", fullmatch=True),
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
        min_size=1,
        max_size=5,
    ),
    boot_id=st.none() | st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True),
    seq=st.none() | st.integers(0, 2**53 - 1),
)
def test_every_good_reading_is_taken(values: dict[str, float], boot_id: str | None, seq: int | None) -> None:
    """No valid payload is refused, and its values arrive unchanged."""
    data = orjson.dumps({"boot_id": boot_id, "seq": seq, "values": values})

    reading = Decoder(ClockTolerance()).reading(TELEMETRY, data, NOW)

    assert reading.values == {metric: float(value) for metric, value in values.items()}
    assert (reading.seq is None) == (seq is None or boot_id is None)


def _dumped(document: object) -> bytes:
    import json

    return json.dumps(document).encode()
