"""What becomes of each MQTT message: a reading, an alert, a presence, a dead letter, or nothing.

Pure decisions, message by message; ``lane.py`` carries them out. Invariants: it never raises,
whatever a device sends, and a message that it answers with None carries nothing that has to
be kept.
"""

import hashlib

from ingest.dead_letter import DeadLetter
from ingest.decoder import ClockTolerance, Decoder
from ingest.delivery import MAX_PAYLOAD_BYTES, Delivery
from ingest.payload import CommandAck, DeviceAlert, PayloadError, Reading, Reason, StateChange
from ingest.topics import Topic, TopicClass, TopicTree

Judged = Reading | DeviceAlert | StateChange | CommandAck | DeadLetter


class Pipeline:
    """Judges deliveries of one topic tree."""

    def __init__(self, tree: TopicTree, tolerance: ClockTolerance) -> None:
        self._tree = tree
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
        if topic.kind is TopicClass.STATE or topic.kind is TopicClass.COMMAND:
            return None
        return self._decoded(topic, delivery)

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
        try:
            if topic.kind is TopicClass.STATE:
                return self._decoder.state(topic, delivery.payload, delivery.received_at)
            if topic.kind is TopicClass.COMMAND_ACK:
                # A retained copy or a redelivery is recognised by what it says, so it needs no key.
                return self._decoder.command_ack(topic, delivery.payload, delivery.received_at, delivery.correlation)
            decode = self._decoder.reading if topic.kind is TopicClass.TELEMETRY else self._decoder.alert
            decoded = decode(topic, delivery.payload, delivery.received_at, delivery.qos)
        except PayloadError as error:
            return dead_letter(delivery, error.reason, error.detail)
        if delivery.is_retained and decoded.seq is None:
            # A broker sends its retained copy at every subscribe, and without a key no one could tell them apart.
            return None
        return decoded


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
    )
