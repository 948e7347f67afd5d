"""How many segments a text takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry.core.segments import Encoding, encoding_of, segments

GSM_7 = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
TWICE = "\f^{}\\[~]|€"

gsm_7_texts = st.text(st.sampled_from(GSM_7 + TWICE * 5), max_size=700)
any_texts = st.text(st.characters(codec="utf-8"), max_size=300) | st.text(st.sampled_from("a€ä€😀ш"), max_size=300)


def slowly(body: str) -> int:
    """Fill one segment after the other with whole characters, as TS 23.038 and 23.040 lay them out."""
    if all(character in GSM_7 + TWICE for character in body):
        pieces, room, room_of_several = [2 if character in TWICE else 1 for character in body], 160, 153
    else:
        pieces, room, room_of_several = [len(c.encode("utf-16-le")) // 2 for c in body], 70, 67
    if sum(pieces) <= room:
        return 1
    filled = [0]
    for piece in pieces:
        if filled[-1] + piece <= room_of_several:
            filled[-1] += piece
        else:
            filled.append(piece)
    return len(filled)


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        ("", Encoding.GSM_7, 1),
        ("a" * 160, Encoding.GSM_7, 1),
        ("a" * 161, Encoding.GSM_7, 2),
        ("a" * 306, Encoding.GSM_7, 2),
        ("a" * 307, Encoding.GSM_7, 3),
        ("€" * 80, Encoding.GSM_7, 1),
        ("€" * 81, Encoding.GSM_7, 2),
        ("€" * 152, Encoding.GSM_7, 2),
        ("€" * 153, Encoding.GSM_7, 3),  # 306 units, and the 153rd of a segment takes no half
        ("ш" * 70, Encoding.UCS_2, 1),
        ("ш" * 71, Encoding.UCS_2, 2),
        ("ш" * 134, Encoding.UCS_2, 2),
        ("ш" * 135, Encoding.UCS_2, 3),
        ("😀" * 35, Encoding.UCS_2, 1),
        ("😀" * 36, Encoding.UCS_2, 2),
        ("😀" * 66, Encoding.UCS_2, 2),
        ("😀" * 67, Encoding.UCS_2, 3),  # 134 units, and the 67th of a segment takes no half
        ("a" * 69 + "’", Encoding.UCS_2, 1),
        ("a" * 70 + "’", Encoding.UCS_2, 2),
    ],
)
def test_a_text_takes_as_many_segments_as_the_standard_says(body: str, encoding: Encoding, expected: int) -> None:
    assert encoding_of(body) is encoding
    assert segments(body) == expected


def test_the_default_alphabet_has_127_characters_beside_the_escape() -> None:
    assert len(set(GSM_7)) == len(GSM_7) == 127
    assert all(encoding_of(character) is Encoding.GSM_7 for character in GSM_7 + TWICE)


@given(gsm_7_texts | any_texts)
def test_every_text_is_counted_as_when_its_segments_are_filled_one_by_one(body: str) -> None:
    assert segments(body) == slowly(body)


@given(any_texts, any_texts)
def test_a_longer_text_never_takes_fewer_segments(body: str, more: str) -> None:
    assert segments(body + more) >= segments(body)
