"""Names under which processes of one floor find each other.

Every floor has a Ray cluster of its own, so the names are constants: two floors never
share a GCS, a Valkey or a data folder.
"""

NAMESPACE = "watchfloor"

HUB = "hub"
METRICS = "metrics"
RUN_QUEUE = "run-queue"
INGEST = "ingest-0"
INGEST_ACTOR = "ingest-{index}"
"""Each of them; the first is ``INGEST``."""
DETECTOR = "detector-0"
ARCHIVER = "archiver"
LABEL_QUEUE = "label-queue"

SERVE_APPLICATION = "gateway"

CHANNEL_NOC = "noc:all"
"""Every alert, run and system message of the floor; operators and above."""

TELEMETRY_STREAM = "wf:telemetry:{shard}"
"""Valkey stream of accepted readings, oldest first."""

DETECTOR_GROUP = "detector"
ARCHIVE_GROUP = "archive"

CIRCUIT_NOTICES = "realtime.circuit_notices:tell_noc"
"""Who announces that a circuit changed: the breaker lies below the broadcaster and knows it by name only."""
