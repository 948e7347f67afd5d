"""Hide what is personal: a number shows its last two digits, a text its length."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"(?<![\w.])\+?\d[\d\s().-]{5,}\d(?!\w)")
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


def _mask_match(match: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in match[0])
    return mask_number(match[0]) if digits >= _FEWEST_DIGITS else match[0]
