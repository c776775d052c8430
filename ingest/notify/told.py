"""Which changes of which alerts leave the floor, and in which words.

Pure. The one place that knows when nobody outside is told: what was silenced, in maintenance
or flapping when it happened, or is so by the time it would be sent.
"""

import orjson

from ingest.alerts.lifecycle import MUTED_BY
from ingest.alerts.messages import message_data
from ingest.alerts.model import Action, Alert, AlertEvent, SuppressionKind, iso


def is_muted(alert: Alert, event: AlertEvent | None = None) -> bool:
    """Tell whether nobody outside hears of an alert, or of one event of it.

    That it flaps is told once, as it starts, or nobody would know why it falls silent.
    """
    if event is None:
        return alert.is_suppressed
    if event.data.get(MUTED_BY):
        return True
    if event.action is Action.FLAPPING_STARTED:
        return any(one.kind is not SuppressionKind.FLAPPING for one in alert.suppressed_by)
    return alert.is_suppressed


def message_of(event: AlertEvent, alert: Alert) -> bytes:
    """Return the body of an event's webhook: the message that dashboards get, in an envelope."""
    return orjson.dumps(
        {
            "type": f"alert.{event.action.value}",
            "timestamp": iso(event.at),
            "data": message_data(event, alert),
        }
    )
