"""The floor's labels of a set of series, read for a data set.

Reads SQL, decides nothing. What was said of a window names its stretch; what was said of an alert speaks of
the stretch from the alert's first reading to its last. Labels of anything else are no part of telemetry.
Invariant: every label of a series is there with who gave it and how, so a data set leads to its people.
"""

from collections.abc import Collection

from sqlalchemy import Connection, select

from ingest.alerts.tables import alerts
from training.data.labels import MAX_LABELS, LabelledSpan
from training.labelling.labels import AUDIT, Provenance, label_requests, labels

WINDOW = "window:"
"""How the subject of a window's label begins: ``window:KEY:FROM:TO``, times in seconds since the Unix epoch."""


def read_labels(connection: Connection, keys: Collection[str]) -> list[LabelledSpan]:
    """Return all labels of the series with these keys, at most the newest ``MAX_LABELS`` of the floor."""
    wanted = frozenset(keys)
    found = labels.outerjoin(alerts, labels.c.alert_id == alerts.c.id)
    query = (
        select(
            labels.c.id, labels.c.at, labels.c.subject, labels.c.value, labels.c.user_id, labels.c.provenance,
            alerts.c.tenant, alerts.c.device_id, alerts.c.metric, alerts.c.starts_at, alerts.c.last_seen_at,
        )
        .select_from(found)
        .order_by(labels.c.id.desc())
        .limit(MAX_LABELS)
    )  # fmt: skip
    spans = []
    for row in connection.execute(query):
        stretch = parse_window(row.subject)
        if stretch is None and row.metric is not None:
            stretch = f"{row.tenant}/{row.device_id}/{row.metric}", row.starts_at, max(row.starts_at, row.last_seen_at)
        if stretch is None or stretch[0] not in wanted:
            continue
        key, from_ts, to_ts = stretch
        spans.append(
            LabelledSpan(
                key=key,
                from_ts=from_ts,
                to_ts=to_ts,
                at=row.at,
                label_id=row.id,
                value=row.value,
                user_id=row.user_id,
                provenance=row.provenance,
            )
        )
    return spans


def read_audits(connection: Connection) -> frozenset[str]:
    """Return the ids of the labels that answered a question drawn at random, without a proposal."""
    query = (
        select(labels.c.id)
        .join(label_requests, labels.c.request_id == label_requests.c.id)
        .where(label_requests.c.asked_by == AUDIT, labels.c.provenance == Provenance.MANUAL)
        .order_by(labels.c.id.desc())
        .limit(MAX_LABELS)
    )
    return frozenset(connection.execute(query).scalars())


def parse_window(subject: str) -> tuple[str, float, float] | None:
    """Return key, first and last time of a window's subject; None when it names something else."""
    if not subject.startswith(WINDOW):
        return None
    parts = subject.removeprefix(WINDOW).rsplit(":", 2)
    try:
        key, first, last = parts[0], float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        return None
    return (key, first, last) if key.count("/") >= 2 and first <= last else None
