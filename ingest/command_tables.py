"""SQL tables of commands and of their history.

A command is one row; its events are its append-only history and, by ``broadcast_at``, the
outbox of what the dashboards have not been told yet. Invariants: (user, request) names a
command once; ``command_events.seq`` is the command's ``version`` after the event.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from cluster.store import metadata

commands = Table(
    "commands",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("device", String(64), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("user_id", String(128), nullable=False),
    Column("request_id", String(64)),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("answer", String(16)),
    Column("attempts", Integer, nullable=False),
    # While it is queued: when whoever comes first may hand it to the broker; in the future while somebody is at it.
    Column("next_attempt_at", Float),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("sent_at", Float),
    Column("delivered_at", Float),
    Column("answered_at", Float),
    Column("ended_at", Float),
    Column("version", Integer, nullable=False),
    # NULLs are distinct in SQLite and PostgreSQL: only requests that carry an id are held to it.
    UniqueConstraint("user_id", "request_id"),
    Index("ix_commands_device", "tenant", "device", "id"),
    Index("ix_commands_ended", "ended_at"),
)

command_events = Table(
    "command_events",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("command_id", String(32), ForeignKey("commands.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("is_late", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("broadcast_at", Float),
    UniqueConstraint("command_id", "seq"),
)

_open = commands.c.ended_at.is_(None)
Index("ix_commands_open", commands.c.expires_at, sqlite_where=_open, postgresql_where=_open)
_queued = commands.c.next_attempt_at.is_not(None)
Index("ix_commands_queued", commands.c.id, sqlite_where=_queued, postgresql_where=_queued)
_pending = command_events.c.broadcast_at.is_(None)
Index("ix_command_events_pending", command_events.c.id, sqlite_where=_pending, postgresql_where=_pending)
