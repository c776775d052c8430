"""The journal in this process keeps the contract."""

import pytest
from contract.journal_contract import JournalContract, OpenJournal

from realtime.journal_memory import MemoryJournal, MemoryStore


class TestMemoryJournal(JournalContract):
    """Over one store."""

    @pytest.fixture
    def open_journal(self) -> OpenJournal:
        store = MemoryStore()
        return lambda: MemoryJournal(store, "here")
