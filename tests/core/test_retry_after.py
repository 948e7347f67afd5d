"""A Retry-After is honoured where it can be read, and never makes the reader stumble."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry.core.failure import LONGEST_DELAY_S
from smsretry.core.http import http_date, retry_after_s

NOW = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0.0),
        ("5", 5.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("Mon, 23 Nov 2026 18:00:30 GMT", 30.0),
        ("Monday, 23-Nov-26 18:00:30 GMT", 30.0),
        ("Mon Nov 23 18:00:30 2026", 30.0),
        ("Mon, 23 Nov 2026 18:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 20:00:30 +0200", 30.0),
    ],
)
def test_seconds_and_dates_are_read(header: str, wait_s: float) -> None:
    assert retry_after_s(header, NOW) == wait_s


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "-1",
        "-0.5",
        "nan",
        "inf",
        "1e9",
        "soon",
        "５",
        "1,5",
        "Mon, 23 Nov 2026 17:59:59 GMT",
        "Mon, 99 Nov 2026 18:00:00 GMT",
        "Mon, 23 Nov 99999 18:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "0 0 0 0",
    ],
)
def test_what_is_missing_past_or_nonsense_is_no_hint(header: str | None) -> None:
    assert retry_after_s(header, NOW) is None


@pytest.mark.parametrize("header", ["9" * 400, "9" * 5_000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_hint_without_measure_is_cut_to_a_year(header: str) -> None:
    assert retry_after_s(header, NOW) == LONGEST_DELAY_S


@given(st.text() | st.from_regex(r"[A-Za-z]{0,9},? ?[0-9-]{0,9} ?[A-Za-z]{0,4} [0-9: +-]{0,24}[A-Z]{0,4}"))
def test_no_text_makes_the_reader_stumble(header: str) -> None:
    wait_s = retry_after_s(header, NOW)
    assert wait_s is None or (math.isfinite(wait_s) and 0 <= wait_s <= LONGEST_DELAY_S)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=300)))
def test_a_date_in_the_future_is_as_many_seconds_away_as_it_says(ahead: timedelta) -> None:
    moment = NOW + ahead
    assert (
        retry_after_s(format_datetime(moment, usegmt=True), NOW)
        == (moment.replace(microsecond=0) - NOW).total_seconds()
    )


@given(st.integers(min_value=0, max_value=10**6))
def test_whole_seconds_are_kept(seconds: int) -> None:
    assert retry_after_s(str(seconds), NOW) == float(seconds)


@given(st.text())
def test_a_date_is_aware_or_none(text: str) -> None:
    moment = http_date(text)
    assert moment is None or moment.utcoffset() == timedelta(0)
