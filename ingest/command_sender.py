"""Hands queued commands to the broker, oldest first, until it has them or their time is over.

One turn sends one command; which thread turns, and how it is published, is passed in. Any
number of processes may send: the store gives each command to one of them. Invariants: a
command is marked as sent only after the broker's PUBACK; when a PUBACK did not come, the same
command goes out again under the same id, which is how the device knows it.
"""

import math
import random
from collections.abc import Callable

import orjson

from cluster.clock import Clock
from cluster.errors import CircuitOpenError
from ingest.command import Command, refused, sent, waits
from ingest.command_store import CommandStore
from ingest.errors import BrokerRefusedError, BrokerUnavailableError
from ingest.publisher_mqtt import Request
from ingest.topics import TopicClass, TopicTree

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

    def send_next(self) -> bool:
        """Try to send one command; False when there is none, or the broker takes none at the moment."""
        command = self._store.claim()
        if command is None:
            return False
        left_s = command.expires_at - self._clock.time_s()
        if left_s <= 0:
            return True  # its end is the relay's to write
        topic = self._tree.build(TopicClass.COMMAND, command.tenant, command.device)
        try:
            self._publish(topic, wire_payload(command), min(BROKER_TIMEOUT_S, left_s), self._request(command, left_s))
        except CircuitOpenError as error:
            self._wait(command, f"the circuit of {error.service} is open", error.retry_in_s)
            return False
        except BrokerRefusedError as error:
            at, reason = self._clock.time_s(), str(error)
            self._store.change(command.id, lambda current: refused(current, at, reason))
            return True
        except (BrokerUnavailableError, OSError) as error:  # a TimeoutError is an OSError
            self._wait(command, str(error), FIRST_PAUSE_S * 2 ** min(command.attempts, 10))
            return False
        at = self._clock.time_s()
        self._store.change(command.id, lambda current: sent(current, at))
        return True

    def _wait(self, command: Command, reason: str, pause_s: float) -> None:
        at = self._clock.time_s()
        pause_s = min(pause_s, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
        self._store.change(command.id, lambda current: waits(current, at, reason), retry_in_s=pause_s)

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
