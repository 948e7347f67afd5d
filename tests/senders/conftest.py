"""What the tests of the senders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.senders.in_a_loop import NewAsync, NewPlain, NewSender


@pytest.fixture(params=[NewPlain, NewAsync], ids=["plain", "async"])
def new_sender(request: pytest.FixtureRequest) -> Iterator[NewSender]:
    """Make senders of each kind."""
    make: NewPlain | NewAsync = request.param()
    yield make
    make.end()
