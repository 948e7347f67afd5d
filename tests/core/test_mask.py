"""What is personal stays hidden: a number shows its last two digits, a text its length."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import numbers

from smsretry.core.mask import mask_number, mask_numbers_in, mask_text, shown_url


def test_a_number_shows_its_last_two_digits() -> None:
    assert mask_number("+15005550006") == "***06"
    assert mask_number("") == "***"


@given(st.text())
def test_a_text_shows_its_length_only(text: str) -> None:
    assert mask_text(text) == f"<{len(text)} characters>"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("The 'To' number +15005550006 is not valid.", "The 'To' number ***06 is not valid."),
        ("tel:+1 (500) 555-0006, please", "tel:***06, please"),
        ("(500) 555-0006", "***06"),
        ("1.500.555.0006", "***06"),
        ("/Messages.json?To=%2B15005550006&From=%2b15005550001", "/Messages.json?To=***06&From=***01"),
        ("whatsapp:+15005550006 and whatsapp%3A%2B15005550007", "whatsapp:***06 and whatsapp%3A***07"),
        ('{"to": "+15005550006"}', '{"to": "***06"}'),
        ("x+15005550006y", "x***06y"),
        ("5 5 5 1 2 3 4", "***34"),
    ],
)
def test_every_way_to_write_a_number_is_masked(text: str, masked: str) -> None:
    assert mask_numbers_in(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HTTP 429 Too Many Requests, code 20429",
        "SM0123456789abcdef0123456789abcdef",
        "wait 3600 seconds",
        "Connection to 127.0.0.1:8080 refused",
        "Mon, 23 Nov 2026 18:00:30 GMT",
        "1" * 40,
        "%2B1234",
    ],
)
def test_what_is_no_number_stays(text: str) -> None:
    assert mask_numbers_in(text) == text


@given(
    st.text(max_size=20), numbers.filter(lambda number: len(number) > 8), st.sampled_from(["", " ", ".", "'", "&x="])
)
def test_no_number_survives_whatever_stands_around_it(before: str, number: str, after: str) -> None:
    assert number[1:] not in mask_numbers_in(f"{before}{number}{after}")


@pytest.mark.parametrize("text", ["1 " * 50_000, "+(" * 50_000, "1" * 100_000 + "x", "%2B" * 30_000])
def test_a_long_text_is_masked_in_no_time(text: str) -> None:
    began = time.perf_counter()
    mask_numbers_in(text)
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.com/a?b=c", "https://example.com/a?b=c"),
        ("https://name:secret@example.com", "https://***@example.com"),
        ("https://name:s@cret@example.com", "https://***@example.com"),
        ("secret@example.com", "***@example.com"),
    ],
)
def test_a_url_shows_no_name_and_no_password(url: str, told: str) -> None:
    assert shown_url(url) == told
