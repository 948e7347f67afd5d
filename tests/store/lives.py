"""Whole lives of messages for Hypothesis, in order and muddled."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from tests.store.told import BUSY, accepted, deferred, failed, retry, unknown

from smsretry import Event, GiveUpReason, MessageAccepted, Receipt


@st.composite
def lives(draw: st.DrawFn, message_id: str) -> list[Event]:
    """Draw what happens to one message, in order: retries, deferrals, and its ends, of which the queue may tell two."""
    retries = draw(st.integers(0, 3))
    events: list[Event] = [retry(message_id, attempt) for attempt in range(1, retries + 1)]
    events += [deferred(message_id, retries, number) for number in range(1, draw(st.integers(0, 2)) + 1)]
    last = retries + 1
    ends = draw(st.lists(st.sampled_from(("accepted", "failed", "expired", "unknown")), max_size=2, unique=True))
    return events + [ended(message_id, last + number, end) for number, end in enumerate(ends)]


def ended(message_id: str, attempt: int, end: str) -> Event:
    second = 100.0 + attempt
    match end:
        case "accepted":
            return accepted(message_id, attempt, second)
        case "expired":
            return failed(message_id, attempt, reason=GiveUpReason.EXPIRED, failure=BUSY, second=second)
        case "unknown":
            return unknown(message_id, attempt, second=second)
        case _:
            return failed(message_id, attempt, second=second)


@st.composite
def rounds(draw: st.DrawFn, message_id: str) -> list[Event]:
    """Draw one life, or a second one in a round of its own."""
    first = draw(lives(message_id))
    return first if draw(st.booleans()) else first + [in_round_two(event) for event in draw(lives(message_id))]


def in_round_two(event: Event) -> Event:
    moved: dict[str, Any] = {"round": 2, "at": event.at + timedelta(hours=1)}
    if isinstance(event, MessageAccepted):
        moved["receipt"] = Receipt("twilio", f"{event.receipt.provider_id}-again", event.at)
    return replace(event, **moved)


@st.composite
def muddled(draw: st.DrawFn, events: list[Event]) -> list[Event]:
    """Draw the same events in any order, some of them several times."""
    again = draw(st.lists(st.sampled_from(events), max_size=6)) if events else []
    return draw(st.permutations(events + again))
