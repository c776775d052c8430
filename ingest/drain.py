"""Emptying the session of an ingest actor that is no more, before the broker is told to forget it.

Driven once a second by the first actor; a connection of its own under the old client id.
Invariant: the session ends only after all that the broker kept for it has been stored and
acknowledged, and after its topics were received by somebody else.
"""

import logging
import time
from collections.abc import Callable

from ingest.broker_calls_mqtt import end_session, marker_topic, publish_marker
from ingest.delivery import Delivery
from ingest.inbox import Filters, InboxObserver, MqttSettings, Subscription
from ingest.mqtt_address import MqttAddress
from ingest.mqtt_client import MqttInbox
from ingest.session_store import Session
from ingest.shares import SHARED
from ingest.topics import TopicTree

logger = logging.getLogger(__name__)

SHARED_QUIET_S = 3.0
"""After its filter is gone a session gets what was queued for it and nothing else; it is empty after such a pause."""
PLAIN_QUIET_S = 12.0
"""nats-server repeats what a dead client held after its ``ack_wait`` (5 s), and behind newer messages."""


class Drain:
    """One session on its way out."""

    def __init__(
        self,
        session: Session,
        address: MqttAddress,
        tree: TopicTree,
        settings: MqttSettings,
        *,
        deliver: Callable[[Delivery], bool],
        has_room: Callable[[], bool],
        observer: InboxObserver,
    ) -> None:
        self.session = session
        self._address = address
        self._deliver = deliver
        plain = [one for one in session.filters if not one.startswith(SHARED)]
        shared = tuple(one for one in session.filters if one.startswith(SHARED))
        # A broker that shares keeps the queue of a filter that is taken off; nats-server throws it away, so there
        # the filter stays to the end. What it brings after the marker somebody else receives as well.
        self._markers = {marker_topic(tree, _tenant_of(tree, one)) for one in plain}
        self._awaited = set(self._markers)
        self._are_markers_sent = False
        self._quiet_s = PLAIN_QUIET_S if plain else SHARED_QUIET_S
        self._kept_at_s = time.monotonic()
        self.inbox = MqttInbox(
            address,
            Subscription(client_id=session.client_id, has_session=True, filters=lambda: Filters((), shared)),
            settings,
            deliver=self._take,
            has_room=has_room,
            observer=observer,
        )

    def start(self) -> None:
        """Connect under the old client id."""
        logger.info("emptying the session %s at the broker", self.session.client_id)
        self.inbox.start()

    def step(self) -> bool:
        """Look how far it is; True when the broker has forgotten the session.

        Raises:
            OSError: the broker does not answer; the next call goes on.
        """
        self.inbox.supervise()
        status = self.inbox.status()
        if not self.inbox.is_settled:
            self._kept_at_s = time.monotonic()
            return False
        if self._markers and not self._are_markers_sent:
            for topic in sorted(self._markers):
                publish_marker(self._address, topic)
            self._are_markers_sent = True
        if self._awaited or status.window or time.monotonic() - self._kept_at_s < self._quiet_s:
            return False
        self.inbox.stop()
        end_session(self._address, self.session.client_id)
        logger.info("the session %s is empty and has ended", self.session.client_id)
        return True

    def _take(self, delivery: Delivery) -> bool:
        if delivery.topic in self._markers:
            self._awaited.discard(delivery.topic)
            self._kept_at_s = time.monotonic()
        elif self._awaited or delivery.is_dup or not self._markers:
            self._kept_at_s = time.monotonic()
            return self._deliver(delivery)
        self.inbox.settle([delivery])
        return True


def _tenant_of(tree: TopicTree, topic_filter: str) -> str:
    tenant = topic_filter.removeprefix(f"{tree.root}/").partition("/")[0]
    return "-" if tenant in {"#", "+"} else tenant
