"""What the tests of most adapters are lent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smsretry.store import SQLStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    """Lend a store in a file."""
    with SQLStore(f"sqlite:///{tmp_path / 'sms.db'}") as opened:
        yield opened
