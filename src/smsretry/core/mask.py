"""Hide what is personal: a number shows its last two digits, a text its length."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(
    r"(?:\+|%2B|(?<![\w.]))\(?"  # after a plus, which a URL quotes, wherever it stands; else where no word goes on
    r"\d[\d\s().-]{5,24}\d(?!\d)",
    re.IGNORECASE,
)
_FEWEST_DIGITS: Final = 7


def mask_number(number: str) -> str:
    """Return ``number`` with all but its last two characters hidden."""
    return f"***{number[-2:]}"


def mask_text(text: str) -> str:
    """Return the length of ``text`` in its place."""
    return f"<{len(text)} characters>"


def mask_numbers_in(text: str) -> str:
    """Return ``text`` with everything that looks like a phone number hidden (7 digits or more)."""
    return _NUMBER.sub(_mask_match, text)


def shown_url(url: str) -> str:
    """Return ``url`` without the name and password that may stand in it."""
    before, at, rest = url.rpartition("@")
    scheme, slashes, _ = before.partition("://")
    return f"{scheme if slashes else ''}{slashes}***@{rest}" if at else url


def shown(value: object) -> str:
    """Return what was got, for an error: without a number and not too long, of all but plain values the type."""
    return mask_numbers_in(repr(value))[:80] if isinstance(value, (str, int, float)) else type(value).__name__


def _mask_match(match: re.Match[str]) -> str:
    digits = "".join(character for character in match[0].removeprefix("%2") if character.isdigit())
    return mask_number(digits) if len(digits) >= _FEWEST_DIGITS else match[0]
