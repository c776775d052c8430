"""Hands queued commands to the broker, oldest first, until it has them or their time is over.

One turn sends a few commands; which thread turns, and how it is published, is passed in. Any
number of processes may send: the store gives each command to one of them. Invariants: a
command is marked as sent only after the broker's PUBACK; when a PUBACK did not come, the same
command goes out again under the same id, which is how the device knows it.
"""

import math
import random
from collections.abc import Callable, Sequence

import orjson

from cluster.clock import Clock
from cluster.errors import CircuitOpenError
from ingest.command import Command, refused, sent, waits
from ingest.command_store import CommandStore
from ingest.errors import BrokerRefusedError, BrokerUnavailableError
from ingest.publisher_mqtt import Request
from ingest.topics import TopicClass, TopicTree

BATCH = 16
"""Commands claimed together: two commits for all of them, and what waits for a claim to end when a process dies."""
BROKER_TIMEOUT_S = 10.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
"""Between two tries of one command: at most so long after the broker is back it goes out."""

Publish = Callable[[str, bytes, float, Request], None]
"""(topic, payload, time-out in seconds, request): see ``commands.publish_mqtt``."""


class CommandSender:
    """Sends what the store has queued."""

    def __init__(self, store: CommandStore, tree: TopicTree, publish: Publish, clock: Clock) -> None:
        self._store = store
        self._tree = tree
        self._publish = publish
        self._clock = clock

    def send_due(self) -> bool:
        """Try to send some commands; False when there are none, or the broker takes none at the moment."""
        claimed = self._store.claim(BATCH)
        taken: list[str] = []
        for number, command in enumerate(claimed):
            try:
                if self._send(command):
                    taken.append(command.id)
            except CircuitOpenError as error:
                self._note_sent(taken)
                self._wait(claimed[number:], f"the circuit of {error.service} is open", error.retry_in_s)
                return False
            except (BrokerUnavailableError, OSError) as error:  # a TimeoutError is an OSError
                self._note_sent(taken)
                self._wait(claimed[number:], str(error), FIRST_PAUSE_S * 2 ** min(command.attempts, 10))
                return False
        self._note_sent(taken)
        return bool(claimed)

    def _send(self, command: Command) -> bool:
        """Publish one command; False when it is not to be sent any more."""
        left_s = command.expires_at - self._clock.time_s()
        if left_s <= 0:
            return False  # its end is the relay's to write
        topic = self._tree.build(TopicClass.COMMAND, command.tenant, command.device)
        try:
            self._publish(topic, wire_payload(command), min(BROKER_TIMEOUT_S, left_s), self._request(command, left_s))
        except BrokerRefusedError as error:
            at, reason = self._clock.time_s(), str(error)
            self._store.change([command.id], lambda current: refused(current, at, reason))
            return False
        return True

    def _note_sent(self, ids: Sequence[str]) -> None:
        at = self._clock.time_s()
        self._store.change(ids, lambda current: sent(current, at))

    def _wait(self, left: Sequence[Command], reason: str, pause_s: float) -> None:
        at = self._clock.time_s()
        pause_s = min(pause_s, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
        self._store.change([one.id for one in left], lambda current: waits(current, at, reason), retry_in_s=pause_s)

    def _request(self, command: Command, left_s: float) -> Request:
        return Request(
            response_topic=self._tree.build(TopicClass.COMMAND_ACK, command.tenant, command.device),
            correlation=command.id.encode(),
            expiry_s=max(1, math.ceil(left_s)),
        )


def wire_payload(command: Command) -> bytes:
    """Return what the device gets; the same bytes every time, with MQTT 5 and 3.1.1."""
    return orjson.dumps(
        {
            "command_id": command.id,
            "expires_at": int(command.expires_at * 1000),
            "payload": command.payload,
        }
    )
