"""What becomes of each MQTT message: a reading, an alert, a presence, a dead letter, or nothing.

Pure decisions, message by message; ``lane.py`` carries them out. Invariants: it never raises,
whatever a device sends, and a message that it answers with None carries nothing that has to
be kept.
"""

import hashlib
import re
from dataclasses import dataclass, replace

from ingest.codecs import codec_of
from ingest.dead_letter import DeadLetter
from ingest.decoder import ClockTolerance, Decoder, seconds_of
from ingest.delivery import MAX_PAYLOAD_BYTES, Delivery
from ingest.payload import DeviceAlert, PayloadError, Reading, Reason, StateChange
from ingest.topics import Topic, TopicClass, TopicTree

Judged = Reading | DeviceAlert | StateChange | DeadLetter

_TENANT_OF_USER = re.compile(r"[A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerWord:
    """What the broker adds to a message by itself, and under which names (MQTT 5 user properties)."""

    user: str = ""
    """Property with the publisher's user name; empty: the broker names none, its ACL alone decides."""
    time: str = ""
    """Property with the time of arrival at the broker; empty: none."""

    @property
    def names(self) -> frozenset[str]:
        """The properties to keep of a message."""
        return frozenset(filter(None, (self.user, self.time)))


NOTHING_ADDED = BrokerWord()


class Pipeline:
    """Judges deliveries of one topic tree."""

    def __init__(self, tree: TopicTree, tolerance: ClockTolerance, broker_word: BrokerWord = NOTHING_ADDED) -> None:
        self._tree = tree
        self._broker_word = broker_word
        self._decoder = Decoder(tolerance)

    def topic_class(self, delivery: Delivery) -> TopicClass | None:
        """Return what the delivery's topic is; None when it matches no template."""
        topic = self._tree.parse(delivery.topic)
        return topic.kind if topic is not None else None

    def judge(self, delivery: Delivery) -> Judged | None:
        """Return what is to be kept of a delivery on the main connection; None: nothing."""
        topic = self._tree.parse(delivery.topic)
        if topic is None:
            return dead_letter(delivery, Reason.UNKNOWN_TOPIC, f"no template under {self._tree.root}/ matches")
        # Presence has a connection of its own, and commands travel the other way.
        if topic.kind is TopicClass.TELEMETRY or topic.kind is TopicClass.ALERT:
            return self._decoded(topic, delivery)
        return None

    def judge_presence(self, delivery: Delivery) -> Judged | None:
        """Return what is to be kept of a delivery on the presence connection; None: nothing."""
        topic = self._tree.parse(delivery.topic)
        if topic is None or topic.kind is not TopicClass.STATE:
            return None  # the main connection sees it too and answers for it
        if delivery.payload_bytes == 0:
            return None  # how MQTT removes a retained message
        return self._decoded(topic, delivery)

    def _decoded(self, topic: Topic, delivery: Delivery) -> Judged | None:
        if delivery.is_oversize:
            detail = f"{delivery.payload_bytes} bytes, at most {MAX_PAYLOAD_BYTES}"
            return dead_letter(delivery, Reason.OVERSIZE, detail)
        if self._broker_word.user and not self._is_own(topic, delivery):
            return dead_letter(delivery, Reason.FOREIGN_TENANT, "the publisher's user is not one of the topic's tenant")
        try:
            codec = codec_of(delivery.content_type)
            if topic.kind is TopicClass.STATE:
                state = self._decoder.state(topic, delivery.payload, delivery.received_at, codec)
                return replace(state, is_retained=delivery.is_retained)
            decoded: Reading | DeviceAlert
            if topic.kind is TopicClass.TELEMETRY:
                broker_ts = self._broker_time(delivery) if self._broker_word.time else None
                decoded = self._decoder.reading(
                    topic, delivery.payload, delivery.received_at, delivery.qos, codec, broker_ts
                )
            else:
                decoded = self._decoder.alert(topic, delivery.payload, delivery.received_at, delivery.qos, codec)
        except PayloadError as error:
            return dead_letter(delivery, error.reason, error.detail)
        if delivery.is_retained and not decoded.is_keyed:
            # A broker sends its retained copy at every subscribe, and without a key no one could tell them apart.
            return None
        return decoded

    def _is_own(self, topic: Topic, delivery: Delivery) -> bool:
        """Say whether every user that is named is one of the topic's tenant.

        Every one: a device may add a property of this name itself, beside the broker's.
        """
        users = [value for name, value in delivery.user_properties if name == self._broker_word.user]
        return bool(users) and all(tenant_of_user(user) == topic.tenant for user in users)

    def _broker_time(self, delivery: Delivery) -> float | None:
        # The last: a broker appends its own behind what a device made up.
        texts = [value for name, value in delivery.user_properties if name == self._broker_word.time]
        if not texts:
            return None
        text = texts[-1]
        seconds = int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 16 else seconds_of(text)
        return seconds or None


def tenant_of_user(user: str) -> str:
    """Return the tenant of an MQTT user name: ``acme`` of ``acme`` and of ``acme.pump-7``."""
    match = _TENANT_OF_USER.match(user)
    return match[0] if match else ""


def dead_letter(delivery: Delivery, reason: Reason, detail: str) -> DeadLetter:
    """Return the dead letter of a delivery."""
    return DeadLetter(
        topic=delivery.topic,
        reason=reason,
        detail=detail,
        payload=delivery.payload,
        payload_bytes=delivery.payload_bytes,
        sha256=delivery.sha256 or hashlib.sha256(delivery.payload).hexdigest(),
        received_at=delivery.received_at,
        is_repeat=delivery.is_dup or delivery.is_retained,
        content_type=delivery.content_type,
    )
