"""SQL tables of what leaves the floor: messages on their way, and how far each target has got.

A message is one change of one alert for one target. Invariants: (target, event) makes one
message; a message that was delivered stays for a while, so that a second look at the same
event finds it; a dead one stays until its age or somebody's replay.
"""

from sqlalchemy import Column, Float, Index, Integer, String, Table, Text, UniqueConstraint

from cluster.store import metadata

notifications = Table(
    "notifications",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("target", String(32), nullable=False),
    Column("event_id", String(32), nullable=False),
    Column("alert_id", String(32), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    # When it is tried next, or when it reached its end.
    Column("at", Float, nullable=False),
    Column("error", Text),
    Column("body", Text, nullable=False),
    UniqueConstraint("target", "event_id"),
    Index("ix_notifications_state", "target", "state", "at"),
    Index("ix_notifications_alert", "alert_id", "target", "seq"),
)

notification_targets = Table(
    "notification_targets",
    metadata,
    Column("target", String(32), primary_key=True),
    # Id of the newest event that was looked at.
    Column("position", String(32), nullable=False),
    # Which process sends now, and until when it may without asking again.
    Column("owner", String(64)),
    Column("owned_until", Float, nullable=False),
)
