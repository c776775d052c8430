"""Signatures, pauses and forms of what leaves the floor and what comes in; no network."""

import random

import pytest

from ingest.alerts.external import parse_alert
from ingest.alerts.model import Severity
from ingest.notify.retry import Again, GiveUp, RetryPolicy
from ingest.notify.settings import AlertmanagerSettings, WebhookSettings
from ingest.notify.signature import parse_key, sign, verify

NOW = 1_700_000_000.0
# The example of the specification's own libraries (standard-webhooks, tests of every language).
KEY = parse_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
BODY = b'{"test": 2432232314}'
MESSAGE, AT = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330


def test_the_signature_is_the_specifications() -> None:
    """The published vector: id, time, body and key give this and nothing else."""
    assert sign([KEY], MESSAGE, AT, BODY) == {
        "webhook-id": MESSAGE,
        "webhook-timestamp": str(AT),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_a_receiver_takes_what_it_can_prove_and_nothing_else() -> None:
    """One of several keys is enough; another time, another id or no signature is not."""
    other = b"o" * 24
    headers = sign([other, KEY], MESSAGE, AT, BODY)

    assert verify([KEY], headers, BODY, AT + 300)
    assert verify([b"n" * 24, other], headers, BODY, AT - 300)
    for changed in (
        {"webhook-timestamp": str(AT + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-id": ""},
        {"webhook-signature": ""},
        {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")},
    ):
        assert not verify([KEY], headers | changed, BODY, AT)


def test_pauses_double_and_are_drawn_from_the_whole_range() -> None:
    """Bounded by the longest one, however often it failed."""
    settings = WebhookSettings(first_pause_s=1.0, longest_pause_s=60.0, max_attempts=5000)
    policy = RetryPolicy(settings, random.Random(1))
    for attempts, bound in ((1, 1.0), (4, 8.0), (7, 60.0), (4000, 60.0)):
        drawn = [policy.decide(attempts, 0.0) for _ in range(400)]
        pauses = [one.pause_s for one in drawn if isinstance(one, Again)]
        assert len(pauses) == 400
        assert max(pauses) <= bound
        assert min(pauses) < 0.05 * bound < 0.9 * bound < max(pauses)


def test_it_is_given_up_by_tries_or_by_age() -> None:
    """And a receiver's wish for a pause is granted up to the bound."""
    policy = RetryPolicy(WebhookSettings(max_attempts=3, max_age_s=100.0))

    assert isinstance(policy.decide(3, 0.0), GiveUp)
    assert isinstance(policy.decide(1, 100.0), GiveUp)
    assert policy.decide(1, 0.0, asked_s=50.0) == Again(50.0)
    assert policy.decide(1, 0.0, asked_s=1e9) == Again(600.0)


def test_labels_become_our_words() -> None:
    """With documented defaults where they are missing."""
    alert = parse_alert(
        {
            "labels": {"alertname": "DiskFull", "instance": "db-1.example:9100", "severity": "page", "empty": ""},
            "annotations": {"summary": "disk\x00 is full", "value": "97.5"},
            "startsAt": "2023-11-14T22:13:20.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "javascript:alert(1)",
        },
        NOW + 60,
        300.0,
    )

    assert (alert.rule, alert.device_id, alert.severity) == ("DiskFull", "db-1-example-9100", Severity.CRITICAL)
    assert (alert.title, alert.text, alert.value) == ("disk  is full", "disk  is full", 97.5)
    assert (alert.tenant("external"), alert.metric) == ("external", None)
    assert alert.links == {}
    assert "empty" not in alert.labels
    assert alert.starts_at == pytest.approx(NOW + 0.123456)
    assert alert.ends_at == NOW + 360
    bare = parse_alert({"labels": {"job": "x"}}, NOW, 300.0)
    assert (bare.rule, bare.device_id, bare.severity, bare.starts_at) == (
        "unnamed", "external", Severity.WARNING, NOW,
    )  # fmt: skip


def test_a_problem_is_named_by_tenant_and_all_labels() -> None:
    """Their order does not matter; no tenant names another one's."""
    one = parse_alert({"labels": {"a": "1", "b": "2"}}, NOW, 300.0)
    same = parse_alert({"labels": {"b": "2", "a": "1"}}, NOW + 5, 300.0)
    other = parse_alert({"labels": {"a": "1", "b": "3"}}, NOW, 300.0)

    assert one.fingerprint("t") == same.fingerprint("t")
    assert len({one.fingerprint("t"), one.fingerprint("u"), other.fingerprint("t")}) == 3


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {},
        {"labels": {}},
        {"labels": {"a": ""}},
        {"labels": []},
        {"labels": {"a": 1}},
        {"labels": {"a b": "c"}},
        {"labels": {"": "c"}},
        {"labels": {"a": "x" * 1025}},
        {"labels": {f"l{number}": "x" for number in range(65)}},
        {"labels": {"a": "b"}, "annotations": "text"},
        {"labels": {"a": "b"}, "annotations": {"a": "x" * 4097}},
        {"labels": {"a": "b"}, "startsAt": "yesterday"},
        {"labels": {"a": "b"}, "startsAt": 17},
        {"labels": {"a": "b"}, "startsAt": "2023-11-14T22:13:20Z", "endsAt": "2023-11-14T22:13:19Z"},
    ],
    ids=repr,
)
def test_what_is_no_alert_is_refused(item: object) -> None:
    """With a sentence, never with another error."""
    with pytest.raises(ValueError, match=r"must|needs|has|ends"):
        parse_alert(item, NOW, 300.0)


def test_no_alert_is_believed_for_ever() -> None:
    """An end in a hundred years is one in a week; a start in the future is now; lone surrogates are no text."""
    alert = parse_alert(
        {"labels": {"a": "b\ud800"}, "startsAt": "2123-01-01T00:00:00Z", "endsAt": "2123-01-01T00:00:00Z"}, NOW, 300.0
    )

    assert (alert.starts_at, alert.ends_at) == (NOW, NOW + 7 * 86_400)
    assert alert.labels == {"a": "b "}


def test_addresses_are_checked_without_being_told() -> None:
    """An address may hold a password."""
    for url in ("ftp://user:pass@host", "host:9093", "http://"):
        with pytest.raises(ValueError, match="must be http") as raised:
            AlertmanagerSettings(url=url)
        assert "pass" not in str(raised.value)
