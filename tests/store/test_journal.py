"""The journal in a database: the contract of every journal, and what only tables can show."""

from __future__ import annotations

import pytest
from tests.store.clock import pass_time

from smsretry.store import SQLStore
from smsretry.testing.journal_contract import JournalContract


class TestSQLStore(JournalContract):
    @pytest.fixture(autouse=True)
    def lend(self, store: SQLStore) -> None:
        self.store = store

    def make_journal(self) -> SQLStore:
        return self.store

    def pass_time(self, seconds: float) -> None:
        pass_time(self.store, seconds)
