"""What a store answers about a campaign and a message: reasons, history, exports; and what a purge leaves."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.store.told import BUSY, accepted, at, deferred, failed, retry, unknown

from smsretry import Failure, FailureKind, GiveUpReason, InvalidMessage
from smsretry.store import AttemptOutcome, MessageState, SQLStore

OPTED_OUT = Failure.of(FailureKind.OPTED_OUT, code=21610)


def tell_a_campaign(store: SQLStore) -> None:
    events = [
        *(retry("b", n) for n in (1, 2, 3)),
        failed("b", 4, reason=GiveUpReason.RETRIES_EXHAUSTED, failure=BUSY),
        *(failed(name) for name in ("c", "d")),
        failed("e", failure=OPTED_OUT),
        retry("f", 1, failure=Failure.of(FailureKind.TEMPORARY, code=20503)),
        accepted("f", 2),
        unknown("g"),
        deferred("h"),
        failed("elsewhere", campaign="summer"),
    ]
    for event in events:
        store.record(event)
    store.skipped("a", "no consent", campaign="spring")


@pytest.mark.parametrize("ask", ["campaign_summary", "failure_reasons", "retry_reasons"])
def test_a_campaign_that_is_no_name_is_refused(store: SQLStore, ask: str) -> None:
    with pytest.raises(InvalidMessage, match="campaign must be a str or None, got int"):
        getattr(store, ask)(5)


def test_failures_are_counted_by_kind_code_and_reason_the_most_first(store: SQLStore) -> None:
    tell_a_campaign(store)
    assert [(one.kind, one.code, one.reason, one.count) for one in store.failure_reasons("spring")] == [
        ("invalid_number", "21211", "permanent", 2),
        ("lost_answer", None, "outcome_unknown", 1),
        ("opted_out", "21610", "permanent", 1),
        ("rate_limited", "20429", "retries_exhausted", 1),
    ]
    assert [one.count for one in store.failure_reasons("summer")] == [1]
    assert store.failure_reasons(None) == ()


def test_the_failures_of_a_campaign_are_those_of_its_summary(store: SQLStore) -> None:
    tell_a_campaign(store)
    summary = store.campaign_summary("spring")
    assert sum(one.count for one in store.failure_reasons("spring")) == summary.failed + summary.unknown


def test_retries_are_counted_by_what_caused_them(store: SQLStore) -> None:
    tell_a_campaign(store)
    assert [(one.kind, one.code, one.reason, one.count) for one in store.retry_reasons("spring")] == [
        ("rate_limited", "20429", None, 3),
        ("temporary", "20503", None, 1),
    ]


def test_a_history_is_told_in_the_order_in_which_it_happened(store: SQLStore) -> None:
    for event in (accepted("m", 3), deferred("m", 1, 2), retry("m", 2), retry("m", 1), deferred("m", 1, 1)):
        store.record(event)
    told = [(one.attempt, one.outcome, one.reason) for one in store.history("m")]
    assert told == [
        (1, AttemptOutcome.RETRY, None),
        (1, AttemptOutcome.DEFERRED, "in_doubt"),
        (1, AttemptOutcome.DEFERRED, "in_doubt"),
        (2, AttemptOutcome.RETRY, None),
        (3, AttemptOutcome.ACCEPTED, None),
    ]
    assert store.history("nobody") == ()


def test_times_come_back_as_aware_utc_and_in_full(store: SQLStore) -> None:
    exact = datetime(2026, 3, 1, 14, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    store.record(accepted("m", started_at=exact, at=exact))
    (only,) = store.history("m")
    assert only.at == exact
    assert only.at.tzinfo is UTC


def test_where_a_message_stands_is_told(store: SQLStore) -> None:
    tell_a_campaign(store)
    message = store.message("b")
    assert message is not None
    assert (message.state, message.attempts, message.retries) == (MessageState.FAILED, 4, 3)
    assert (message.reason, message.code, message.decided_at) == ("retries_exhausted", "20429", at(50))
    assert store.message("nobody") is None


def test_an_export_has_one_line_per_message(store: SQLStore, tmp_path: Path) -> None:
    tell_a_campaign(store)
    target = tmp_path / "spring.csv"
    assert store.export_csv(target, "spring") == 8
    with target.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["message_id"] for line in lines] == list("abcdefgh")
    sent = lines[5]
    assert (sent["state"], sent["attempts"], sent["provider_id"], sent["code"]) == ("accepted", "2", "SM-f", "")
    assert datetime.fromisoformat(sent["decided_at"]) == at(60)


def test_an_export_goes_to_an_open_file_as_well(store: SQLStore) -> None:
    tell_a_campaign(store)
    target = io.StringIO()
    assert store.export_csv(target, "summer") == 1
    assert target.getvalue().splitlines()[1].startswith("elsewhere,summer,failed,1,1,0,")


def test_an_export_of_nothing_is_a_header(store: SQLStore) -> None:
    target = io.StringIO()
    assert store.export_csv(target, "winter") == 0
    assert target.getvalue().startswith("message_id,campaign,state,")


def test_a_purge_removes_what_ended_and_keeps_the_figures(store: SQLStore) -> None:
    tell_a_campaign(store)
    before = store.campaign_summary("spring")
    purged = store.purge(timedelta())
    assert (purged.messages, purged.attempts) == (8, 12)
    assert store.campaign_summary("spring") == before
    assert store.history("b") == ()
    assert store.history("h") != ()
    again = store.purge(timedelta())
    assert (again.messages, again.attempts) == (0, 0)


def test_a_purge_goes_by_when_a_row_was_written_and_not_by_the_workers_clocks(store: SQLStore) -> None:
    tell_a_campaign(store)
    assert store.purge(timedelta(hours=1)).messages == 0


def test_a_purge_of_many_messages_takes_them_in_turns(memory_store: SQLStore) -> None:
    for number in range(501):
        memory_store.skipped(f"purged-{number}", "no consent", campaign="winter")
    assert memory_store.purge(timedelta()).messages >= 501
    assert memory_store.campaign_summary("winter").skipped == 501


@pytest.mark.parametrize("age", [timedelta(seconds=-1), 90])
def test_a_purge_of_the_future_is_refused(age: timedelta) -> None:
    with pytest.raises(
        ValueError, match=r"older_than must be a timedelta of 0 to 36525 days, got .* timedelta\(days=90\)"
    ):
        SQLStore("sqlite://").purge(age)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(1)"])
def test_an_export_holds_no_formula(store: SQLStore, name: str) -> None:
    store.record(failed(name))
    target = io.StringIO(newline="")
    assert store.export_csv(target, "spring") == 1
    assert next(csv.DictReader(io.StringIO(target.getvalue())))["message_id"] == f"'{name}"


def test_nothing_is_older_than_a_hundred_years(store: SQLStore) -> None:
    with pytest.raises(ValueError, match="older_than must be a timedelta of 0 to 36525 days"):
        store.purge(timedelta.max)
