"""Trying dead letters again: through the decoder into the stores, as if they had just been read.

Not through the broker: there the message would carry the floor's own user, need a right to
publish for every device, and an unkeyed one could not be told from its twin. Invariants: a
letter that is replayed twice, or by two people at once, is stored once; one that cannot be
used still waits with its count; what is stored has the time at which it came first.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import Engine

from cluster.clock import Clock
from ingest.alerts.engine import AlertEngine
from ingest.dead_letter import DeadLetter, DeadLetterRow, DeadLetterStore
from ingest.decoder import CONTENT_KEY_BYTES, ClockTolerance
from ingest.delivery import Delivery
from ingest.errors import StoreRefusedError
from ingest.payload import DeviceAlert, Reading, Reason
from ingest.pipeline import Pipeline
from ingest.sql_errors import translated
from ingest.telemetry_redis import TelemetryStream
from ingest.topics import TopicClass, TopicTree

logger = logging.getLogger(__name__)

SQL = "sql"
MAX_EQUAL = 10_000
"""Most messages without a key that one letter stands for; a broken device may send the same bytes for days."""


class Outcome(StrEnum):
    """What became of a letter."""

    STORED = "stored"
    KNOWN = "known"
    """Its message had been stored before, by an earlier replay or as the device sent it again."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One letter that was tried again."""

    id: int
    outcome: Outcome
    reason: str = ""
    """Why it was refused."""
    detail: str = ""


class Replayer:
    """Tries letters again, one by one."""

    def __init__(
        self, tree: TopicTree, tolerance: ClockTolerance, engine: Engine, stream: TelemetryStream, clock: Clock
    ) -> None:
        self._tree = tree
        # Without the broker's word: it is not kept, so what was refused for it is refused here (see ``_refusal``).
        self._pipeline = Pipeline(tree, tolerance)
        self._letters = DeadLetterStore(engine, source="replay")
        self._alerts = AlertEngine(engine, clock)
        self._stream = stream
        self._clock = clock

    def replay(self, letters: Sequence[DeadLetterRow], user_id: str) -> list[Replayed]:
        """Try these letters again, the oldest first.

        Raises:
            StoreUnavailableError: a store is away; what was done until then is done.
        """
        done = []
        for letter in sorted(letters, key=lambda one: one.id):
            result = self._replay_one(letter)
            with translated(SQL):
                if result.outcome is Outcome.REFUSED:
                    self._letters.refused_again(letter, Reason(result.reason), result.detail)
                else:
                    self._letters.replayed(letter, self._clock.time_s(), user_id)
            logger.info("dead letter %s replayed by %s: %s %s", letter.id, user_id, result.outcome, result.reason)
            done.append(result)
        return done

    def _replay_one(self, letter: DeadLetterRow) -> Replayed:
        refusal = self._refusal(letter)
        if refusal is not None:
            return refusal
        judged = self._pipeline.judge(_delivery(letter))
        if isinstance(judged, DeadLetter):
            return Replayed(letter.id, Outcome.REFUSED, judged.reason, judged.detail)
        if not isinstance(judged, Reading | DeviceAlert):
            return Replayed(letter.id, Outcome.REFUSED, letter.reason, "nothing of it has to be stored")
        try:
            is_new = self._store(judged, letter)
        except StoreRefusedError as error:
            return Replayed(letter.id, Outcome.REFUSED, Reason.REFUSED_BY_STORE, error.reason)
        return Replayed(letter.id, Outcome.STORED if is_new else Outcome.KNOWN)

    def _refusal(self, letter: DeadLetterRow) -> Replayed | None:
        topic = self._tree.parse(letter.topic)
        detail = ""
        if letter.reason == Reason.FOREIGN_TENANT:
            detail = "it came from a user of another tenant; replaying it would let that user in"
        elif not letter.is_whole:
            detail = f"only {len(letter.payload)} of {letter.payload_bytes} bytes were kept"
        elif topic is not None and topic.kind is TopicClass.STATE:
            detail = "presence is about now, and it is about then"
        return Replayed(letter.id, Outcome.REFUSED, letter.reason, detail) if detail else None

    def _store(self, item: Reading | DeviceAlert, letter: DeadLetterRow) -> bool:
        # Equal messages share a letter. Without a key of their own they are so many, and the letter is their key.
        items = [item] if item.is_keyed else [replace(item, content_key=key) for key in _keys_of(letter)]
        if isinstance(item, Reading):
            return self._stream.append([one for one in items if isinstance(one, Reading)]).stored > 0
        with translated(SQL):
            return bool(self._alerts.raise_device_alerts([one for one in items if isinstance(one, DeviceAlert)]))


def _keys_of(letter: DeadLetterRow) -> list[bytes]:
    name = f"{letter.topic}\0{letter.sha256}\0{letter.at!r}\0"
    return [
        hashlib.blake2b(f"{name}{number}".encode(), digest_size=CONTENT_KEY_BYTES).digest()
        for number in range(min(letter.count, MAX_EQUAL))
    ]


def _delivery(letter: DeadLetterRow) -> Delivery:
    return Delivery(
        epoch=0,
        mid=0,
        topic=letter.topic,
        payload=letter.payload,
        qos=1,
        is_dup=False,
        is_retained=False,
        received_at=letter.at,
        payload_bytes=letter.payload_bytes,
        content_type=letter.content_type,
    )
