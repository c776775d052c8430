"""Commands at the door: what cannot be sent is the caller's mistake, before any breaker."""

import pytest

from ingest.commands import check_topic, encode_payload, publish_mqtt
from ingest.delivery import MAX_PAYLOAD_BYTES


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param("", id="empty"),
        pytest.param("wf/+/cmd", id="plus"),
        pytest.param("wf/#", id="hash"),
        pytest.param("wf/a b/cmd", id="space-drops-the-connection"),
        pytest.param("wf/a.b/cmd", id="dot-drops-the-connection"),
        pytest.param("$SYS/x", id="broker"),
        pytest.param("wf//cmd", id="empty-level"),
        pytest.param("wf/\0/cmd", id="nul"),
        pytest.param("/".join("abcdefgh"), id="eight-levels"),
        pytest.param("/".join(["x" * 60] * 5), id="too-long"),
    ],
)
def test_a_topic_that_cannot_be_sent_is_a_value_error(topic: str) -> None:
    """No broker is asked, no breaker counts."""
    with pytest.raises(ValueError, match="topic"):
        publish_mqtt(topic, b"{}")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"x" * (MAX_PAYLOAD_BYTES + 1), id="too-large"),
        pytest.param({"a": object()}, id="no-json"),
        pytest.param("\ud800", id="half-a-surrogate-pair"),
        pytest.param({"a": {1, 2}}, id="a-set"),
    ],
)
def test_a_payload_that_cannot_be_sent_is_a_value_error(payload: object) -> None:
    """The same."""
    with pytest.raises(ValueError, match=r"payload|surrogates"):
        publish_mqtt("wf/acme/pump-7/cmd", payload)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        pytest.param(b"\x01\x02", b"\x01\x02", id="bytes"),
        pytest.param("on", b"on", id="text"),
        pytest.param({"on": True}, b'{"on":true}', id="object"),
        pytest.param([1, 2.5], b"[1,2.5]", id="list"),
    ],
)
def test_payloads_become_bytes(payload: object, data: bytes) -> None:
    """Bytes and text as they are, the rest as JSON."""
    assert encode_payload(payload) == data  # type: ignore[arg-type]


def test_a_topic_of_the_tree_is_fine() -> None:
    """The usual one."""
    check_topic("wf/acme/pump-7/cmd")
