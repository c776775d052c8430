"""What becomes of each kind of message."""

import hashlib

import pytest
from bad_payloads import alert, telemetry
from fakes_ingest import make_delivery

from ingest.dead_letter import DeadLetter
from ingest.decoder import ClockTolerance
from ingest.delivery import MAX_PAYLOAD_BYTES, cut_payload
from ingest.payload import CommandAck, DeviceAlert, Reading, Reason, StateChange
from ingest.pipeline import Pipeline
from ingest.topics import TopicTree


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(TopicTree("wf"), ClockTolerance())


@pytest.mark.parametrize(
    ("topic", "payload", "kind"),
    [
        pytest.param("wf/acme/d/telemetry", telemetry(), Reading, id="reading"),
        pytest.param("wf/acme/d/alert", alert(), DeviceAlert, id="alert"),
        pytest.param("wf/acme/d/telemetry", b"{", DeadLetter, id="bad-reading"),
        pytest.param("wf/acme/d/alert", b"{", DeadLetter, id="bad-alert"),
        pytest.param("wf/acme/d/unheard-of", b"{}", DeadLetter, id="unknown-topic"),
        pytest.param("wf/acme/d/state", b'{"online":true}', type(None), id="state-has-its-own-connection"),
        pytest.param("wf/acme/d/cmd", b"{}", type(None), id="our-own-command"),
        pytest.param("wf/acme/d/cmd/ack", b'{"command_id":"c","status":"ok"}', CommandAck, id="answer-to-a-command"),
        pytest.param("wf/acme/d/cmd/ack", b"{}", DeadLetter, id="bad-answer"),
    ],
)
def test_the_main_connection_judges_by_topic(pipeline: Pipeline, topic: str, payload: bytes, kind: type) -> None:
    """Each topic class has its outcome."""
    assert type(pipeline.judge(make_delivery(topic, payload))) is kind


@pytest.mark.parametrize(
    ("topic", "payload", "kind"),
    [
        pytest.param("wf/acme/d/state", b'{"online":true}', StateChange, id="birth"),
        pytest.param("wf/acme/d/state", b"offline", DeadLetter, id="bad-state"),
        pytest.param("wf/acme/d/state", b"", type(None), id="retained-message-removed"),
        pytest.param("wf/acme.x/d/state", b"{}", type(None), id="seen-by-the-main-connection"),
    ],
)
def test_the_presence_connection_judges_states(pipeline: Pipeline, topic: str, payload: bytes, kind: type) -> None:
    """Presence and nothing else."""
    assert type(pipeline.judge_presence(make_delivery(topic, payload))) is kind


def test_an_oversize_payload_keeps_its_hash_and_length(pipeline: Pipeline) -> None:
    """64 KiB are kept; the SHA-256 is of the whole."""
    whole = telemetry()[:-1] + b" " * (4 * 1024 * 1024) + b"}"
    kept, sha256 = cut_payload(whole)
    delivery = make_delivery(payload=kept)
    delivery.sha256, delivery.payload_bytes = sha256, len(whole)

    letter = pipeline.judge(delivery)

    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.payload_bytes) == (Reason.OVERSIZE, len(whole))
    assert letter.sha256 == hashlib.sha256(whole).hexdigest()
    assert len(letter.payload) == 64 * 1024


def test_a_payload_at_the_limit_is_used() -> None:
    """256 KiB is in, one byte more is out."""
    assert cut_payload(b"x" * MAX_PAYLOAD_BYTES) == (b"x" * MAX_PAYLOAD_BYTES, None)
    assert cut_payload(b"x" * (MAX_PAYLOAD_BYTES + 1))[1] is not None


def test_a_retained_copy_without_a_key_is_not_taken(pipeline: Pipeline) -> None:
    """The broker repeats it at each subscribe; with a key it is stored once, without it each time."""
    unkeyed = make_delivery(payload=telemetry(seq=...), is_retained=True)
    keyed = make_delivery(payload=telemetry(), is_retained=True)

    assert pipeline.judge(unkeyed) is None
    assert isinstance(pipeline.judge(keyed), Reading)


def test_a_redelivered_dead_letter_has_the_same_key(pipeline: Pipeline) -> None:
    """The store recognises it and does not count it again."""
    first = pipeline.judge(make_delivery(payload=b"{"))
    again = pipeline.judge(make_delivery(payload=b"{", is_dup=True, epoch=2))

    assert isinstance(first, DeadLetter)
    assert isinstance(again, DeadLetter)
    assert first.key == again.key
    assert (first.is_repeat, again.is_repeat) == (False, True)
