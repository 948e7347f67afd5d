"""What Hypothesis draws from: values of the domain, valid and hostile ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from smsretry import (
    AttemptState,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Jitter,
    Message,
    OnUnknown,
    Receipt,
    RetryPolicy,
    Scope,
)
from smsretry.core.failure import LONGEST_DELAY_S, RETRYABLE_KINDS

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
JUST_BELOW_ONE = math.nextafter(1.0, 0.0)
PERMANENT_KINDS = tuple(kind for kind in FailureKind if kind not in RETRYABLE_KINDS)

draws = st.sampled_from([0.0, JUST_BELOW_ONE]) | st.floats(0.0, JUST_BELOW_ONE)
durations = st.sampled_from([0.0, LONGEST_DELAY_S]) | st.floats(0.0, LONGEST_DELAY_S, allow_subnormal=False)
multipliers = st.sampled_from([1.0, 2.0]) | st.floats(1.0, 1_000.0)
retry_numbers = st.integers(1, 40) | st.integers(1, 10**9) | st.sampled_from([1023, 1024, 1025, 10**9, 2**63, 10**400])
zones = st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=zones)  # noqa: DTZ001
utc_moments = moments.map(lambda moment: moment.astimezone(UTC))
counts = st.integers(0, 1_000_000)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
kinds_of_failure = st.sampled_from(FailureKind)
certain_kinds = kinds_of_failure.filter(lambda kind: kind is not FailureKind.LOST_ANSWER)
"""Kinds of failure after which the text may be known not to have been sent."""
every_jitter = st.sampled_from(Jitter)
every_choice = st.sampled_from(OnUnknown)
either = st.booleans()
hints = st.none() | st.floats(0.0, 10_000.0)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
"""Anything that `json.loads` can return."""

hostile_values = st.sampled_from(
    [
        *(None, True, False, "", "0", "1", "NaN", [], {}, [[]], {"v": 1}, b"1", object(), 0, -1, 0.0, 0.5, 1.0, 1.5),
        *(math.nan, math.inf, -math.inf, 10**400, -(10**400), 2**63, "\ud800", "\x00", "2026-01-01", "1" * 5000),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", datetime(2026, 1, 1), NOW, lambda: None),  # noqa: DTZ001
    ]
)
"""What a corrupt queue, a wrong version or a careless caller may hand over."""


@st.composite
def failures(
    draw: st.DrawFn,
    kinds: st.SearchStrategy[FailureKind] = kinds_of_failure,
    retryable: st.SearchStrategy[bool] = either,
    maybe_sent: st.SearchStrategy[bool] = either,
) -> Failure:
    return Failure(
        draw(kinds),
        draw(st.sampled_from(Scope)),
        draw(retryable),
        draw(maybe_sent),
        draw(st.sampled_from([None, 20429, 99_999, "too_fast"])),
        draw(st.sampled_from([None, 400, 429, 503])),
        draw(st.sampled_from(["", "too fast", "zu schnell, später"])),
        draw(st.sampled_from([0.0, 300.0]) | st.floats(0.0, 10_000.0)),
        draw(hints),
        draw(st.sampled_from(["", "twilio"])),
        draw(st.booleans()),
    )


def plain_failures(kinds: st.SearchStrategy[FailureKind] = kinds_of_failure) -> st.SearchStrategy[Failure]:
    """Failures as their kind usually has them."""
    return kinds.map(Failure.of)


retryable_failures = failures(st.sampled_from(sorted(RETRYABLE_KINDS)), st.just(True))
permanent_failures = failures(retryable=st.just(False))


@st.composite
def policies(
    draw: st.DrawFn,
    *,
    most_retries: int = 12,
    jitters: st.SearchStrategy[Jitter] = every_jitter,
    choices: st.SearchStrategy[OnUnknown] = every_choice,
    limits: bool = True,
) -> RetryPolicy:
    policy = RetryPolicy(
        max_retries=draw(st.integers(0, most_retries)),
        first_delay_s=draw(st.sampled_from([0.0, 2.0]) | st.floats(0.0, 1_000.0, allow_subnormal=False)),
        multiplier=draw(multipliers),
        max_delay_s=draw(durations),
        max_hint_s=draw(durations),
        jitter=draw(jitters),
        on_unknown=draw(choices),
        settle_after_s=draw(st.sampled_from([0.0, 7.5, 120.0, 3_600.0])),
        settle_after_error_s=draw(st.sampled_from([0.0, 5.0])),
        max_looks=draw(st.integers(1, 10)),
        max_deferral_s=draw(st.sampled_from([0.0, 60.0, 86_400.0])),
    )
    if limits and draw(st.booleans()):
        retries, first_s = draw(st.integers(0, most_retries)), draw(durations)
        policy = policy.for_kind(draw(kinds_of_failure), max_retries=retries, first_delay_s=first_s)
    return policy


@st.composite
def ended(draw: st.DrawFn) -> GaveUp:
    return GaveUp(
        draw(failures()),
        draw(st.sampled_from(GiveUpReason)),
        draw(counts),
        draw(st.sampled_from([None, NOW])),
    )


@st.composite
def states(draw: st.DrawFn) -> AttemptState:
    """Every state that can be; `doubtful_states` and `undoubted_states` narrow it down."""
    return draw(undoubted_states() | doubtful_states())


@st.composite
def undoubted_states(draw: st.DrawFn) -> AttemptState:
    return AttemptState(
        retries=draw(counts),
        deferrals=draw(counts),
        due=draw(st.none() | utc_moments),
        round=draw(st.integers(1, 9)),
        provider_id=draw(st.none() | names),
        deferred_since=draw(st.none() | utc_moments),
        message_id=draw(st.none() | names),
        slot=draw(st.none() | names),
    )


@st.composite
def doubtful_states(draw: st.DrawFn) -> AttemptState:
    return AttemptState(
        retries=draw(counts),
        doubt_since=draw(utc_moments),
        looks=draw(counts),
        deferrals=draw(counts),
        due=draw(st.none() | utc_moments),
        round=draw(st.integers(1, 9)),
        settles_at=draw(st.none() | utc_moments),
        deferred_since=draw(st.none() | utc_moments),
        ending=draw(st.none() | ended()),
        message_id=draw(st.none() | names),
        slot=draw(st.none() | names),
    )


numbers = st.from_regex(r"\+[1-9][0-9]{1,14}", fullmatch=True)
bodies = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)
metadata: st.SearchStrategy[Mapping[str, Any]] = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5), json_values, max_size=3
)
sender_ids = (
    numbers
    | st.from_regex(r"[0-9]{3,8}", fullmatch=True)
    | st.from_regex(r"MG[0-9a-f]{32}", fullmatch=True)
    | st.from_regex(r"[A-Z][A-Za-z0-9]{0,10}", fullmatch=True)
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    return Message(
        draw(numbers),
        draw(bodies),
        id=draw(st.none() | names),
        campaign=draw(st.none() | names),
        sender_id=draw(st.none() | sender_ids),
        media_urls=draw(st.sampled_from([(), ("https://example.com/a.png",)])),
        send_before=draw(st.none() | moments),
        metadata=draw(metadata),
    )


receipts = st.builds(
    Receipt,
    provider=st.sampled_from(["twilio", "acme"]),
    provider_id=st.from_regex(r"SM[0-9a-f]{32}", fullmatch=True),
    accepted_at=utc_moments,
    segments=st.none() | st.integers(1, 10),
    raw_status=st.sampled_from(["", "queued", "accepted"]),
)
