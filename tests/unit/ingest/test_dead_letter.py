"""Dead letters in SQL: once each, counted, cut, and gone in time."""

import dataclasses
import hashlib

import pytest
from sqlalchemy import Engine

from ingest.dead_letter import KEPT_BYTES, DeadLetter, DeadLetterStore, LetterQuery
from ingest.payload import Reason


@pytest.fixture
def store(sql: Engine) -> DeadLetterStore:
    return DeadLetterStore(sql, source="ingest-0")


def letter(
    payload: bytes = b"{",
    topic: str = "wf/a/b/telemetry",
    at: float = 1.0,
    is_repeat: bool = False,
    reason: Reason = Reason.NOT_JSON,
) -> DeadLetter:
    return DeadLetter(
        topic=topic,
        reason=reason,
        detail="at character 1",
        payload=payload,
        payload_bytes=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
        received_at=at,
        is_repeat=is_repeat,
    )


def test_a_letter_is_kept_with_all_it_takes_to_understand_it(store: DeadLetterStore) -> None:
    """Topic, reason, detail, payload, length and hash are there."""
    store.add([letter()])

    (row,) = store.list()
    assert (row.topic, row.reason, row.detail) == ("wf/a/b/telemetry", "not_json", "at character 1")
    assert (row.payload, row.payload_bytes, row.source) == (b"{", 1, "ingest-0")
    assert row.sha256 == hashlib.sha256(b"{").hexdigest()


def test_a_redelivery_is_one_letter_counted_once(store: DeadLetterStore) -> None:
    """Ingest may be killed between the commit and the acknowledgement."""
    store.add([letter()])
    store.add([letter(is_repeat=True)])

    assert [row.count for row in store.list()] == [1]
    assert store.total() == 1


def test_a_device_that_repeats_itself_cannot_fill_the_store(store: DeadLetterStore) -> None:
    """Equal content is one row that counts; first and last arrival are known."""
    store.add([letter(at=1.0), letter(at=2.0), letter(at=3.0)])

    (row,) = store.list()
    assert (row.count, row.at, row.last_at) == (3, 1.0, 3.0)
    assert store.total() == 3


def test_equal_content_on_two_topics_is_two_letters(store: DeadLetterStore) -> None:
    """Which device sent it is the first question."""
    store.add([letter(topic="wf/a/b/telemetry"), letter(topic="wf/a/c/telemetry")])

    assert [row.topic for row in store.list()] == ["wf/a/c/telemetry", "wf/a/b/telemetry"]


def test_letters_are_counted_by_reason_the_newest_first(store: DeadLetterStore) -> None:
    """Repetitions count, and the last arrival of a reason decides its place."""
    store.add([letter(b"[", at=1.0), letter(b"\xff", at=2.0, reason=Reason.NOT_UTF8), letter(at=1.5), letter(at=3.0)])

    assert list(store.by_reason().items()) == [("not_json", 3), ("not_utf8", 1)]
    store.add([letter(b"\xff", at=4.0, reason=Reason.NOT_UTF8)])
    assert list(store.by_reason().items()) == [("not_utf8", 2), ("not_json", 3)]


def test_a_payload_is_cut(store: DeadLetterStore) -> None:
    """64 KiB are kept, whatever comes."""
    store.add([letter(payload=b"x" * (KEPT_BYTES + 1), topic="t" * 5000)])

    (row,) = store.list()
    assert (len(row.payload), row.payload_bytes, len(row.topic)) == (KEPT_BYTES, KEPT_BYTES + 1, 512)


def test_letters_are_listed_page_by_page(store: DeadLetterStore) -> None:
    """Newest first, and a page continues below the last id."""
    store.add([letter(payload=b"%d" % number) for number in range(5)])
    first = store.list(limit=2)

    assert [row.payload for row in first] == [b"4", b"3"]
    assert [row.payload for row in store.list(limit=9, before_id=first[-1].id)] == [b"2", b"1", b"0"]


def test_old_letters_expire_by_their_last_arrival(store: DeadLetterStore) -> None:
    """One that still comes stays."""
    store.add([letter(payload=b"old", at=10.0), letter(payload=b"new", at=99.0)])

    assert store.expire(before=50.0, limit=10) == 1
    assert [row.payload for row in store.list()] == [b"new"]


def test_the_oldest_letters_leave_first_for_their_size(store: DeadLetterStore) -> None:
    """By their last arrival, so many at a time; the size falls with them."""
    store.add([letter(payload=b"%d" % number * 1000, at=float(number)) for number in range(1, 6)])
    before = store.usage()

    assert store.shed(limit=2) == 2
    after = store.usage()
    assert (before.oldest_at, after.oldest_at) == (1.0, 3.0)
    assert before.size_bytes > after.size_bytes > 3000
    assert len(store.list()) == 3


@pytest.mark.parametrize("topic", ["wf/a\0b", "wf/\ud800", "w" * 600, ""])
def test_no_letter_is_refused_for_its_texts(store: DeadLetterStore, topic: str) -> None:
    """Or it would hold up all that come after it."""
    store.add([dataclasses.replace(letter(topic=topic), detail=topic)])

    (row,) = store.list()
    assert len(row.topic) <= 512
    assert "\0" not in row.topic + row.detail


def test_letters_are_found_by_reason_and_by_the_beginning_of_their_topic(store: DeadLetterStore) -> None:
    """An underscore in a tenant is a letter and no wildcard."""
    store.add(
        [letter(b"a", "wf/a_b/d/alert"), letter(b"b", "wf/axb/d/alert", reason=Reason.EMPTY), letter(b"c", "x/y")]
    )

    assert [row.payload for row in store.find(LetterQuery(topic="wf/a_b/"))] == [b"a"]
    assert [row.payload for row in store.find(LetterQuery(reason=Reason.EMPTY))] == [b"b"]
    assert store.find(LetterQuery(reason=Reason.EMPTY, under="wf/a_b/")) == ()


def test_a_replayed_letter_waits_no_more_until_it_comes_again(store: DeadLetterStore) -> None:
    """It stays to be looked at; one that was refused again keeps its count and gets the new reason."""
    store.add([letter(b"a"), letter(b"b"), letter(b"b")])
    b, a = store.list()
    store.replayed(a, 5.0, "nora")
    store.refused_again(b, Reason.TOO_DEEP, "still")

    (waiting,) = store.list()
    assert (waiting.count, waiting.replays, waiting.reason, waiting.detail) == (2, 1, "too_deep", "still")
    (done,) = store.find(LetterQuery(is_replayed=True))
    assert (done.replayed_at, done.replayed_by, done.replays) == (5.0, "nora", 1)
    assert store.total() == 2
    assert store.by_reason() == {"too_deep": 2}

    store.add([letter(b"a", is_repeat=True)])
    assert store.total() == 2, "a redelivery of what was replayed"
    store.add([letter(b"a")])
    assert store.total() == 4


def test_a_letter_that_came_again_during_its_replay_goes_on_waiting(store: DeadLetterStore) -> None:
    """Nobody has tried the second one."""
    store.add([letter()])
    (seen,) = store.list()
    store.add([letter()])
    store.replayed(seen, 5.0, "nora")

    assert store.total() == 2
