"""Hand-written stand-ins of the broadcast path's seams: a journal and a transport that fail on command."""

import asyncio
import threading
from collections.abc import Sequence

from realtime.errors import JournalUnavailableError, TransportError
from realtime.journal import JournalRecord, JournalState, Stored
from realtime.journal_memory import MemoryJournal, MemoryStore
from realtime.publication import Draft


class FaultyJournal(MemoryJournal):
    """A ``MemoryJournal`` that can be away, or slow."""

    def __init__(self, store: MemoryStore | None = None, owner: str = "here") -> None:
        super().__init__(store, owner)
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.appended: list[JournalRecord] = []

    async def open(self) -> JournalState | None:
        self._fail_if_away("open")
        return await super().open()

    async def append(self, record: JournalRecord) -> Stored:
        self.appended.append(record)
        self._fail_if_away("append")
        return asyncio.ensure_future(self._store_when_told(record))

    async def _store_when_told(self, record: JournalRecord) -> None:
        await self.answers.wait()
        self._fail_if_away("append")
        await super().append(record)

    async def rewrite(self, records: Sequence[JournalRecord]) -> None:
        self._fail_if_away("rewrite")
        await super().rewrite(records)

    def _fail_if_away(self, operation: str) -> None:
        if self.is_away:
            raise JournalUnavailableError(operation, "the test says so")


class ScriptedTransport:
    """Collects what is sent; fails while ``failure`` is set and waits while ``gate`` is closed."""

    name = "scripted"

    def __init__(self) -> None:
        self.failure: TransportError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.attempts: list[str] = []
        self.sent: list[Draft] = []

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> None:
        self.attempts.append(batch)
        self.entered.set()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.sent.extend(drafts)

    def close(self) -> None:
        """Nothing to release."""
