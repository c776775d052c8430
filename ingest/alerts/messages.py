"""What the dashboards are told about an event of an alert, and on which channels.

Pure: an event and its alert in, drafts out. The seed's types and the fields its consumers
read are kept (``critical_alert``, ``supervisor_alert``, ``tenant_alert``). Invariant: the
key of a draft is (event id, channel), so an event that is published again, by this process
or another, reaches each channel once.
"""

import logging
from collections.abc import Sequence
from typing import Any

from cluster.clock import Clock
from ingest.alerts.lifecycle import MUTED_BY
from ingest.alerts.model import Action, Alert, AlertEvent, JsonObject, Severity, alert_to_json, iso, suppression_to_json
from realtime import channels
from realtime.errors import InvalidChannelError, InvalidMessageError
from realtime.messages import MessageType, encode
from realtime.publication import Draft, Priority

logger = logging.getLogger(__name__)

ANNOUNCED = frozenset(
    {
        Action.RAISED,
        Action.REOPENED,
        Action.ESCALATED,
        Action.ACK_EXPIRED,
        Action.ESCALATED_TO,
        Action.UNSUPPRESSED,
        Action.FLAPPING_STARTED,
        Action.FLAPPING_STOPPED,
    }
)
"""Actions that call for a person, unless the event is muted; all others only keep dashboards up to date."""

SHORT_ID = 10
"""Characters, the last ones, by which a message of many alerts names each: 50 random bits of the id."""

PRIORITIES = {Severity.CRITICAL: Priority.CRITICAL, Severity.HIGH: Priority.HIGH}


def drafts_of(event: AlertEvent, alert: Alert, clock: Clock) -> list[Draft]:
    """Return the publications of one event.

    Raises:
        InvalidMessageError: the alert cannot be told (larger than a publication may be).
    """
    data = message_data(event, alert)
    if event.action is Action.ESCALATED_TO and event.data.get("to"):
        types = dict.fromkeys((*_noc(alert), *_tenant(alert)), MessageType.ALERT_UPDATE)
        types |= dict.fromkeys(_named(_channel_of, event.data["to"]), MessageType.SUPERVISOR_ALERT)
        return _drafts(event, data, types, PRIORITIES.get(alert.severity, Priority.NORMAL), clock)
    if not is_announced(event):
        types = dict.fromkeys((*_noc(alert), *_tenant(alert)), MessageType.ALERT_UPDATE)
        return _drafts(event, data, types, Priority.NORMAL, clock)
    first = MessageType.CRITICAL_ALERT if alert.severity is Severity.CRITICAL else MessageType.ALERT_NOTIFICATION
    types = dict.fromkeys(_noc(alert), first)
    types |= dict.fromkeys(_supervisor(alert), MessageType.SUPERVISOR_ALERT)
    types |= dict.fromkeys(_tenant(alert), MessageType.TENANT_ALERT)
    return _drafts(event, data, types, PRIORITIES.get(alert.severity, Priority.NORMAL), clock)


def is_announced(event: AlertEvent) -> bool:
    """Tell whether people are told of an event, and not only dashboards."""
    return event.action in ANNOUNCED and not event.data.get(MUTED_BY)


def batch_drafts(batch: Sequence[tuple[AlertEvent, Alert]], clock: Clock) -> list[Draft]:
    """Return the publications of one action on many alerts: one for each audience.

    It names alerts by the end of their ids, grouped by what they are now; one that is too
    large for a publication becomes two. Keys follow from the first event of a part, so the
    same batch published again disappears like any other.
    """
    audiences: dict[str, list[tuple[AlertEvent, Alert]]] = {}
    for event, alert in batch:
        own = [*_noc(alert), *_tenant(alert)]
        if is_announced(event):
            own += _supervisor(alert)
        for channel in own:
            audiences.setdefault(channel, []).append((event, alert))
    return [draft for channel, told in audiences.items() for draft in _batch_drafts(channel, told, clock)]


def _batch_drafts(channel: str, told: Sequence[tuple[AlertEvent, Alert]], clock: Clock) -> list[Draft]:
    first = told[0][0]
    worst = max((alert.severity for _, alert in told), key=lambda severity: severity.rank)
    priority = PRIORITIES.get(worst, Priority.NORMAL) if is_announced(first) else Priority.NORMAL
    try:
        encoded = encode(MessageType.ALERTS_CHANGED, batch_data(told), priority, clock)
    except InvalidMessageError:
        if len(told) == 1:
            raise
        middle = len(told) // 2
        return [*_batch_drafts(channel, told[:middle], clock), *_batch_drafts(channel, told[middle:], clock)]
    return [Draft(channel, encoded, priority, key=f"{first.id}:{channel}")]


def batch_data(told: Sequence[tuple[AlertEvent, Alert]]) -> JsonObject:
    """Return the ``data`` of the message of one action on many alerts."""
    first = told[0][0]
    return {
        "request_id": first.request_id,
        "action": first.action.value,
        "actor": first.actor,
        "reason": first.reason,
        "at": iso(first.at),
        "is_announced": is_announced(first),
        "count": len(told),
        "changes": changes_of([alert for _, alert in told]),
    }


def changes_of(alerts: Sequence[Alert]) -> list[JsonObject]:
    """Return alerts that an action changed, grouped by what they have in common now.

    Returns:
        Objects ``{"version", "set", "ids"}``: ``set`` are fields of the alerts' JSON, ``ids`` the last ``SHORT_ID``
        characters of each id, one behind the other.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for alert in alerts:
        state = (alert.version, *(getattr(alert, name) for name in _SHARED))
        groups.setdefault(state, []).append(alert.id[-SHORT_ID:])
    return [
        {
            "version": version,
            "set": {name: _value(one) for name, one in zip(_SHARED, values, strict=True)},
            "ids": "".join(ids),
        }
        for (version, *values), ids in groups.items()
    ]


_SHARED = (
    "handling",
    "acked_by",
    "acked_at",
    "ack_expires_at",
    "closed_by",
    "closed_at",
    "verdict",
    "verdict_by",
    "suppressed_by",
    "escalation_level",
    "escalated_to",
)
"""What people, silences and the timer change; what a source says is no part of such an action."""


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [suppression_to_json(one) for one in value]
    return iso(value) if isinstance(value, float) else value


def _channel_of(audience: str) -> str:
    kind, _, name = audience.partition(":")
    return channels.user(name) if kind == "user" else channels.group(name)


def message_data(event: AlertEvent, alert: Alert) -> JsonObject:
    """Return the ``data`` of an event's messages."""
    data: dict[str, Any] = {
        "event_id": event.id,
        "alert_id": alert.id,
        "action": str(event.action),
        "actor": event.actor,
        "at": iso(event.at),
        "alert": alert_to_json(alert),
    }
    if "details" in event.data:
        data["details"] = event.data["details"]
    if is_announced(event):
        # What the seed's dashboards read.
        data |= {
            "source_id": alert.device_id,
            "alert_type": alert.rule,
            "severity": str(alert.severity),
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
