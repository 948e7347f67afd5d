"""An entry of the list of who must not be texted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from smsretry.core.suppression import Suppression, SuppressionReason

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_an_entry_shows_no_number():
    entry = Suppression(to="+14155550123", sender="MG1", code="21610", since=NOW)
    assert "4155550123" not in repr(entry)
    assert entry.reason is SuppressionReason.OPTED_OUT


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"to": ""}, "to must be"),
        ({"to": "a\nb"}, "to must be"),
        ({"to": "hello"}, "to must be"),
        ({"to": "4155550101"}, "Add \\+ and the country"),
        ({"to": "(415) 555-0107"}, "Add \\+ and the country"),
        ({"to": "whatsapp:+14155550123"}, "to must be"),
        ({"sender": "15005550006"}, "Add \\+ and the country"),
        ({"sender": "(500) 555-0006"}, "Add \\+ and the country"),
        ({"to": None}, "to must be"),
        ({"sender": "s" * 65}, "sender must be"),
        ({"sender": None}, "sender must be"),
        ({"reason": "why not"}, "why not"),
        ({"since": datetime(2026, 1, 1)}, "since must be"),  # noqa: DTZ001
    ],
)
def test_an_entry_that_cannot_be_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        Suppression(**{"to": "+14155550123", **fields})


@pytest.mark.parametrize(
    "sender", ["", "+15005550006", "12345", "MG1", "Shop", "whatsapp:+15005550006", "key of a sender"]
)
def test_a_sender_is_whatever_a_text_goes_out_from(sender):
    assert Suppression(to="+14155550123", sender=sender).sender == sender


def test_what_is_refused_is_not_repeated():
    with pytest.raises(ValueError, match="got '\\*\\*\\*01'") as refused:
        Suppression(to="4155550101")
    assert "4155550101" not in str(refused.value)
