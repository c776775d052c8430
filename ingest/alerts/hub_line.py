"""A process' own line to the hub for events: they are sent without waiting, and confirmed later.

Any thread sends; one thread hears. Keeps no event that it could not send and repeats
nothing, because the table holds them all. Invariants: batches reach the hub in the order of
``send``; an event is named by ``hear`` only after the hub confirmed all its messages; and
``send`` does not wait for a confirmation: what there is no room for is left out.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from realtime import wire
from realtime.errors import HubRefusedError, HubUnavailableError
from realtime.hub_client import HubClient
from realtime.hub_connection_socket import BlockingConnection
from realtime.publication import Draft

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 2.0
SEND_TIMEOUT_S = 0.25
"""Longest wait of a ``send`` for the hub to read what is under way; after it the line is given up."""
MAX_UNDER_WAY_BYTES = 524_288
"""Payload sent and not confirmed. A socket holds some 200 kB, and the hub reads faster than it confirms."""


@dataclass(slots=True)
class Batch:
    """Events that travel together."""

    event_ids: list[str]
    drafts: list[Draft]
    sent_at_s: float = 0.0
    num_bytes: int = 0


class HubLine:
    """One connection of the hub's socket, while there is one."""

    def __init__(self, hub: HubClient) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._pipe: BlockingConnection | None = None
        self._under_way: deque[tuple[int, Batch]] = deque()
        self._bytes = 0
        self._prefix = secrets.token_hex(8)

    @property
    def fileno(self) -> int | None:
        """What becomes readable when the hub confirms; None without a line."""
        pipe = self._pipe
        return None if pipe is None else pipe.fileno()

    @property
    def oldest_s(self) -> float | None:
        """When the oldest batch under way was sent, monotonic; None when nothing is."""
        try:
            return self._under_way[0][1].sent_at_s
        except IndexError:
            return None

    def has_room(self) -> bool:
        """Say whether a batch of ordinary size would be taken."""
        return self._pipe is not None and self._bytes * 2 < MAX_UNDER_WAY_BYTES

    def open(self) -> bool:
        """Open the line if it is not; False when there is no socket for this process.

        Raises:
            HubUnavailableError: the hub did not answer.
        """
        if self._pipe is None:
            pipe = self._hub.open_pipe(OPEN_TIMEOUT_S)
            with self._lock:
                self._pipe = pipe
        return self._pipe is not None

    def send(self, event_ids: Sequence[str], drafts: Sequence[Draft]) -> bool:
        """Send the messages of some events; False: nothing was sent, they are for the table's reader."""
        batch = Batch(list(event_ids), list(drafts), num_bytes=sum(len(draft.data) for draft in drafts))
        with self._lock:
            if self._pipe is None or self._bytes + batch.num_bytes > MAX_UNDER_WAY_BYTES:
                return False
            batch.sent_at_s = time.monotonic()
            name = f"{self._prefix}-{event_ids[0]}"
            try:
                number = self._pipe.begin("publish", (name, wire.write_drafts(drafts)), SEND_TIMEOUT_S)
            except (ConnectionError, TimeoutError, HubRefusedError) as error:
                logger.debug("the line to the hub is of no use: %s", error)
                self._close()
                return False
            self._under_way.append((number, batch))
            self._bytes += batch.num_bytes
            return True

    def hear(self, timeout_s: float) -> list[Batch]:
        """Return the batches that the hub has confirmed, waiting for bytes up to ``timeout_s``.

        Raises:
            HubUnavailableError: the line broke; what was under way is for the table's reader.
        """
        with self._lock:
            if self._pipe is None:
                return []
            try:
                answers = self._pipe.replies(timeout_s)
            except (ConnectionError, TimeoutError) as error:
                self._close()
                raise HubUnavailableError("publish", timeout_s, str(error)) from error
            confirmed = []
            for number, _, reason in answers:
                # In the order of the requests, all of one connection.
                if reason is not None or not self._under_way or self._under_way[0][0] != number:
                    self._close()
                    raise HubUnavailableError("publish", timeout_s, reason or "an answer out of order")
                _, batch = self._under_way.popleft()
                self._bytes -= batch.num_bytes
                confirmed.append(batch)
            return confirmed

    def close(self) -> list[Batch]:
        """Close the line; returns what was under way."""
        with self._lock:
            return self._close()

    def _close(self) -> list[Batch]:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        lost = [batch for _, batch in self._under_way]
        self._under_way.clear()
        self._bytes = 0
        return lost
