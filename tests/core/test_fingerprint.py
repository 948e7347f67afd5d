"""Recipients and texts are told apart, and never shown."""

from __future__ import annotations

from typing import Any

import pytest

from smsretry import InvalidMessage, Message
from smsretry.core.fingerprint import Fingerprints, check_like

KEY = b"a secret key"


def message(name: str, body: str = "A secret.", *, to: str = "+15005550006", **more: Any) -> Message:
    return Message(to, body, id=name, **more)


def test_fingerprints_tell_recipients_and_texts_apart() -> None:
    first = Fingerprints.of(message("m", "one"), KEY)
    assert Fingerprints.of(message("n", "one", campaign="autumn"), KEY) == first
    assert Fingerprints.of(message("m", "two"), KEY).recipient == first.recipient
    others = [
        message("m", "two"),
        message("m", "one", to="+15005550009"),
        message("m", "one", media_urls=("https://a",)),
    ]
    assert len({Fingerprints.of(other, KEY).text for other in [*others, message("m", "one")]}) == 4


def test_fingerprints_are_of_no_use_without_their_key() -> None:
    one, other = (Fingerprints.of(message("m"), key) for key in (KEY, b"another key"))
    assert {one.recipient, one.text}.isdisjoint({other.recipient, other.text})


@pytest.mark.parametrize(
    ("other", "what"), [(message("m", "Another."), "text"), (message("m", to="+15005550009"), "recipient")]
)
def test_an_id_of_another_message_is_refused_with_both_fingerprints_and_without_the_texts(
    other: Message, what: str
) -> None:
    first, prints = Fingerprints.of(message("m"), KEY), Fingerprints.of(other, KEY)
    check_like(message("m"), first, first)
    with pytest.raises(InvalidMessage, match=f"The id m belongs to a message with another {what}") as refused:
        check_like(other, prints, first)
    shown = str(refused.value)
    assert first.text[:12] in shown
    assert prints.text[:12] in shown
    assert other.body not in shown
    assert other.to not in shown
