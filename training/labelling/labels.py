"""What people are asked and what they said: label requests, labels, and their tables.

Decides nothing. Invariants: a label is never changed or removed, a later one for the same
subject stands beside it; every label names who or what gave it, and how.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table, UniqueConstraint

from cluster.store import metadata

AUDIT = "audit"
"""Who asked, when chance chose the question: what is estimated on such answers holds for all."""


class RequestState(StrEnum):
    """Where a label request is."""

    OPEN = "open"
    LEASED = "leased"
    """Somebody looks at it; an expired lease counts as open."""
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"
    """Nobody need answer it any more."""


class LabellingStrategy(StrEnum):
    """Who gives the labels."""

    MANUAL = "manual"
    """People, without a word of the model."""
    ASSISTED = "assisted"
    """People, who see what the model would say."""
    AUTO = "auto"
    """The model where audits prove that it is right often enough, people elsewhere."""


class Provenance(StrEnum):
    """How a label came about."""

    MANUAL = "manual"
    """A person, without seeing a proposal."""
    ASSISTED = "assisted"
    """A person who saw what the model proposes."""
    AUTO = "auto"
    """The model, where the audit stream says that it is right often enough."""
    VERDICT = "verdict"
    """A person's verdict on an alert."""


label_requests = Table(
    "label_requests",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("tenant", String(64), nullable=True),
    Column("subject", String(256), nullable=False),
    Column("question", JSON, nullable=False),
    Column("asked_by", String(64), nullable=False),
    Column("priority", Float, nullable=False),
    Column("proposal", String(64), nullable=True),
    Column("confidence", Float, nullable=True),
    Column("model_id", String(192), nullable=True),
    Column("created_at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("token", Integer, nullable=False),
    Column("lease_user", String(128), nullable=True),
    Column("lease_session", String(64), nullable=True),
    Column("lease_until", Float, nullable=True),
    UniqueConstraint("subject", "asked_by", "model_id", name="uq_label_requests_subject"),
    Index("ix_label_requests_lease", "lease_until"),
    Index("ix_label_requests_session", "lease_session"),
)

# In the order in which they are given out, so that the next one is found without sorting all that wait.
Index("ix_label_requests_next", label_requests.c.state, label_requests.c.priority.desc(), label_requests.c.id)

label_skips = Table(
    "label_skips",
    metadata,
    Column("request_id", String(26), primary_key=True),
    Column("user_id", String(128), primary_key=True),
    Column("at", Float, nullable=False),
    Column("reason", String(256), nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("at", Float, nullable=False),
    Column("tenant", String(64), nullable=True),
    Column("subject", String(256), nullable=False),
    Column("value", String(64), nullable=False),
    Column("user_id", String(128), nullable=False),
    Column("provenance", String(16), nullable=False),
    Column("request_id", String(26), nullable=True),
    Column("token", Integer, nullable=True),
    Column("alert_id", String(32), nullable=True),
    Column("model_id", String(192), nullable=True),
    Column("confidence", Float, nullable=True),
    Column("key", String(96), nullable=False, unique=True),
    Index("ix_labels_subject", "subject", "id"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something that a person could label, as whoever asks hands it over."""

    subject: str
    """Names what is labelled, such as ``window:acme/pump-1/temperature:1700000000.0:1700003600.0``."""
    asked_by: str
    """The query strategy, ``audit`` for the random stream."""
    priority: float = 0.0
    """Larger first."""
    tenant: str | None = None
    """Whose it is; None: the whole floor's."""
    details: dict[str, Any] = field(default_factory=dict)
    """What the page needs to show it."""
    proposal: str | None = None
    """What the model would say."""
    confidence: float | None = None
    """How sure it is, 0 to 1."""
    model_id: str | None = None
    """Which version asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequest:
    """One question in the queue."""

    id: str
    subject: str
    asked_by: str
    priority: float
    tenant: str | None
    details: dict[str, Any]
    proposal: str | None
    confidence: float | None
    model_id: str | None
    created_at: float
    """Seconds since the Unix epoch."""
    state: RequestState
    token: int
    """Fencing token: grows with every lease, and an answer must carry the newest one."""
    lease_user: str | None = None
    lease_session: str | None = None
    """The socket through which it was leased; the lease ends with it."""
    lease_until: float | None = None
    """Seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What somebody said about one subject."""

    id: str
    at: float
    """Seconds since the Unix epoch."""
    subject: str
    value: str
    user_id: str
    provenance: Provenance
    tenant: str | None = None
    request_id: str | None = None
    token: int | None = None
    """Of the lease under which it was given."""
    alert_id: str | None = None
    model_id: str | None = None
    """The version whose proposal was shown, or that gave the label itself."""
    confidence: float | None = None
