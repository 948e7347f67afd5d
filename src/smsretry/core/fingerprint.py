"""Tell recipients and texts apart without showing them."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Final

from smsretry.core.message import Message
from smsretry.errors import InvalidMessage

ENDED_WITH_ANOTHER_TEXT: Final = (
    "%s has ended, with another text than comes under its id now, so nothing is sent. "
    "Use an id of its own for each message."
)
"""What a journal logs of a re-run, whose text may be rendered anew, of a message that has ended."""
_SHOWN: Final = 12
"""Hex digits of a fingerprint that an error shows."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Stand for a recipient and a text: HMAC-SHA256 under a secret of the journal that keeps them, in hex."""

    recipient: str
    text: str

    @classmethod
    def of(cls, message: Message, key: bytes) -> Fingerprints:
        """Return those of ``message``; that of the text covers recipient, body and media."""
        whole = json.dumps([message.to, message.body, *message.media_urls]).encode()
        return cls(_hmac(key, message.to.encode()), _hmac(key, whole))


def check_like(message: Message, prints: Fingerprints, first: Fingerprints) -> None:
    """Raise where the id of ``message`` belongs to one with the fingerprints ``first`` and its own are others."""
    if prints == first:
        return
    what = "text" if prints.recipient == first.recipient else "recipient"
    raise InvalidMessage(
        f"The id {message.id} belongs to a message with another {what}: its fingerprint is {first.text[:_SHOWN]}, "
        f"that of this one {prints.text[:_SHOWN]}. Use an id of its own for each message."
    )


def _hmac(key: bytes, value: bytes) -> str:
    return hmac.digest(key, value, "sha256").hex()
