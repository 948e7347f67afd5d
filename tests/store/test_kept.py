"""What a row holds of a message and of its way comes back as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.journeys import message

from smsretry import Accepted, Failure, FailureKind, GaveUp, GiveUpReason, Receipt
from smsretry.core import claims
from smsretry.core.claims import Entry
from smsretry.core.outcome import AttemptState
from smsretry.store.kept import (
    columns_of,
    entry_of,
    may_be_mended,
    read_body,
    written_body,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
moments = st.timedeltas(timedelta(days=-1), timedelta(days=1)).map(lambda moved: NOW + moved)
counts = st.integers(0, 50)
ends = st.builds(
    GaveUp,
    st.sampled_from(FailureKind).map(lambda kind: Failure.of(kind, code=7, http_status=400, detail="why")),
    st.sampled_from(GiveUpReason),
    counts,
    would_retry_at=st.none() | moments,
)
receipts = st.builds(Receipt, st.just("twilio"), st.just("SM1"), moments, st.none() | counts, st.just("queued"))
accepted = st.builds(Accepted, receipts, st.integers(1, 50), st.booleans())


@st.composite
def states(draw: st.DrawFn) -> AttemptState:
    doubt: dict[str, Any] = {}
    if draw(st.booleans()):
        times = {"doubt_since": draw(moments), "settles_at": draw(st.none() | moments)}
        doubt = times | {"looks": draw(counts), "ending": draw(st.none() | ends)}
    counted = {"retries": draw(counts), "deferrals": draw(counts), "round": draw(st.integers(1, 9))}
    return AttemptState(**counted, **doubt, due=draw(st.none() | moments), deferred_since=draw(st.none() | moments))


entries = st.builds(
    Entry,
    state=states(),
    epoch=counts,
    nonce=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    claimed_until=st.none() | moments,
    sending_since=st.none() | moments,
    sending_epoch=st.none() | counts,
)


@given(entries)
def test_an_open_message_comes_back_from_its_row_as_it_was(entry: Entry) -> None:
    assert entry_of(SimpleNamespace(state="pending", **columns_of(entry))) == entry


@given(accepted | ends)
def test_an_end_comes_back_from_its_row_as_it_was(end: Accepted | GaveUp) -> None:
    state = "accepted" if isinstance(end, Accepted) else "failed"
    assert entry_of(SimpleNamespace(state=state, **columns_of(Entry(end=end)))).end == end


def test_a_state_that_needs_a_doubt_is_left_where_there_is_none() -> None:
    columns = columns_of(Entry(end=GaveUp(Failure.of(FailureKind.AUTH), GiveUpReason.PERMANENT, 1)))
    entry = entry_of(SimpleNamespace(state="pending", **columns))  # analytics opened a later round
    assert (entry.end, entry.taken_back, entry.state) == (None, None, AttemptState())


def test_that_a_message_was_taken_back_while_it_is_sent_is_kept() -> None:
    back = claims.cancel(Entry(epoch=1, claimed_until=NOW, sending_since=NOW, sending_epoch=1))
    assert back is not None
    assert back.taken_back is not None
    assert entry_of(SimpleNamespace(state="pending", **columns_of(back))) == back


def test_a_body_holds_the_message_or_nothing_but_its_metadata() -> None:
    whole = message("m", metadata={"order": 7}, send_before=NOW)
    assert read_body(written_body(whole, keep=True)) == (whole, {"order": 7})
    without = written_body(whole, keep=False)
    assert (read_body(without), "secret" in without, "5550006" in without) == ((None, {"order": 7}), False, False)
    assert read_body(None) == (None, {})


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (FailureKind.AUTH, True),
        (FailureKind.ACCOUNT, True),
        (FailureKind.SENDER_CONFIG, True),
        (FailureKind.GEO_PERMISSION, True),
        (FailureKind.INVALID_NUMBER, False),
        (FailureKind.RATE_LIMITED, False),
    ],
)
def test_what_somebody_can_mend_may_be_sent_once_more(kind: FailureKind, *, kept: bool) -> None:
    assert may_be_mended(GaveUp(Failure.of(kind), GiveUpReason.PERMANENT, 1)) is kept
    assert not may_be_mended(Accepted(Receipt("twilio", "SM1", NOW)))
