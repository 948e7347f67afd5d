"""What sinks are told."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from tests.strategies import NOW

from smsretry import (
    Event,
    Failure,
    FailureKind,
    GiveUpReason,
    MessageAccepted,
    MessageDeferred,
    MessageFailed,
    Receipt,
    RetryScheduled,
)
from smsretry.core.outcome import DeferReason

ABOUT: dict[str, Any] = {
    "message_id": "spring:4711",
    "campaign": "spring",
    "metadata": {"customer": 4711},
    "round": 1,
    "started_at": NOW,
    "at": NOW,
    "attempt": 2,
}
BUSY = Failure.of(FailureKind.RATE_LIMITED)
EVENTS: list[Event] = [
    MessageAccepted(**ABOUT, receipt=Receipt("twilio", "SM1", NOW)),
    MessageAccepted(**ABOUT, receipt=Receipt("twilio", "SM1", NOW), looked_up=True),
    RetryScheduled(**ABOUT, failure=BUSY, delay_s=4.0, due=NOW),
    MessageDeferred(**ABOUT, reason=DeferReason.IN_DOUBT, delay_s=2.0, due=NOW, deferral=3),
    MessageDeferred(**ABOUT, reason=DeferReason.IN_DOUBT, delay_s=2.0, due=NOW, deferral=3, failure=BUSY),
    MessageFailed(**ABOUT, failure=BUSY, reason=GiveUpReason.RETRIES_EXHAUSTED),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_is_json_with_its_type_and_id(event: Event) -> None:
    data = json.loads(json.dumps(event.to_dict(), allow_nan=False))
    assert data["type"] == event.type
    assert data["event_id"] == event.event_id
    assert (data["message_id"], data["campaign"], data["metadata"]) == ("spring:4711", "spring", {"customer": 4711})
    assert (data["attempt"], data["round"], data["at"]) == (2, 1, "2026-11-23T12:00:00+00:00")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_copies_of_an_event_are_equal_and_look_alike(event: Event) -> None:
    copies = [copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))]
    assert all(one == event and hash(one) == hash(event) and repr(one) == repr(event) for one in copies)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_built_by_the_dispatcher_is_an_event_like_any_other(event: Event) -> None:
    built = type(event).of(dict(vars(event)))
    assert built == event
    assert hash(built) == hash(event)
    assert repr(built) == repr(event)
    with pytest.raises(FrozenInstanceError):
        built.attempt = 9  # type: ignore[misc]


def test_an_event_id_is_made_of_message_round_attempt_and_type() -> None:
    assert [event.event_id for event in EVENTS] == [
        "spring:4711/1/2/accepted",
        "spring:4711/1/2/accepted",
        "spring:4711/1/2/retry_scheduled",
        "spring:4711/1/2/deferred/3",
        "spring:4711/1/2/deferred/3",
        "spring:4711/1/2/failed",
    ]


def test_events_tell_what_their_kind_is_about() -> None:
    accepted, looked_up, retry, deferred, last, failed = (event.to_dict() for event in EVENTS)
    assert accepted["receipt"] == {
        "provider": "twilio",
        "provider_id": "SM1",
        "accepted_at": "2026-11-23T12:00:00+00:00",
        "segments": None,
        "raw_status": "",
    }
    assert (accepted["looked_up"], looked_up["looked_up"]) == (False, True)
    assert (retry["failure"]["kind"], retry["delay_s"], retry["due"]) == ("rate_limited", 4.0, NOW.isoformat())
    assert (deferred["reason"], deferred["deferral"], deferred["failure"]) == ("in_doubt", 3, None)
    assert last["failure"]["kind"] == "rate_limited"
    assert (failed["failure"]["kind"], failed["reason"]) == ("rate_limited", "retries_exhausted")
