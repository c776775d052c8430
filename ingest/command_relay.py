"""Ends commands whose deadline has passed, and tells the dashboards what became of each.

The table is the outbox, as with alerts: a process that dies between commit and publish
loses nothing, and the key of a message makes its second publication disappear. Invariant: an
event is marked only after the hub confirmed its messages. A message carries no payload:
who may listen to a device need not be allowed to command it.
"""

import logging
from typing import Any

from cluster.clock import Clock
from ingest.command import Command, CommandEvent, command_to_json, event_to_json
from ingest.command_store import CommandStore
from realtime import channels
from realtime.errors import InvalidChannelError
from realtime.hub_client import HubClient
from realtime.messages import MessageType, encode
from realtime.publication import Draft, Priority

logger = logging.getLogger(__name__)

PUBLISH_TIMEOUT_S = 5.0


class CommandRelay:
    """One process's relay of commands."""

    def __init__(self, store: CommandStore, hub: HubClient, clock: Clock) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock

    def turn(self) -> bool:
        """End what is overdue and tell what is new; True while there is more.

        Raises:
            HubUnavailableError: not confirmed; the rest stays pending.
        """
        ended = self._store.end_overdue()
        told = self._tell()
        return bool(ended or told)

    def _tell(self) -> int:
        pending = self._store.pending()
        if not pending:
            return 0
        drafts = [draft for event, command in pending for draft in drafts_of(event, command, self._clock)]
        if drafts:
            self._hub.publish_sync(drafts, timeout_s=PUBLISH_TIMEOUT_S)
        self._store.mark_told([event.id for event, _ in pending])
        return len(pending)


def drafts_of(event: CommandEvent, command: Command, clock: Clock) -> list[Draft]:
    """Return the publications of one event: to who watches the device, and to who gave the command."""
    data: dict[str, Any] = {
        "command_id": command.id,
        "event": event_to_json(event),
        "command": command_to_json(command, with_payload=False),
    }
    encoded = encode(MessageType.COMMAND_UPDATE, data, Priority.NORMAL, clock)
    audience = [channels.device(command.tenant, command.device)]
    try:
        audience.append(channels.user(command.user_id))
    except InvalidChannelError:
        # What an identity provider calls a user need not be able to name a channel.
        logger.debug("user of command %s has no channel", command.id)
    return [Draft(channel, encoded, Priority.NORMAL, key=f"{event.id}:{channel}") for channel in audience]
