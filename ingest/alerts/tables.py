"""SQL tables of alerts and of their history.

An alert is one occurrence of one problem; its events are its append-only history and, by
``broadcast_at``, the outbox of what the dashboards have not been told yet. Invariants:
(fingerprint, occurrence) names an alert once; ``alert_events.seq`` is the alert's
``version`` after the event; a reading key or a request id changes an alert at most once.
"""

from sqlalchemy import (
    JSON,
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

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("device_id", String(64), nullable=False),
    Column("client_id", String(64)),
    Column("site", String(128)),
    Column("supervisor_id", String(64)),
    Column("fingerprint", String(16), nullable=False),
    Column("occurrence", Integer, nullable=False),
    Column("source_kind", String(16), nullable=False),
    Column("rule", String(128), nullable=False),
    Column("model", String(64)),
    Column("model_version", String(128)),
    Column("score", Float),
    Column("threshold", Float),
    Column("metric", String(128)),
    Column("severity", String(16), nullable=False),
    # The order of severities as a number, so that "worst first" is an index and not a sort.
    Column("severity_rank", Integer, nullable=False),
    Column("condition", String(16), nullable=False),
    Column("handling", String(16), nullable=False),
    Column("verdict", String(16)),
    Column("title", String(256), nullable=False),
    Column("text", Text, nullable=False),
    Column("value", Float),
    Column("count", Integer, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("starts_at", Float, nullable=False),
    Column("last_seen_at", Float, nullable=False),
    Column("cleared_at", Float),
    Column("acked_by", String(64)),
    Column("acked_at", Float),
    Column("closed_by", String(64)),
    Column("closed_at", Float),
    Column("verdict_by", String(64)),
    Column("verdict_at", Float),
    Column("recorded_at", String(40)),
    Column("version", Integer, nullable=False),
    # Last, because it is large and most queries leave it out: SQLite then reads only the row's first page.
    Column("evidence", JSON),
    UniqueConstraint("fingerprint", "occurrence"),
    Index("ix_alerts_worst", "severity_rank", "id"),
    Index("ix_alerts_handling_id", "handling", "id"),
    Index("ix_alerts_handling_worst", "handling", "severity_rank", "id"),
    Index("ix_alerts_device", "tenant", "device_id", "id"),
)

alert_events = Table(
    "alert_events",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("alert_id", String(32), ForeignKey("alerts.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("from_", String(64)),
    Column("to", String(64), nullable=False),
    Column("reason", Text),
    Column("request_id", String(64)),
    Column("reading_key", String(320)),
    Column("data", JSON, nullable=False),
    Column("broadcast_at", Float),
    UniqueConstraint("alert_id", "seq"),
    # NULLs are distinct in SQLite and PostgreSQL: only events that carry a key are held to it.
    UniqueConstraint("reading_key"),
    UniqueConstraint("request_id", "alert_id"),
)

_pending = alert_events.c.broadcast_at.is_(None)
Index("ix_alert_events_pending", alert_events.c.id, sqlite_where=_pending, postgresql_where=_pending)
