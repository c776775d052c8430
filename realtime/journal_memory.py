"""A journal in this process: what the hub uses when no Redis or Valkey is configured.

Survives the hub object, not the process. Invariant: the same guarantees as any other
``Journal``, as far as one process goes; the contract tests hold it to them.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from realtime.errors import FencedError, JournalLostError, RealtimeError
from realtime.journal import JournalRecord, JournalState, Stored
from realtime.recovery import Mark
from realtime.stream import Entry


@dataclass(slots=True)
class MemoryStore:
    """What the journals of one store share, as they would share a server."""

    fence: int = 0
    owner: str = ""
    log_mark: Mark | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)

    def apply(self, record: JournalRecord) -> None:
        """Store one record."""
        self.log_mark = record.log_mark
        for channel in record.forgotten:
            self.marks.pop(channel, None)
        self.marks.update(record.marks)
        self.entries.update({entry.seq: entry for entry in record.entries})
        for seq in [seq for seq in self.entries if seq <= record.keep_after]:
            del self.entries[seq]


class MemoryJournal:
    """One hub's view of a ``MemoryStore``."""

    def __init__(self, store: MemoryStore | None = None, owner: str = "") -> None:
        self._store = store or MemoryStore()
        self._owner = owner
        self._fence = 0

    async def open(self) -> JournalState | None:
        """See ``Journal.open``."""
        store = self._store
        store.fence += 1
        self._fence = store.fence
        if store.log_mark is None:
            return None
        entries = tuple(store.entries[seq] for seq in sorted(store.entries))
        return JournalState(store.owner, store.log_mark, entries, dict(store.marks))

    async def append(self, record: JournalRecord) -> Stored:
        """See ``Journal.append``."""
        self._apply(record)
        stored: Stored = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored

    is_clear = True
    """See ``Journal.is_clear``."""

    def append_at_once(self, record: JournalRecord) -> Stored:
        """See ``Journal.append_at_once``."""
        stored: Stored = asyncio.get_running_loop().create_future()
        try:
            self._apply(record)
        except RealtimeError as error:
            stored.set_exception(error)
        else:
            stored.set_result(None)
        return stored

    async def rewrite(self, records: Sequence[JournalRecord]) -> None:
        """See ``Journal.rewrite``."""
        if self._fence == 0:
            await self.open()
        self._check_fence()
        store = self._store
        store.fence += 1
        self._fence = store.fence
        store.entries, store.marks, store.owner = {}, {}, self._owner
        for record in records:
            store.apply(record)

    async def close(self) -> None:
        """Nothing to release."""

    def _apply(self, record: JournalRecord) -> None:
        self._check_fence()
        if self._store.log_mark is None:
            raise JournalLostError(self._fence)
        self._store.apply(record)

    def _check_fence(self) -> None:
        if self._store.fence > self._fence:
            raise FencedError(self._fence, self._store.fence)
