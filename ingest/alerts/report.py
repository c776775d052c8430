"""What a source says about one problem: the one form in which the engine takes reports.

A report names its problem by a fingerprint and says that it is there, still there, or gone.
Knows no source: devices and the detector are translated by the engine, rules and other
systems build theirs beside their own code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingest.alerts.lifecycle import Sighting
from ingest.alerts.model import Evidence, SourceKind
from ingest.episode import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReport:
    """One report of one source."""

    tenant: str
    device_id: str
    fingerprint: str
    """Name of the problem, see ``engine.fingerprint``."""
    sighting: Sighting
    """When, how bad, by whom, in which words; a clear uses its ``at`` and ``actor`` only."""
    kind: SourceKind
    rule: str
    title: str
    change: Change = Change.RAISE
    """RAISE begins an occurrence or joins the one that goes on; UPDATE needs one; CLEAR ends it."""
    metric: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the first report of an occurrence."""
    evidence: Evidence | None = None
    reading_key: str | None = None
    """Idempotency: of several reports with one key the first has its effect; None: all have."""
