"""What the dashboards are told about an event of an alert, and on which channels.

Pure: an event and its alert in, drafts out. The seed's types and the fields its consumers
read are kept (``critical_alert``, ``supervisor_alert``, ``tenant_alert``). Invariant: the
key of a draft is (event id, channel), so an event that is published again, by this process
or another, reaches each channel once.
"""

import logging
from typing import Any

from cluster.clock import Clock
from ingest.alerts.model import Action, Alert, AlertEvent, JsonObject, Severity, alert_to_json, iso
from realtime import channels
from realtime.errors import InvalidChannelError
from realtime.messages import MessageType, encode
from realtime.publication import Draft, Priority

logger = logging.getLogger(__name__)

ANNOUNCED = frozenset({Action.RAISED, Action.REOPENED, Action.ESCALATED})
"""Actions that call for a person; all others only keep dashboards up to date."""

PRIORITIES = {Severity.CRITICAL: Priority.CRITICAL, Severity.HIGH: Priority.HIGH}


def drafts_of(event: AlertEvent, alert: Alert, clock: Clock) -> list[Draft]:
    """Return the publications of one event.

    Raises:
        InvalidMessageError: the alert cannot be told (larger than a publication may be).
    """
    data = message_data(event, alert)
    if event.action not in ANNOUNCED:
        types = dict.fromkeys((*_noc(alert), *_tenant(alert)), MessageType.ALERT_UPDATE)
        return _drafts(event, data, types, Priority.NORMAL, clock)
    first = MessageType.CRITICAL_ALERT if alert.severity is Severity.CRITICAL else MessageType.ALERT_NOTIFICATION
    types = dict.fromkeys(_noc(alert), first)
    types |= dict.fromkeys(_supervisor(alert), MessageType.SUPERVISOR_ALERT)
    types |= dict.fromkeys(_tenant(alert), MessageType.TENANT_ALERT)
    return _drafts(event, data, types, PRIORITIES.get(alert.severity, Priority.NORMAL), clock)


def message_data(event: AlertEvent, alert: Alert) -> JsonObject:
    """Return the ``data`` of an event's messages."""
    data: dict[str, Any] = {
        "event_id": event.id,
        "alert_id": alert.id,
        "action": event.action.value,
        "actor": event.actor,
        "at": iso(event.at),
        "alert": alert_to_json(alert),
    }
    if "details" in event.data:
        data["details"] = event.data["details"]
    if event.action in ANNOUNCED:
        # What the seed's dashboards read.
        data |= {
            "source_id": alert.device_id,
            "alert_type": alert.rule,
            "severity": alert.severity.value,
            "message": alert.text,
            "timestamp": iso(alert.starts_at),
        }
    return data


def _drafts(
    event: AlertEvent, data: JsonObject, types: dict[str, MessageType], priority: Priority, clock: Clock
) -> list[Draft]:
    encoded = {kind: encode(kind, data, priority, clock) for kind in set(types.values())}
    return [Draft(channel, encoded[kind], priority, key=f"{event.id}:{channel}") for channel, kind in types.items()]


def _noc(alert: Alert) -> list[str]:
    own = [] if alert.client_id is None else _named(channels.noc_client, alert.client_id)
    return [channels.NOC_ALL, *own]


def _supervisor(alert: Alert) -> list[str]:
    return [] if alert.supervisor_id is None else _named(channels.user, alert.supervisor_id)


def _tenant(alert: Alert) -> list[str]:
    return _named(channels.tenant, alert.tenant)


def _named(name: Any, identifier: str) -> list[str]:
    try:
        return [name(identifier)]
    except InvalidChannelError as error:
        # A directory may name a user that no channel can; the other audiences still hear of it.
        logger.warning("nobody can be told on this channel: %s", error)
        return []
