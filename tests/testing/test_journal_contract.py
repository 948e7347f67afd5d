"""The contract kit lets right journals through, and names what a broken one breaks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from smsretry.journal import MemoryJournal
from smsretry.testing import FakeClock
from smsretry.testing.journal_contract import CHECKS, JournalContract


class TestMemoryJournal(JournalContract):
    @pytest.fixture(autouse=True)
    def start(self) -> None:
        self.clock = FakeClock()
        self.journal = MemoryJournal(self.clock)

    def make_journal(self) -> MemoryJournal:
        return self.journal

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


def test_every_check_is_a_test_of_the_base_class() -> None:
    tests = {name.removeprefix("test_") for name in vars(JournalContract) if name.startswith("test_")}
    assert tests == {check.__name__.removeprefix("check_") for check in CHECKS}


def test_the_kit_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import smsretry.testing.journal_contract"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
