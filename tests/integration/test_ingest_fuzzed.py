"""Topics and messages from nowhere: whatever comes, there is one answer, and it is never an exception."""

import string

import orjson
import pytest
from bad_payloads import BAD_PAYLOADS, alert, telemetry
from fakes_ingest import make_delivery
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.dead_letter import DeadLetter
from ingest.decoder import ClockTolerance
from ingest.payload import DeviceAlert, Reading, Reason, StateChange
from ingest.pipeline import BrokerWord, Pipeline
from ingest.topics import TopicClass, TopicTree

TREE = TopicTree("wf")
PLAIN = Pipeline(TREE, ClockTolerance())
GUARDED = Pipeline(TREE, ClockTolerance(), BrokerWord(user="user", time="at"))

BAD_TOPICS = [
    pytest.param("", id="empty"),
    pytest.param("/", id="slash"),
    pytest.param("wf", id="b15-root-alone"),
    pytest.param("wf/acme/pump-7", id="b15-no-class"),
    pytest.param("wf/acme/pump-7/telemetry/", id="b15-slash-behind"),
    pytest.param("/wf/acme/pump-7/telemetry", id="b15-slash-before"),
    pytest.param("wf//pump-7/telemetry", id="b15-tenant-empty"),
    pytest.param("wf/acme//telemetry", id="b15-device-empty"),
    pytest.param("wf/acme/pump-7/telemetry/temp", id="b15-too-deep"),
    pytest.param("v9/wf/acme/pump-7/telemetry", id="b15-unknown-version"),
    pytest.param("WF/acme/pump-7/telemetry", id="b15-root-in-capitals"),
    pytest.param("wf/acme/pump-7/Telemetry", id="b15-class-in-capitals"),
    pytest.param("wf/acme/pump-7/cmd/nack", id="b15-unknown-answer"),
    pytest.param("$SYS/broker/uptime", id="b18-sys"),
    pytest.param("$share/g/wf/acme/pump-7/telemetry", id="b18-share"),
    pytest.param("wf/+/pump-7/telemetry", id="b19-plus"),
    pytest.param("wf/#", id="b19-hash"),
    pytest.param("wf/acme/pump\0/telemetry", id="b19-nul"),
    pytest.param("wf/acme/" + "d" * 65 + "/telemetry", id="b20-device-of-65"),
    pytest.param("wf/" + "t" * 60_000 + "/d/telemetry", id="b20-tenant-of-60-000"),
    pytest.param("wf/" + "a/" * 200 + "telemetry", id="b20-two-hundred-levels"),
    pytest.param("wf/acme/pump 7/telemetry", id="space"),
    pytest.param("wf/acme/pump.7/telemetry", id="dot"),
    pytest.param("wf/acme/../telemetry", id="path"),
    pytest.param("wf/acmé/pump-7/telemetry", id="accent"),
    pytest.param("wf/acme/pump-7/telemetry\n", id="newline-behind"),
    pytest.param("wf/аcme/pump-7/telemetry\ud800", id="lone-surrogate"),
    pytest.param("(not UTF-8)", id="b2-not-utf-8"),
]


@pytest.mark.parametrize("topic", BAD_TOPICS)
def test_a_topic_of_no_template_is_set_aside(topic: str) -> None:
    """With its reason and its payload; and nobody takes it for a device's presence."""
    letter = PLAIN.judge(make_delivery(topic, telemetry()))

    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.payload) == (Reason.UNKNOWN_TOPIC, telemetry())
    assert len(letter.key) == 64
    assert PLAIN.judge_presence(make_delivery(topic, b'{"online":true}')) is None


def test_the_catalogue_has_sixty_cases_and_more() -> None:
    """Payloads and topics, each with its answer."""
    assert len(BAD_PAYLOADS) + len(BAD_TOPICS) >= 100


levels = st.sampled_from(["wf", "acme", "pump-7", "telemetry", "alert", "state", "cmd", "ack", "", "+", "#", "$SYS"])
topics = (
    st.lists(levels | st.text(max_size=8), max_size=7).map("/".join)
    | st.builds(
        "wf/{}/{}/{}".format,
        st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64),
        st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64),
        st.sampled_from([str(kind) for kind in TopicClass]),
    )
    | st.text(max_size=40)
)
payloads = (
    st.binary(max_size=120)
    | st.sampled_from([telemetry(), alert(), b'{"online":true}', b'{"online":false}', b""])
    | st.dictionaries(st.sampled_from(["ts", "boot_id", "seq", "values", "online", "severity"]), st.integers()).map(
        lambda document: orjson.dumps({name: value % 2**53 for name, value in document.items()})
    )
    | st.sampled_from([bad.payload for bad in BAD_PAYLOADS if len(bad.payload) < 10_000])
)
properties = st.lists(
    st.tuples(st.sampled_from(["user", "at", "User", ""]), st.sampled_from(["acme", "acme.x", "beta", "", "1", "ß"])),
    max_size=4,
)


@settings(max_examples=400)
@given(
    topic=topics,
    payload=payloads,
    content_type=st.sampled_from(["", "application/json", "application/cbor"]) | st.text(max_size=20),
    user_properties=properties.map(tuple),
    qos=st.integers(0, 1),
    is_retained=st.booleans(),
)
def test_any_message_has_one_answer(
    topic: str,
    payload: bytes,
    content_type: str,
    user_properties: tuple[tuple[str, str], ...],
    qos: int,
    is_retained: bool,
) -> None:
    """It is used under the names in its topic, or set aside, or carries nothing; no exception leaves the pipeline."""
    delivery = make_delivery(
        topic,
        payload,
        qos=qos,
        is_retained=is_retained,
        content_type=content_type,
        user_properties=user_properties,
    )
    for pipeline in (PLAIN, GUARDED):
        for judge in (pipeline.judge, pipeline.judge_presence):
            judged = judge(delivery)
            if isinstance(judged, Reading | DeviceAlert | StateChange):
                parsed = TREE.parse(topic)
                assert parsed is not None
                assert (parsed.tenant, parsed.device) == (judged.tenant, judged.device)
                if pipeline is GUARDED:
                    users = {value.partition(".")[0] for name, value in user_properties if name == "user"}
                    assert users == {judged.tenant}
            elif judged is not None:
                assert judged.detail == judged.detail.encode("ascii", "replace").decode()


@settings(max_examples=300)
@given(topics)
def test_what_parses_is_what_is_built(topic: str) -> None:
    """A topic of the tree is told apart and put together again; nothing else passes for one."""
    parsed = TREE.parse(topic)

    if parsed is not None:
        assert TREE.build(parsed.kind, parsed.tenant, parsed.device) == topic
