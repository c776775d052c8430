"""SQL tables of alerts, of their history, and of what acts on them: silences and heartbeats.

An alert is one occurrence of one problem; its events are its append-only history and, by
``broadcast_at``, the outbox of what the dashboards have not been told yet. Invariants:
(fingerprint, occurrence) names an alert once; ``alert_events.seq`` is the alert's
``version`` after the event; a reading key or a request id changes an alert at most once;
the database itself refuses to change an event, its ``broadcast_at`` apart.
"""

from sqlalchemy import (
    DDL,
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
    event,
    false,
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
    # NULL for none of them, which is nearly always and costs nothing.
    Column("suppressed_by", JSON(none_as_null=True)),
    Column("is_suppressed", Boolean, nullable=False, default=False, server_default=false()),
    Column("flaps", JSON(none_as_null=True)),
    Column("ack_expires_at", Float),
    Column("waiting_since", Float),
    Column("escalation_level", Integer, nullable=False, default=0, server_default="0"),
    Column("escalated_to", String(80)),
    # Last, because it is large and most queries leave it out: SQLite then reads only the row's first page.
    Column("evidence", JSON),
    UniqueConstraint("fingerprint", "occurrence"),
    Index("ix_alerts_worst", "severity_rank", "id"),
    Index("ix_alerts_handling_id", "handling", "id"),
    Index("ix_alerts_handling_worst", "handling", "severity_rank", "id"),
    Index("ix_alerts_device", "tenant", "device_id", "id"),
)

# What the timer asks for every second: few rows each, whatever the number of alerts.
_acked = alerts.c.ack_expires_at.is_not(None)
Index("ix_alerts_ack_expires", alerts.c.ack_expires_at, sqlite_where=_acked, postgresql_where=_acked)
_waiting = alerts.c.handling == "new"
Index(
    "ix_alerts_waiting",
    alerts.c.severity,
    alerts.c.escalation_level,
    alerts.c.waiting_since,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
_suppressed = alerts.c.is_suppressed.is_(True)
Index("ix_alerts_suppressed", alerts.c.id, sqlite_where=_suppressed, postgresql_where=_suppressed)
_judged = alerts.c.verdict.is_not(None)
Index("ix_alerts_judged", alerts.c.model_version, alerts.c.verdict, sqlite_where=_judged, postgresql_where=_judged)
Index("ix_alerts_verdict_at", alerts.c.verdict_at, sqlite_where=_judged, postgresql_where=_judged)

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

_HISTORY = ", ".join(f'"{column.name}"' for column in alert_events.columns if column.name != "broadcast_at")

APPEND_ONLY = {
    "sqlite": (
        f"""CREATE TRIGGER alert_events_append_only BEFORE UPDATE OF {_HISTORY}
        ON alert_events BEGIN SELECT RAISE(ABORT, 'alert_events is append-only'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION alert_events_refuse() RETURNS trigger AS
        'BEGIN RAISE EXCEPTION ''alert_events is append-only''; END' LANGUAGE plpgsql""",
        f"""CREATE TRIGGER alert_events_append_only BEFORE UPDATE OF {_HISTORY}
        ON alert_events FOR EACH ROW EXECUTE FUNCTION alert_events_refuse()""",
    ),
}
"""Statements that make the history append-only; deleting is what retention does, and stays possible."""

for _dialect, _statements in APPEND_ONLY.items():
    for _statement in _statements:
        _made = DDL(_statement).execute_if(dialect=_dialect)  # type: ignore[no-untyped-call]
        event.listen(alert_events, "after_create", _made)

silences = Table(
    "silences",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    # NULL: of all tenants; only who works floor-wide makes these.
    Column("tenant", String(64)),
    Column("matchers", JSON, nullable=False),
    Column("starts_at", Float, nullable=False),
    Column("ends_at", Float, nullable=False),
    Column("repeats", String(16), nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("repeats_until", Float),
    Column("comment", Text, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_by", String(64), nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("expired_by", String(64)),
    # The window that is on or comes next, of a repeated one too; NULL when there is none any more.
    Column("active_from", Float),
    Column("active_until", Float),
    # When the timer has to look at it next, for a window that begins or ends or an edit; NULL: never.
    Column("due_at", Float),
    Column("version", Integer, nullable=False),
    Column("told_version", Integer, nullable=False),
    Column("request_id", String(64)),
    UniqueConstraint("created_by", "request_id"),
    Index("ix_silences_active_until", "active_until"),
    Index("ix_silences_due_at", "due_at"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    # A device whose messages are the beats; NULL: somebody calls the API.
    Column("device_id", String(64)),
    Column("timeout_s", Float, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_beat_at", Float),
    Column("is_missing", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
)

external_alerts = Table(
    "external_alerts",
    metadata,
    Column("fingerprint", String(16), primary_key=True),
    Column("ends_at", Float, nullable=False, index=True),
)
"""Until when each alert of another system holds, in seconds since the epoch, unless it is repeated."""
