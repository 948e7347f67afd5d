"""Every event becomes a row, moves its message and is counted once, on each database."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.lives import muddled, rounds
from tests.store.told import accepted, at, deferred, failed, retry, unknown

from smsretry import Event, GiveUpReason, InvalidMessage, Message
from smsretry.store import CampaignSummary, SQLStore

FIGURES = ("pending", "sent", "failed", "expired", "unknown", "skipped", "retried", "deferred", "doubled")


def record(store: SQLStore, *events: Event) -> CampaignSummary:
    for event in events:
        store.record(event)
    return store.campaign_summary("spring")


def figures(summary: CampaignSummary) -> dict[str, int]:
    """Return the figures that are not 0."""
    return {name: getattr(summary, name) for name in FIGURES if getattr(summary, name)}


def test_a_campaign_nobody_heard_of_has_no_messages(store: SQLStore) -> None:
    summary = store.campaign_summary("spring")
    assert (figures(summary), summary.planned, summary.campaign) == ({}, 0, "spring")


def test_retries_and_the_end_are_counted_and_kept(store: SQLStore) -> None:
    summary = record(store, retry("m", 1), retry("m", 2), accepted("m", 3))
    assert figures(summary) == {"sent": 1, "retried": 2}
    first, second, third = store.history("m")
    assert [first.outcome, second.outcome, third.outcome] == ["retry", "retry", "accepted"]
    assert (first.kind, first.code, first.http_status, first.delay_s) == ("rate_limited", "20429", 429, 2.0)
    assert (first.started_at, first.at, first.due) == (at(3.75), at(4), at(6))
    assert (third.provider, third.provider_id, third.looked_up) == ("twilio", "SM-m", False)


def test_a_message_waiting_for_its_retry_is_pending(store: SQLStore) -> None:
    assert figures(record(store, retry("m", 1))) == {"pending": 1, "retried": 1}
    message = store.message("m")
    assert message is not None
    assert (message.state, message.attempts, message.due) == ("pending", 1, at(6))


def test_each_state_has_its_own_figure_and_they_add_up(store: SQLStore) -> None:
    store.skipped("left-out", "opted out", campaign="spring")
    summary = record(
        store,
        accepted("sent"),
        failed("refused"),
        failed("late", reason=GiveUpReason.EXPIRED),
        unknown("doubtful"),
        deferred("waiting"),
    )
    ones = dict.fromkeys(("pending", "sent", "failed", "expired", "unknown", "skipped", "deferred"), 1)
    assert figures(summary) == ones
    assert summary.planned == 6


def test_an_event_that_comes_again_counts_once(store: SQLStore) -> None:
    events = [retry("m", 1), accepted("m", 2), retry("n", 1), failed("n", 2)]
    assert record(store, *events, *events, *reversed(events)) == record(store)
    assert figures(record(store)) == {"sent": 1, "failed": 1, "retried": 2}
    assert len(store.history("m")) == 2


def test_a_late_retry_moves_no_accepted_message_back(store: SQLStore) -> None:
    assert figures(record(store, accepted("m", 2), retry("m", 1))) == {"sent": 1, "retried": 1}


def test_unknown_that_turns_out_accepted_is_one_move(store: SQLStore) -> None:
    assert figures(record(store, unknown("m"))) == {"unknown": 1}
    assert figures(record(store, accepted("m", looked_up=True))) == {"sent": 1}


def test_a_failure_told_by_another_copy_of_the_task_disproves_neither_a_doubt_nor_a_receipt(store: SQLStore) -> None:
    assert figures(record(store, unknown("m", 1), failed("m", 2))) == {"unknown": 1}
    assert figures(record(store, accepted("m", 3), failed("m", 4))) == {"sent": 1}


def test_accepted_twice_under_one_id_counts_once(store: SQLStore) -> None:
    assert figures(record(store, accepted("m", 1), accepted("m", 2))) == {"sent": 1}


def test_accepted_twice_under_two_ids_is_a_doubled_text(store: SQLStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "smsretry.store"):
        summary = record(store, accepted("m", 1, sid="SM1"), accepted("m", 2, sid="SM2"), accepted("m", 3, sid="SM1"))
    assert figures(summary) == {"sent": 1, "doubled": 1}
    assert caplog.messages == ["m was taken by the provider more than once: SM1 and SM2"]


def test_one_attempt_that_a_queue_ran_twice_is_a_doubled_text(store: SQLStore) -> None:
    twice = [accepted("m", 1, sid="SM1"), accepted("m", 1, sid="SM2")]
    assert figures(record(store, *twice, *twice)) == {"sent": 1, "doubled": 1}
    assert [attempt.provider_id for attempt in store.history("m")] == ["SM1", "SM2"]


def test_a_new_round_sends_a_message_anew(store: SQLStore) -> None:
    record(store, accepted("m", 1, sid="SM1"))
    assert figures(record(store, retry("m", 1, round=2))) == {"pending": 1, "retried": 1}
    assert figures(record(store, accepted("m", 2, sid="SM2", round=2))) == {"sent": 1, "retried": 1}


def test_a_message_without_a_campaign_is_counted_under_none(store: SQLStore) -> None:
    once = accepted("m", campaign=None)
    assert figures(record(store, once, once)) == {}
    assert store.campaign_summary(None).sent == 1
    assert store.campaign_summary(None).campaign is None
    message = store.message("m")
    assert message is not None
    assert message.campaign is None


def test_a_message_stays_in_the_campaign_that_it_began_in(store: SQLStore) -> None:
    assert figures(record(store, retry("m", 1), accepted("m", 2, campaign="summer"))) == {"sent": 1, "retried": 1}
    assert store.campaign_summary("summer").planned == 0


def test_the_longest_ids_fit(store: SQLStore) -> None:
    longest = "i" * 255
    record(store, accepted(longest, 999_999, sid="s" * 255), accepted(longest, 999_999, sid="t" * 255))
    assert figures(store.campaign_summary("spring")) == {"sent": 1, "doubled": 1}


def test_a_naive_time_is_refused_and_nothing_of_its_event_is_written(store: SQLStore) -> None:
    naive = replace(accepted("m"), at=datetime(2026, 3, 1))  # noqa: DTZ001  # that is the point
    with pytest.raises(Exception, match="A time must be aware"):
        store.record(naive)
    assert store.history("m") == ()


def test_a_row_left_out_is_counted_once_however_often_it_is_said(store: SQLStore) -> None:
    dan = Message("+14155550104", "Hello.", id="dan", campaign="spring")
    for _ in range(3):
        store.skipped(dan, "no consent")
        store.skipped("eve", "no number", campaign="spring")
    assert figures(store.campaign_summary("spring")) == {"skipped": 2}
    assert [(one.outcome, one.reason) for one in store.history("eve")] == [("skipped", "no number")]


def test_a_message_that_was_sent_is_not_skipped_and_a_skipped_one_may_be_sent(store: SQLStore) -> None:
    record(store, accepted("m"))
    store.skipped("m", "too late", campaign="spring")
    store.skipped("n", "no consent", campaign="spring")
    assert figures(record(store, accepted("n"))) == {"sent": 2}


@pytest.mark.parametrize("message", [Message("+14155550104", "Hello."), "", "x" * 256, "a\nb"])
def test_a_row_left_out_needs_an_id(message: Message | str) -> None:
    with pytest.raises(InvalidMessage, match="needs an id of 1 to 255 printable characters"):
        SQLStore("sqlite://").skipped(message, "no number")


NUMBERS = iter(range(1_000_000))


@settings(max_examples=25)
@given(data=st.data())
def test_events_in_any_order_and_repeated_end_in_the_same_figures(data: st.DataObject, memory_store: SQLStore) -> None:
    number = next(NUMBERS)
    lives = [data.draw(rounds(f"{number}-{name}")) for name in "ab"]
    events = [event for life in lives for event in life]
    told = data.draw(muddled(events))
    assert counted(memory_store, f"{number}-told", told) == counted(memory_store, f"{number}-in-order", events)


def counted(store: SQLStore, campaign: str, events: list[Event]) -> dict[str, int]:
    for event in events:
        store.record(replace(event, message_id=f"{campaign}-{event.message_id}", campaign=campaign))
    summary = store.campaign_summary(campaign)
    assert summary.planned == len({event.message_id for event in events})
    return figures(summary)


@pytest.mark.parametrize("reason", [None, 7, ["no consent"]])
def test_a_reason_for_a_skip_is_a_text(store: SQLStore, reason: Any) -> None:
    with pytest.raises(InvalidMessage, match="reason must be a str, got"):
        store.skipped("m", reason)
