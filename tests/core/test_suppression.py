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
        ({"to": "1" * 65}, "to must be"),
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
