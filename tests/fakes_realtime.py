"""Hand-written stand-ins of the broadcast path's seams: a journal and a transport that fail on command."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from realtime import wire
from realtime.errors import JournalUnavailableError, TransportError
from realtime.hub_frames import SocketAddress
from realtime.hub_service import HubService
from realtime.journal import JournalRecord, JournalState, Stored
from realtime.journal_memory import MemoryJournal, MemoryStore
from realtime.publication import Draft
from realtime.replies import Cursor


class FaultyJournal(MemoryJournal):
    """A ``MemoryJournal`` that can be away, or slow."""

    def __init__(self, store: MemoryStore | None = None, owner: str = "here") -> None:
        super().__init__(store, owner)
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_clear = True
        self.appended: list[JournalRecord] = []

    async def open(self) -> JournalState | None:
        self._fail_if_away("open")
        return await super().open()

    async def append(self, record: JournalRecord) -> Stored:
        self.appended.append(record)
        self._fail_if_away("append")
        return asyncio.ensure_future(self._store_when_told(record))

    def append_at_once(self, record: JournalRecord) -> Stored:
        self.appended.append(record)
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
    never_blocks_when_idle = False

    def __init__(self) -> None:
        self.failure: TransportError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.attempts: list[str] = []
        self.sent: list[Draft] = []

    def send(self, batch: str, drafts: Sequence[Draft], timeout_s: float) -> int:
        self.attempts.append(batch)
        self.entered.set()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        self.sent.extend(drafts)
        return 1

    def fileno(self) -> int:
        raise AssertionError("nothing is awaited: send confirms")

    def confirm(self, timeout_s: float) -> int:
        raise AssertionError("nothing is awaited: send confirms")

    def close(self) -> None:
        """Nothing to release."""


class HubHandle:
    """Stands for the handle of the hub's actor: each method has ``remote``, whose result is awaited."""

    def __init__(self, service: HubService, address: SocketAddress) -> None:
        self._service = service
        self.address = address
        self.socket_address = _Method(self._say_address)
        self.publish = _Method(self._publish)
        self.poll = _Method(self._poll)

    async def _say_address(self) -> tuple[str, bytes]:
        return self.address.path, self.address.secret

    async def _publish(self, batch: str, drafts: list[wire.WireDraft]) -> list[wire.WirePosition]:
        return wire.write_positions(await self._service.publish(wire.read_drafts(drafts), batch))

    async def _poll(
        self, cursor: wire.WirePosition | None, timeout_s: float, wish: wire.WireWish | None = None
    ) -> wire.WirePoll:
        place = None if cursor is None else Cursor(*cursor)
        return wire.write_poll(await self._service.poll(place, timeout_s, wire.read_wish(wish)))


class _Method:
    def __init__(self, remote: Callable[..., Awaitable[Any]]) -> None:
        self.remote = remote
