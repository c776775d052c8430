"""Dead letters: messages that cannot be used, kept with the reason so that people can look.

A table and its reads and writes. Equal content on one topic is one row with a count, so a
device that repeats itself cannot fill the store; a redelivery of the same message is not
counted again. Invariant: when ``add`` returns, every letter is on the disk.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Connection, Engine, Float, Integer, LargeBinary, String, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from cluster.store import in_write, metadata, read_transaction
from ingest.payload import Reason

KEPT_BYTES = 64 * 1024
"""Bytes of a payload that are kept; its length and SHA-256 are of the whole."""
KEPT_TOPIC_CHARS = 512

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("last_at", Float, nullable=False, index=True),
    Column("count", Integer, nullable=False),
    Column("topic", String(KEPT_TOPIC_CHARS), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", String(256), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("key", String(64), nullable=False, unique=True),
    Column("source", String(32), nullable=False),
)
"""``at`` and ``last_at``: first and last arrival, seconds since the epoch; ``key``: hash of topic and payload."""


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
                        topic=letter.topic[:KEPT_TOPIC_CHARS],
                        reason=str(letter.reason),
                        detail=letter.detail[:256],
                        payload=letter.payload[:KEPT_BYTES],
                        payload_bytes=letter.payload_bytes,
                        sha256=letter.sha256,
                        key=letter.key,
                        source=self._source,
                    )
                    .on_conflict_do_update(
                        index_elements=["key"],
                        set_={
                            "count": dead_letters.c.count + (0 if letter.is_repeat else 1),
                            "last_at": letter.received_at,
                        },
                    )
                )

        in_write(self._engine, write)

    def total(self) -> int:
        """Number of messages set aside, counting repetitions."""
        with read_transaction(self._engine) as connection:
            return int(connection.execute(select(func.coalesce(func.sum(dead_letters.c.count), 0))).scalar_one())

    def by_reason(self) -> dict[str, int]:
        """Number of messages set aside by reason, counting repetitions; the reason that came last is first."""
        query = (
            select(dead_letters.c.reason, func.sum(dead_letters.c.count))
            .group_by(dead_letters.c.reason)
            .order_by(func.max(dead_letters.c.last_at).desc())
        )
        with read_transaction(self._engine) as connection:
            return {reason: int(count) for reason, count in connection.execute(query)}

    def list(self, limit: int = 100, before_id: int | None = None) -> tuple[DeadLetterRow, ...]:
        """Return the newest letters first; those older than ``before_id`` when given."""
        columns = [column for column in dead_letters.c if column.name != "key"]
        query = select(*columns).order_by(dead_letters.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(dead_letters.c.id < before_id)
        with read_transaction(self._engine) as connection:
            return tuple(DeadLetterRow(**row._mapping) for row in connection.execute(query))

    def expire(self, before: float) -> int:
        """Delete letters that last came before ``before`` (seconds since the epoch); return how many."""

        def write(connection: Connection) -> int:
            return connection.execute(delete(dead_letters).where(dead_letters.c.last_at < before)).rowcount

        return in_write(self._engine, write)
