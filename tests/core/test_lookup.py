"""What a provider can answer when it is asked whether it took a text."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

import pytest
from tests.strategies import NOW

from smsretry import Receipt
from smsretry.core.lookup import CannotTell, Found, LookUp, NotSeen


def test_there_are_three_answers() -> None:
    assert get_args(LookUp) == (Found, NotSeen, CannotTell)


def test_the_answers_are_values() -> None:
    receipt = Receipt("twilio", "SM1", NOW)
    assert {Found(receipt), Found(receipt), NotSeen(NOW), CannotTell("403")} == {
        Found(receipt),
        NotSeen(NOW),
        CannotTell("403"),
    }


def test_a_listing_without_a_zone_proves_nothing() -> None:
    with pytest.raises(ValueError, match="as_of must be an aware datetime"):
        NotSeen(datetime(2026, 11, 23))  # noqa: DTZ001
