"""Count the segments that a text takes on its way, by which networks carry and providers bill and limit it.

The source is 3GPP TS 23.038: a segment has 140 octets, which are 160 characters of 7 bits (GSM-7) or 70 code units of
16 bits (UCS-2). A text of more than one segment loses 6 octets in each to a header (TS 23.040): 153 and 67 are left.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Final

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ"
    "ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The default alphabet, TS 23.038 section 6.2.1."""
_EXTENSION: Final = "\f^{}\\[~]|€"
"""Its extension table, section 6.2.1.1: each takes an escape and a character."""

_SINGLE: Final = frozenset(_BASIC)
_DOUBLE: Final = frozenset(_EXTENSION)
_GSM_7: Final = _SINGLE | _DOUBLE


@unique
class Encoding(StrEnum):
    """Name how the characters of a text are carried."""

    GSM_7 = "GSM-7"
    """7 bits each: 160 in a text of one segment, 153 in each of several; those of the extension table count twice."""
    UCS_2 = "UCS-2"
    """16 bits each: 70 in a text of one segment, 67 in each of several; an emoji takes two or more."""


def encoding_of(body: str) -> Encoding:
    """Return how ``body`` is carried: one character outside of GSM-7 makes the whole text UCS-2."""
    return Encoding.GSM_7 if _GSM_7.issuperset(body) else Encoding.UCS_2


def segments(body: str) -> int:
    """Return how many segments ``body`` takes, 1 or more: an empty text beside media counts as 1.

    A character is never split between two segments. Counted is the text as it stands: a provider that replaces
    characters or shortens links may come to fewer.
    """
    if encoding_of(body) is Encoding.GSM_7:
        doubled = 0 if _SINGLE.issuperset(body) else sum(character in _DOUBLE for character in body)
        widths = [1 + (character in _DOUBLE) for character in body] if doubled else []
        return _parts(len(body) + doubled, widths, single=160, part=153)
    wide = sum(character > "\uffff" for character in body)
    widths = [1 + (character > "\uffff") for character in body] if wide else []
    return _parts(len(body) + wide, widths, single=70, part=67)


def _parts(size: int, widths: list[int], *, single: int, part: int) -> int:
    """Return into how many parts a text of ``size`` units is cut; ``widths`` is empty where each character is one."""
    if size <= single:
        return 1
    if not widths:
        return -(-size // part)
    parts, used = 1, 0
    for width in widths:
        if used + width > part:
            parts, used = parts + 1, 0
        used += width
    return parts
