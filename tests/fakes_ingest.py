"""What ingest's tests share: deliveries, a clock, an observer that remembers."""

import itertools
from collections.abc import Sequence

from ingest.dead_letter import DeadLetter
from ingest.delivery import Delivery
from ingest.errors import StoreUnavailableError
from ingest.payload import Reading
from ingest.pipeline import Judged

NOW = 1_790_000_001.0
_mids = itertools.count(1)


def make_delivery(
    topic: str = "wf/acme/pump-7/telemetry",
    payload: bytes = b"{}",
    *,
    epoch: int = 1,
    mid: int | None = None,
    qos: int = 1,
    is_dup: bool = False,
    is_retained: bool = False,
    content_type: str = "",
    user_properties: tuple[tuple[str, str], ...] = (),
) -> Delivery:
    """Return a delivery as the network thread would make it."""
    return Delivery(
        epoch=epoch,
        mid=next(_mids) if mid is None else mid,
        topic=topic,
        payload=payload,
        qos=qos,
        is_dup=is_dup,
        is_retained=is_retained,
        received_at=NOW,
        payload_bytes=len(payload),
        content_type=content_type,
        user_properties=user_properties,
    )


def make_reading(
    seq: int | None = 1,
    device: str = "pump-7",
    boot_id: str = "b1",
    ts: float = NOW,
    content_key: bytes | None = None,
) -> Reading:
    """Return a reading of one metric."""
    return Reading("acme", device, boot_id, seq, ts, {"temp": 20.5}, None, ts, content_key=content_key)


class RecordingObserver:
    """Remembers what a lane reported."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, int]] = []
        self.letters: list[DeadLetter] = []
        self.blocked: list[str] = []
        self.unblocked = 0

    def on_stored(self, lane: str, items: Sequence[Judged], new: int, seconds: float) -> None:
        self.stored.append((len(items), new))

    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        self.letters.extend(letters)

    def on_blocked(self, lane: str, error: StoreUnavailableError) -> None:
        self.blocked.append(str(error))

    def on_unblocked(self, lane: str) -> None:
        self.unblocked += 1
