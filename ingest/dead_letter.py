"""Dead letters: messages that cannot be used, kept with the reason so that people can look.

A table and its reads and writes. Equal content on one topic is one row with a count, so a
device that repeats itself cannot fill the store; a redelivery of the same message is not
counted again. Invariant: when ``add`` returns, every letter is on the disk.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from cluster.row_sizes import estimated_bytes
from cluster.store import in_write, metadata, read_transaction
from ingest.payload import Reason
from ingest.store_bounds import StoreUsage

KEPT_BYTES = 64 * 1024
"""Bytes of a payload that are kept; its length and SHA-256 are of the whole."""
KEPT_TOPIC_CHARS = 512
KEPT_DETAIL_CHARS = 256

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("last_at", Float, nullable=False, index=True),
    Column("count", Integer, nullable=False),
    Column("topic", String(KEPT_TOPIC_CHARS), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", String(KEPT_DETAIL_CHARS), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("key", String(64), nullable=False, unique=True),
    Column("source", String(64), nullable=False),
    Column("content_type", String(256), nullable=False, server_default=""),
    Column("replays", Integer, nullable=False, server_default="0"),
    Column("replayed_at", Float, nullable=True),
    Column("replayed_by", String(64), nullable=True),
)
"""``at`` and ``last_at``: first and last arrival, seconds since the epoch; ``key``: hash of topic and payload;
``replays``: how often it was tried again; ``replayed_at``: when that succeeded, null while it did not."""

LETTER_COLUMNS = [column for column in dead_letters.c if column.name != "key"]
OPEN = dead_letters.c.replayed_at.is_(None)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that cannot be used."""

    topic: str
    reason: Reason
    detail: str
    payload: bytes
    """At most the first ``KEPT_BYTES``."""
    payload_bytes: int
    """Length of the whole payload."""
    sha256: str
    """Of the whole payload, in hex."""
    received_at: float
    is_repeat: bool
    """The broker sent it before (redelivery or retained copy), so it may be counted already."""
    content_type: str = ""
    """As the device named it (MQTT 5)."""

    @property
    def key(self) -> str:
        """What makes two letters the same."""
        return hashlib.sha256(f"{self.topic}\0{self.sha256}".encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A stored dead letter; ``count`` says how often it came."""

    id: int
    at: float
    last_at: float
    count: int
    topic: str
    reason: str
    detail: str
    payload: bytes
    payload_bytes: int
    sha256: str
    source: str
    content_type: str
    replays: int
    replayed_at: float | None
    replayed_by: str | None

    @property
    def is_whole(self) -> bool:
        """Say whether all of the payload is here."""
        return len(self.payload) == self.payload_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterQuery:
    """Which letters; what is None does not matter."""

    reason: Reason | None = None
    topic: str | None = None
    """Beginning of the topic."""
    under: str | None = None
    """Beginning of the topic that the asker is limited to."""
    before_id: int | None = None
    is_replayed: bool = False
    """Those that were replayed, and not those that wait."""
    limit: int = 100


class DeadLetterStore:
    """The dead letters in the SQL store."""

    def __init__(self, engine: Engine, source: str) -> None:
        self._engine = engine
        self._source = source

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters, in one transaction."""
        if not letters:
            return

        def write(connection: Connection) -> None:
            insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            for letter in letters:
                connection.execute(
                    insert(dead_letters)
                    .values(
                        at=letter.received_at,
                        last_at=letter.received_at,
                        count=1,
                        topic=_storable(letter.topic, KEPT_TOPIC_CHARS),
                        reason=str(letter.reason),
                        detail=_storable(letter.detail, KEPT_DETAIL_CHARS),
                        payload=letter.payload[:KEPT_BYTES],
                        payload_bytes=letter.payload_bytes,
                        sha256=letter.sha256,
                        key=letter.key,
                        source=self._source,
                        content_type=_storable(letter.content_type, KEPT_DETAIL_CHARS),
                    )
                    .on_conflict_do_update(
                        index_elements=["key"],
                        set_={
                            "count": dead_letters.c.count + (0 if letter.is_repeat else 1),
                            "last_at": letter.received_at,
                            "reason": str(letter.reason),
                            "detail": _storable(letter.detail, KEPT_DETAIL_CHARS),
                            # It came once more after somebody had it replayed: it waits again.
                            "replayed_at": dead_letters.c.replayed_at if letter.is_repeat else None,
                        },
                    )
                )

        in_write(self._engine, write)

    def total(self) -> int:
        """Number of messages set aside and not replayed, counting repetitions."""
        query = select(func.coalesce(func.sum(dead_letters.c.count), 0)).where(OPEN)
        with read_transaction(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def by_reason(self) -> dict[str, int]:
        """Number of messages that wait by reason, counting repetitions; the reason that came last is first."""
        query = (
            select(dead_letters.c.reason, func.sum(dead_letters.c.count))
            .where(OPEN)
            .group_by(dead_letters.c.reason)
            .order_by(func.max(dead_letters.c.last_at).desc())
        )
        with read_transaction(self._engine) as connection:
            return {reason: int(count) for reason, count in connection.execute(query)}

    def list(self, limit: int = 100, before_id: int | None = None) -> tuple[DeadLetterRow, ...]:
        """Return the newest letters that wait first; those older than ``before_id`` when given."""
        return self.find(LetterQuery(limit=limit, before_id=before_id))

    def find(self, wanted: LetterQuery) -> tuple[DeadLetterRow, ...]:
        """Return the newest of these letters first."""
        query = select(*LETTER_COLUMNS).order_by(dead_letters.c.id.desc()).limit(wanted.limit)
        query = query.where(~OPEN if wanted.is_replayed else OPEN)
        if wanted.reason is not None:
            query = query.where(dead_letters.c.reason == wanted.reason.value)
        for beginning in (wanted.topic, wanted.under):
            if beginning is not None:
                query = query.where(dead_letters.c.topic.startswith(beginning, autoescape=True))
        if wanted.before_id is not None:
            query = query.where(dead_letters.c.id < wanted.before_id)
        with read_transaction(self._engine) as connection:
            return tuple(DeadLetterRow(**row._mapping) for row in connection.execute(query))

    def get(self, letter_id: int) -> DeadLetterRow | None:
        """Return one letter, replayed or not."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*LETTER_COLUMNS).where(dead_letters.c.id == letter_id)).one_or_none()
        return DeadLetterRow(**row._mapping) if row is not None else None

    def replayed(self, letter: DeadLetterRow, at: float, user_id: str) -> None:
        """Note that its message is used by now; one that came again meanwhile goes on waiting."""
        changed = (
            update(dead_letters)
            .where(dead_letters.c.id == letter.id, dead_letters.c.count == letter.count)
            .values(replayed_at=at, replayed_by=user_id, replays=dead_letters.c.replays + 1)
        )
        in_write(self._engine, lambda connection: connection.execute(changed))

    def refused_again(self, letter: DeadLetterRow, reason: Reason, detail: str) -> None:
        """Note that it was tried again in vain, and why; its count says how often it came, and stays."""
        changed = (
            update(dead_letters)
            .where(dead_letters.c.id == letter.id)
            .values(reason=reason.value, detail=_storable(detail, 256), replays=dead_letters.c.replays + 1)
        )
        in_write(self._engine, lambda connection: connection.execute(changed))

    def usage(self) -> StoreUsage:
        """Return the size of all letters, estimated, and when the oldest last came."""
        with read_transaction(self._engine) as connection:
            oldest_at = connection.execute(select(func.min(dead_letters.c.last_at))).scalar_one()
            return StoreUsage(estimated_bytes(connection, dead_letters), oldest_at)

    def expire(self, before: float, limit: int) -> int:
        """Delete letters that last came before ``before`` (seconds since the epoch); return how many."""
        return self._delete(dead_letters.c.last_at < before, limit)

    def shed(self, limit: int) -> int:
        """Delete the letters that came last the longest ago; return how many."""
        return self._delete(true(), limit)

    def _delete(self, condition: ColumnElement[bool], limit: int) -> int:
        oldest = select(dead_letters.c.id).where(condition).order_by(dead_letters.c.last_at).limit(limit)
        chosen = delete(dead_letters).where(dead_letters.c.id.in_(oldest.scalar_subquery()))
        return in_write(self._engine, lambda connection: connection.execute(chosen).rowcount)


def _storable(text: str, limit: int) -> str:
    """Return a text that every database keeps: a letter that is refused itself would hold up all others."""
    return text[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
