"""The messages of one connection that are received and not yet acknowledged.

Pure state, and its owner serialises access. It knows two habits of brokers: nats-server
sends every unacknowledged message again each ``ack_wait`` on the *same* connection, and MQTT
wants acknowledgements in the order of arrival. Invariants: a message is released once per
connection, in arrival order, and only after it was settled; a repeat is never released by
itself, because by then its packet id may name another message that nobody has stored.
"""

from ingest.delivery import Delivery

REMEMBERED_S = 30.0
"""How long a released packet id marks a repeat as one. Longer than any broker's resend interval
that overlaps an acknowledgement on its way, shorter than a stuck id could do harm."""


class ReceiveWindow:
    """Open deliveries of one connection."""

    def __init__(self) -> None:
        self._open: dict[int, Delivery] = {}  # in arrival order
        self._released: dict[int, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def oldest(self) -> Delivery | None:
        """The delivery that waits longest, or None."""
        return next(iter(self._open.values()), None)

    def admit(self, delivery: Delivery, now_s: float) -> bool:
        """Take a QoS 1 delivery in; False for a repeat, which must be neither stored nor acknowledged.

        Args:
            delivery: what arrived on this window's connection.
            now_s: monotonic time in seconds.
        """
        known = self._open.get(delivery.mid)
        if known is not None:
            if known.payload == delivery.payload and known.topic == delivery.topic:
                return False
            # The broker gave the id to another message: for it the old one is settled.
            del self._open[delivery.mid]
        elif delivery.is_dup:
            released = self._released.get(delivery.mid)
            if released and now_s - released[0] < REMEMBERED_S and released[1] == _content(delivery):
                return False
        self._open[delivery.mid] = delivery
        return True

    def settle(self, delivery: Delivery) -> None:
        """Note that the delivery is stored or set aside."""
        delivery.is_settled = True

    def release(self, now_s: float) -> list[int]:
        """Return the packet ids to acknowledge now, in order, and forget them."""
        mids = []
        for mid, delivery in self._open.items():
            if not delivery.is_settled:
                break
            mids.append(mid)
            self._released[mid] = (now_s, _content(delivery))
        for mid in mids:
            del self._open[mid]
        return mids


def _content(delivery: Delivery) -> int:
    return hash((delivery.topic, delivery.payload))
