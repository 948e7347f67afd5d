"""Delivery reports in the store: they bind, count, open new rounds and end, in whatever order they come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.store.clock import pass_time
from tests.store.conftest import emptied
from tests.store.counted import counted_in, differing, rows_and_counters
from tests.store.journeys import attempt, begin, claimed, message, row_of
from tests.store.told import BUSY, NO_NUMBER, accepted, failed

from smsretry import (
    Accepted,
    AsyncDispatcher,
    Dispatcher,
    Failure,
    FailureKind,
    GaveUp,
    GiveUpReason,
    Message,
    Outcome,
    Receipt,
)
from smsretry.core.claims import Claim, Ended, NotDue
from smsretry.core.delivery import Delivery, DeliveryReport, DeliveryRetries, DeliveryStatus, Mark
from smsretry.core.lookup import NotSeen
from smsretry.core.policy import RetryPolicy
from smsretry.core.suppression import Suppression
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.ports import mark_of_send
from smsretry.store import SQLStore

S = DeliveryStatus
DAY_S = 86_400.0
OFF = Failure.of(FailureKind.UNREACHABLE, code=30003, provider="twilio")
RETRIES = DeliveryRetries(codes={"30003"}, policy=RetryPolicy(max_retries=2, first_delay_s=600.0))


def told(status: DeliveryStatus, name: str | None = None, *, sid: str = "SM1", **more: Any) -> DeliveryReport:
    code = more.pop("code", None)
    failure = OFF if code == "30003" else None
    usual: dict[str, Any] = {"provider": "twilio", "received_at": datetime.now(UTC), "code": code, "failure": failure}
    return DeliveryReport(provider_id=sid, status=status, message_id=name, **(usual | more))


def sent(store: SQLStore, name: str = "m", sid: str = "SM1", **more: Any) -> None:
    assert attempt(store, message(name, **more), Receipt("twilio", sid, datetime.now(UTC))) is not None


def figures(store: SQLStore) -> dict[str, int]:
    """Return the figures of the campaign that are not 0, and hold them against the rows."""
    rows, counters = rows_and_counters(store)
    assert differing(counters, counted_in(rows.values())) == {}
    summary = store.campaign_summary("spring")
    names = set(type(summary).__dataclass_fields__) - {"campaign"}
    return {name: value for name in sorted(names) if (value := getattr(summary, name))}


@pytest.fixture(params=("sqlite", pytest.param("postgresql", marks=pytest.mark.integration)))
def retrying(request: pytest.FixtureRequest, file_url: str) -> Iterator[SQLStore]:
    """Lend a store that sends anew after 30003."""
    url, prefix = file_url, "smsretry_"
    if request.param == "postgresql":
        emptied(request.getfixturevalue("postgres_store"))
        url, prefix = request.getfixturevalue("postgres_url"), request.getfixturevalue("own_prefix")
    with SQLStore(url, table_prefix=prefix, delivery_retries=RETRIES) as store:
        yield store


def test_a_text_that_arrived_is_counted_once_however_often_it_is_told(store: SQLStore) -> None:
    sent(store)
    assert figures(store) == {"sent": 1}
    changed = [store.receive(told(status)).changed for status in (S.SENT, S.DELIVERED, S.DELIVERED, S.SENT)]
    assert changed == [True, True, False, False]
    assert figures(store) == {"sent": 1, "delivered": 1}
    record = store.message("m")
    assert record is not None
    assert (record.delivery, record.provider_id) == ("delivered", "SM1")
    assert [row.reason for row in store.history("m") if row.outcome == "reported"] == ["sent", "delivered"]


def test_a_text_that_did_not_arrive_is_counted_by_its_reason(store: SQLStore) -> None:
    sent(store)
    store.receive(told(S.UNDELIVERED, code="30003"))
    assert figures(store) == {"sent": 1, "undelivered": 1}
    (why,) = store.undelivered_reasons("spring")
    assert (why.kind, why.code, why.reason, why.count) == ("unreachable", "30003", "undelivered", 1)
    store.receive(told(S.DELIVERED))  # the carrier contradicts itself: what arrived weighs more
    assert figures(store) == {"sent": 1, "delivered": 1}
    assert store.undelivered_reasons("spring") == ()


def test_a_report_that_names_our_message_settles_its_doubt(store: SQLStore) -> None:
    claim = claimed(store, message("m"))
    received = store.receive(told(S.QUEUED, "m", mark=Mark(1, 1, claim.epoch)))
    assert (received.message_id, received.changed) == ("m", True)
    assert figures(store) == {"sent": 1}
    answer = begin(store, message("m"))
    assert isinstance(answer, Ended)
    assert isinstance(answer.outcome, Accepted)
    assert answer.outcome.receipt.provider_id == "SM1"
    # the create's own answer, and a retry that its loss led to, change nothing any more
    receipt = Receipt("twilio", "SM1", claim.now)
    store.finish(claim, Accepted(receipt), accepted("m", sid="SM1"))
    assert figures(store) == {"sent": 1}
    assert [row.outcome for row in store.history("m")] == ["accepted", "reported"]


def test_a_report_of_a_message_that_another_database_may_know_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.chdir(tmp_path), SQLStore("sqlite:///sms.db") as store:
        sent(store, "known", "SM0")
        store.receive(told(S.SENT, "known", sid="SM0"))
        store.receive(told(S.SENT, sid="SM8"))  # of a text that was sent without smsretry
        assert caplog.text == ""
        for number in range(3):
            store.receive(told(S.SENT, f"m{number}", sid=f"SM1{number}"))
    (line,) = caplog.records
    assert "'m0'" in line.getMessage()
    assert f"sqlite:///sms.db ({tmp_path / 'sms.db'})" in line.getMessage()


def test_a_report_brings_back_a_message_that_ended_as_unknown(store: SQLStore) -> None:
    claim = claimed(store, message("m"))
    lost = Failure.of(FailureKind.LOST_ANSWER)
    end = GaveUp(lost, GiveUpReason.OUTCOME_UNKNOWN, 1)
    store.finish(claim, end, failed("m", reason=GiveUpReason.OUTCOME_UNKNOWN, failure=lost))
    assert figures(store) == {"unknown": 1}
    store.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(store) == {"sent": 1, "delivered": 1}


def test_a_second_text_of_a_message_is_counted_as_doubled(store: SQLStore) -> None:
    sent(store)
    store.receive(told(S.SENT, "m", sid="SM2", mark=Mark(1, 2, 2)))
    assert figures(store) == {"sent": 1, "doubled": 1}
    store.receive(told(S.DELIVERED, "m", sid="SM2", mark=Mark(1, 2, 2)))
    store.receive(told(S.UNDELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(store) == {"sent": 1, "doubled": 1, "delivered": 1}  # one of the two has arrived


def test_one_of_two_texts_that_arrived_counts_without_its_mark_too(store: SQLStore) -> None:
    sent(store)
    store.receive(told(S.SENT, "m", mark=Mark(1, 1, 1)))
    store.receive(told(S.SENT, "m", sid="SM2", mark=Mark(1, 2, 2)))
    store.receive(told(S.UNDELIVERED, "m", sid="SM2", mark=Mark(1, 2, 2)))
    store.receive(told(S.DELIVERED))
    assert figures(store) == {"sent": 1, "doubled": 1, "delivered": 1}


def test_a_report_before_anybody_knows_whose_text_it_is_is_kept(store: SQLStore) -> None:
    received = store.receive(told(S.DELIVERED))
    assert (received.message_id, received.known) == (None, Delivery(S.DELIVERED))
    sent(store)
    assert figures(store) == {"sent": 1}
    pass_time(store, 16 * 60.0)
    assert store.unreported() == ()
    assert figures(store) == {"sent": 1, "delivered": 1}


def test_a_message_without_a_journal_is_moved_too(store: SQLStore) -> None:
    store.record(accepted("m", sid="SM1"))
    store.receive(told(S.DELIVERED, "m"))
    assert figures(store) == {"sent": 1, "delivered": 1}


def test_a_message_that_was_refused_is_sent_anew_in_a_round_of_its_own(retrying: SQLStore) -> None:
    sent(retrying)
    received = retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1)))
    assert received.again == message("m")
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    due = begin(retrying, message("m"))
    assert isinstance(due, NotDue)
    assert 590.0 < due.left_s <= 600.0
    assert retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1))).again is None
    pass_time(retrying, 601.0)
    sent(retrying, sid="SM2")
    assert figures(retrying) == {"sent": 1, "delivery_retries": 1}
    retrying.receive(told(S.DELIVERED, "m", sid="SM2", mark=Mark(2, 1, 2)))
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}
    assert row_of(retrying, "m").body is None


def test_retries_that_were_in_vain_are_counted_and_end(retrying: SQLStore) -> None:
    for number, delay_s in ((1, 600.0), (2, 1_200.0), (3, None)):
        sent(retrying, sid=f"SM{number}")
        again = retrying.receive(told(S.UNDELIVERED, sid=f"SM{number}", code="30003")).again
        assert (again is None) == (delay_s is None)
        pass_time(retrying, (delay_s or 0.0) + 1.0)
    assert figures(retrying) == {"sent": 1, "undelivered": 1, "delivery_retries": 2, "retries_in_vain": 2}
    assert row_of(retrying, "m").body is None


@pytest.mark.parametrize("mark", [Mark(1, 1, 1), None])
def test_a_text_that_arrived_after_all_is_not_sent_anew(retrying: SQLStore, mark: Mark | None) -> None:
    sent(retrying)
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=mark))
    retrying.receive(told(S.DELIVERED, "m", mark=mark))
    assert figures(retrying) == {"sent": 1, "delivered": 1}
    pass_time(retrying, 700.0)
    assert isinstance(begin(retrying, message("m")), Ended)
    assert retrying.overdue() == ()
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=mark))
    assert figures(retrying) == {"sent": 1, "delivered": 1}


@dataclass
class Overtaken:
    """Be a sender whose second send, that of round 2, is overtaken by the news that the text of round 1 arrived."""

    store: SQLStore
    second: Failure | type[BaseException]
    marks: list[Mark | None] = field(default_factory=list)

    def send(self, _: Message, /) -> Receipt:
        self.marks.append(mark_of_send())
        if len(self.marks) == 1:
            return Receipt("twilio", "SM1", datetime.now(UTC))
        assert len(self.marks) == 2, "a third send"
        self.store.receive(told(S.DELIVERED, "m", mark=self.marks[0]))
        raise self.second if isinstance(self.second, type) else ProviderError(self.second)

    def find(self, _: Message, /, *, since: datetime, exclude: tuple[str, ...] = ()) -> NotSeen:
        return NotSeen(datetime.now(UTC))


SECOND_SENDS: dict[str, Failure | type[BaseException]] = {
    "busy": BUSY,
    "refused": NO_NUMBER,
    "lost answer": Failure.of(FailureKind.LOST_ANSWER),
    "killed": SystemExit,
    "account refused": Failure.of(FailureKind.AUTH, code=20003, http_status=401, provider="twilio"),
}


@pytest.mark.parametrize("second", SECOND_SENDS.values(), ids=SECOND_SENDS)
def test_a_text_that_arrived_while_it_is_sent_anew_is_not_sent_a_third_time(
    retrying: SQLStore, second: Failure | type[BaseException]
) -> None:
    dispatcher = Dispatcher(Overtaken(retrying, second), journal=retrying)
    assert isinstance(dispatcher.attempt(message("m")), Accepted)
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1)))
    outcome: Outcome | None = None
    for _ in range(12):
        pass_time(retrying, 700.0)
        with contextlib.suppress(SystemExit):
            outcome = dispatcher.attempt(message("m"))
        if isinstance(outcome, Accepted | GaveUp):
            break
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.provider_id == "SM1"
    known = figures(retrying)
    known.pop("retried", None)
    known.pop("deferred", None)
    assert known == {"sent": 1, "delivered": 1}
    assert row_of(retrying, "m").body is None


def test_a_claim_given_back_after_the_text_arrived_is_the_last_one(retrying: SQLStore) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    claim = claimed(retrying, message("m"))
    retrying.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    assert not retrying.renew(claim, lease_s=60.0)
    retrying.release(claim)
    assert figures(retrying) == {"sent": 1, "delivered": 1}
    assert isinstance(begin(retrying, message("m")), Ended)


@pytest.mark.parametrize("code", ["30003", "30005"])
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_text_that_arrived_outweighs_its_retry_that_did_not_in_either_order(
    retrying: SQLStore, code: str, *, is_late: bool
) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    sent(retrying, sid="SM2")
    arrived = told(S.DELIVERED, "m", mark=Mark(1, 1, 1))
    refused = told(S.UNDELIVERED, "m", sid="SM2", code=code, mark=Mark(2, 1, 2))
    for report in (refused, arrived) if is_late else (arrived, refused):
        retrying.receive(report)
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}
    assert row_of(retrying, "m").body is None
    pass_time(retrying, 2_000.0)
    assert isinstance(begin(retrying, message("m")), Ended)
    assert retrying.overdue() == ()


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_a_text_that_arrived_outweighs_its_retry_of_which_no_report_came(retrying: SQLStore, *, is_late: bool) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    sent(retrying, sid="SM2")
    arrived = told(S.DELIVERED, "m", mark=Mark(1, 1, 1))
    retrying.receive(told(S.SENT, sid="SM2") if is_late else arrived)
    for _ in range(2):
        pass_time(retrying, 15 * DAY_S)
        retrying.unreported()
    retrying.receive(arrived)
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}


def test_a_text_whose_reports_never_name_the_message_is_known_in_the_next_round_too(retrying: SQLStore) -> None:
    retrying.receive(told(S.UNDELIVERED, code="30003"))  # before its create is answered
    sent(retrying)
    pass_time(retrying, 16 * 60.0)
    assert retrying.unreported() == ()
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    retrying.receive(told(S.DELIVERED))
    assert figures(retrying) == {"sent": 1, "delivered": 1}


def test_the_second_retry_may_be_taken_back_too(retrying: SQLStore) -> None:
    sent(retrying)
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1)))
    pass_time(retrying, 700.0)
    sent(retrying, sid="SM2")
    retrying.receive(told(S.UNDELIVERED, "m", sid="SM2", code="30003", mark=Mark(2, 1, 2)))
    assert figures(retrying) == {"pending": 1, "delivery_retries": 2, "retries_in_vain": 1}
    retrying.receive(told(S.DELIVERED, "m", sid="SM2", mark=Mark(2, 1, 2)))
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}


@pytest.mark.parametrize("code", ["30005", "30008"])
def test_other_codes_end_a_message(retrying: SQLStore, code: str) -> None:
    sent(retrying)
    assert retrying.receive(told(S.UNDELIVERED, code=code)).again is None
    assert figures(retrying) == {"sent": 1, "undelivered": 1}
    assert row_of(retrying, "m").body is None


def test_nobody_is_texted_anew_who_opted_out_whatever_codes_are_named() -> None:
    with SQLStore("sqlite://", delivery_retries=DeliveryRetries(codes={"21610"})) as store:
        sent(store)
        stopped = Failure.of(FailureKind.OPTED_OUT, code="21610", provider="twilio")
        assert store.receive(told(S.UNDELIVERED, code="21610", failure=stopped)).again is None
        assert figures(store) == {"sent": 1, "undelivered": 1}


def test_nothing_is_sent_anew_after_its_deadline(retrying: SQLStore) -> None:
    sent(retrying, send_before=datetime.now(UTC) + timedelta(seconds=300))
    assert retrying.receive(told(S.UNDELIVERED, code="30003")).again is None
    assert figures(retrying) == {"sent": 1, "undelivered": 1}


def test_what_nobody_queues_anew_recover_queues(retrying: SQLStore) -> None:
    sent(retrying)
    retrying.receive(told(S.FAILED, code="30003"))
    assert retrying.overdue() == ()
    pass_time(retrying, 600.0 + 61.0)
    assert [one.message for one in retrying.overdue()] == [message("m")]


def test_a_late_answer_of_an_earlier_round_changes_nothing(retrying: SQLStore) -> None:
    claim = claimed(retrying, message("m"))
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, claim.epoch)))
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    retrying.finish(claim, Accepted(Receipt("twilio", "SM1", claim.now)), accepted("m", sid="SM1"))
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    retrying.receive(told(S.SENT, "m", mark=Mark(1, 1, claim.epoch)))
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}


def test_who_has_no_report_is_asked_about_and_ends_after_three_days(store: SQLStore) -> None:
    sent(store)
    assert store.unreported() == ()
    asked = 0
    for _ in range(200):
        pass_time(store, 30 * 60.0)
        for one in store.unreported():
            asked += 1
            store.receive(told(S.SENT, sid=one.provider_id))
    assert 8 <= asked <= 12
    assert figures(store) == {"sent": 1, "no_report": 1}
    store.receive(told(S.DELIVERED))
    assert figures(store) == {"sent": 1, "delivered": 1}


def test_a_text_about_which_nobody_answers_is_asked_about_every_twelve_hours_for_two_weeks(store: SQLStore) -> None:
    sent(store)
    asked: list[int] = []
    for hour in range(1, 24 * 14):
        pass_time(store, 3_600.0)
        asked += [hour for _ in store.unreported()]
    assert [hour for hour in asked if hour > 72] == list(range(77, 24 * 14, 12))
    assert figures(store) == {"sent": 1}
    pass_time(store, 12 * 3_600.0)
    assert store.unreported() == ()
    assert figures(store) == {"sent": 1, "no_report": 1}
    store.receive(told(S.DELIVERED))
    assert figures(store) == {"sent": 1, "delivered": 1}


def test_a_text_ends_without_a_report_by_an_answer_after_three_days_alone(store: SQLStore) -> None:
    sent(store)
    pass_time(store, 71 * 3_600.0)
    assert len(store.unreported()) == 1
    store.receive(told(S.SENT))
    pass_time(store, 2 * 3_600.0)
    store.receive(told(S.SENT, "m", mark=Mark(1, 1, 1)))  # a callback that was late: another may be on its way
    assert figures(store) == {"sent": 1}
    assert len(store.unreported()) == 1
    store.receive(told(S.SENT))
    assert figures(store) == {"sent": 1, "no_report": 1}
    assert store.unreported() == ()


def test_texts_about_which_nobody_was_asked_are_put_back(store: SQLStore) -> None:
    for number in range(3):
        sent(store, f"m{number}", f"SM{number}")
    pass_time(store, 16 * 60.0)
    taken = store.unreported()
    store.receive(told(S.DELIVERED, sid="SM1"))
    store.put_back(taken)
    assert [one.provider_id for one in store.unreported()] == ["SM0", "SM2"]
    assert [row_of(store, f"m{number}").fetches for number in range(3)] == [1, 1, 1]
    assert store.unreported() == ()


def test_two_pollers_do_not_ask_twice(store: SQLStore) -> None:
    for number in range(5):
        sent(store, f"m{number}", f"SM{number}")
    pass_time(store, 16 * 60.0)
    first, second = store.unreported(limit=3), store.unreported(limit=3)
    assert len(first) == 3
    assert len(second) == 2
    assert {one.provider_id for one in (*first, *second)} == {f"SM{number}" for number in range(5)}
    assert store.unreported() == ()


def test_texts_that_end_without_a_report_hold_up_no_others(store: SQLStore) -> None:
    for number in range(3):
        sent(store, f"old{number}", f"SMold{number}")
    pass_time(store, 16 * 60)
    assert len(store.unreported()) == 3  # and no answer comes
    pass_time(store, 15 * DAY_S)
    sent(store)
    pass_time(store, 16 * 60)
    assert [one.message_id for one in store.unreported(limit=2)] == ["m"]
    assert figures(store) == {"sent": 4, "no_report": 3}
    assert store.unreported(limit=2) == ()


def test_retries_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="delivery_retries"):
        SQLStore("sqlite://", delivery_retries={"30003"})  # type: ignore[arg-type]


def reports_in(store: SQLStore) -> set[str]:
    with store._database.reading() as connection:
        return set(connection.scalars(sa.select(store._schema.reports.c.provider_id)))


def test_a_purge_removes_reports_of_messages_that_are_gone_and_of_those_that_nobody_ever_knew(store: SQLStore) -> None:
    sent(store, "old", "SM1")
    store.receive(told(S.DELIVERED, "old"))
    store.receive(told(S.SENT, sid="SM2"))
    store.receive(told(S.SENT, "never-known", sid="SM3"))
    store.suppress(Suppression(to=message("old").to))
    pass_time(store, 3_600.0)
    sent(store, "new", "SM4")
    store.receive(told(S.SENT, "new", sid="SM4"))
    store.receive(told(S.SENT, sid="SM5"))
    sent(store, "kept", "SM6")
    store.receive(told(S.SENT, sid="SM6"))
    purged = store.purge(timedelta(minutes=30))
    assert (purged.messages, purged.reports) == (1, 3)
    assert reports_in(store) == {"SM4", "SM5", "SM6"}
    assert store.suppressed(message("old").to, "") is not None
    pass_time(store, 3_600.0)
    assert store.purge(timedelta(minutes=30)).reports == 3


def test_a_purge_of_many_reports_takes_them_in_turns(memory_store: SQLStore) -> None:
    store = emptied(memory_store)
    for number in range(501):
        store.receive(told(S.SENT, sid=f"SM{number}"))
    assert store.purge(timedelta()).reports == 501
    assert reports_in(store) == set()


def test_retries_without_the_texts_to_be_sent_anew_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="keep_bodies"):
        SQLStore("sqlite://", keep_bodies=False, delivery_retries=RETRIES)
    SQLStore("sqlite://", keep_bodies=False, delivery_retries=DeliveryRetries())


def test_a_store_without_retries_ends_what_one_with_them_kept(file_url: str) -> None:
    with SQLStore(file_url, delivery_retries=RETRIES) as keeping, SQLStore(file_url) as other:
        sent(keeping)
        assert row_of(keeping, "m").body is not None
        assert other.receive(told(S.UNDELIVERED, "m", code="30003")).again is None
        assert figures(keeping) == {"sent": 1, "undelivered": 1}
        assert row_of(keeping, "m").body is None


LIFE = (
    told(S.QUEUED, "m", mark=Mark(1, 1, 1)),
    told(S.SENT, "m", mark=Mark(1, 1, 1)),
    told(S.DELIVERED, "m", mark=Mark(1, 1, 1)),
    None,  # the create's own answer
)


@given(st.lists(st.sampled_from(LIFE), max_size=3).flatmap(lambda more: st.permutations([*LIFE, *more])))
def test_in_every_order_the_create_and_its_reports_end_in_the_same_state(memory_store: SQLStore, life) -> None:
    store = emptied(memory_store)
    claim = claimed(store, message("m"))
    assert isinstance(claim, Claim)
    for report in life:
        if report is None:
            store.finish(claim, Accepted(Receipt("twilio", "SM1", claim.now)), accepted("m", sid="SM1"))
        else:
            store.receive(report)
    assert figures(store) == {"sent": 1, "delivered": 1}
    record = store.message("m")
    assert record is not None
    assert (record.delivery, record.provider_id, record.attempts) == ("delivered", "SM1", 1)


def test_a_retry_that_waited_is_not_made_where_a_report_says_that_it_was_taken(store: SQLStore) -> None:
    assert attempt(store, message("m"), BUSY) is not None
    store.receive(told(S.SENT, "m", mark=Mark(1, 1, 1)))
    assert figures(store) == {"sent": 1, "retried": 1}
    assert isinstance(begin(store, message("m")), Ended)


def test_a_second_text_takes_no_last_word_back(store: SQLStore) -> None:
    sent(store)
    store.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    store.receive(told(S.SENT, "m", sid="SM2", mark=Mark(1, 2, 2)))
    assert figures(store) == {"sent": 1, "delivered": 1, "doubled": 1}
    for _ in range(80):
        pass_time(store, 3_600.0)
        assert store.unreported() == ()
    assert figures(store) == {"sent": 1, "delivered": 1, "doubled": 1}


def test_who_has_no_report_is_not_asked_about_again_for_a_second_text(store: SQLStore) -> None:
    sent(store)
    for _ in range(2):
        pass_time(store, 15 * DAY_S)
        store.unreported()
    store.receive(told(S.SENT, "m", sid="SM2", mark=Mark(1, 2, 2)))
    for _ in range(2):
        pass_time(store, 15 * DAY_S)
        store.unreported()
    assert figures(store) == {"sent": 1, "no_report": 1, "doubled": 1}


def test_who_was_never_asked_about_is_asked_once_before_it_has_no_report(store: SQLStore) -> None:
    sent(store)
    pass_time(store, 15 * DAY_S)
    assert [one.provider_id for one in store.unreported()] == ["SM1"]
    assert figures(store) == {"sent": 1}
    pass_time(store, 3_600.0)
    assert store.unreported() == ()
    assert figures(store) == {"sent": 1, "no_report": 1}


def test_reports_that_were_kept_hide_nobody_who_is_to_be_asked_about(store: SQLStore) -> None:
    for number in range(3):
        store.receive(told(S.DELIVERED, sid=f"SM{number}"))
        sent(store, f"m{number}", f"SM{number}")
    pass_time(store, 60.0)
    sent(store, "last", "SM9")
    pass_time(store, 16 * 60.0)
    assert [one.message_id for one in store.unreported(limit=1)] == ["last"]
    assert figures(store) == {"sent": 4, "delivered": 3}


def test_counters_of_many_messages_are_moved_in_the_order_of_their_shards(store: SQLStore) -> None:
    for number in range(40):
        sent(store, f"m{number}", f"SM{number}")
        store.receive(told(S.SENT, f"m{number}", sid=f"SM{number}"))
    shards: list[int] = []
    table = store._schema.counters.name

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith(f"INSERT INTO {table}"):
            shards.append(parameters["shard"] if isinstance(parameters, dict) else parameters[1])

    engine = store._database._ready_engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        for _ in range(2):
            pass_time(store, 15 * DAY_S)
            store.unreported()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert figures(store) == {"sent": 40, "no_report": 40}
    assert shards == sorted(set(shards))  # another one that moves counters of many can never wait for this one in turn


def test_a_text_is_erased_when_a_report_says_that_it_was_taken(store: SQLStore) -> None:
    claimed(store, message("m"))
    assert row_of(store, "m").body is not None
    store.receive(told(S.QUEUED, "m", mark=Mark(1, 1, 1)))
    assert row_of(store, "m").body is None


def test_a_report_that_says_nothing_new_says_so(retrying: SQLStore) -> None:
    sent(retrying)
    other = told(S.SENT, "m", sid="SM2", mark=Mark(1, 2, 2))
    assert [retrying.receive(other).changed for _ in range(3)] == [True, False, False]
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1)))
    earlier = told(S.SENT, "m", sid="SM1", mark=Mark(1, 1, 1))
    assert [retrying.receive(earlier).changed for _ in range(2)] == [False, False]


def waiting_for_its_retry(store: SQLStore, **more: Any) -> None:
    sent(store, **more)
    assert store.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1))).again is not None


def refuse(store: SQLStore) -> None:
    pass_time(store, 700.0)
    assert isinstance(attempt(store, message("m"), NO_NUMBER), GaveUp)


def suppress(store: SQLStore) -> None:
    pass_time(store, 700.0)
    store.suppress(Suppression(to=message("m").to))
    assert attempt(store, message("m"), suppression=store) is not None


def let_expire(store: SQLStore) -> None:
    pass_time(store, 700.0)
    claim, late = claimed(store, message("m")), Failure.of(FailureKind.EXPIRED)
    why = GiveUpReason.EXPIRED
    store.finish(claim, GaveUp(late, why, 0), failed("m", 0, reason=why, failure=late, round=2))


ENDS: list[tuple[str, Callable[[SQLStore], object]]] = [
    ("failed", refuse),
    ("expired", let_expire),
    ("canceled", lambda store: store.cancel("m")),
    ("suppressed", suppress),
]


@pytest.mark.parametrize(("state", "end"), ENDS)
def test_a_retry_that_was_never_sent_is_in_vain(
    retrying: SQLStore, state: str, end: Callable[[SQLStore], object]
) -> None:
    waiting_for_its_retry(retrying)
    end(retrying)
    assert figures(retrying) == {state: 1, "delivery_retries": 1, "retries_in_vain": 1}
    assert row_of(retrying, "m").body is None
    retrying.receive(told(S.UNDELIVERED, "m", code="30003", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {state: 1, "delivery_retries": 1, "retries_in_vain": 1}


@pytest.mark.parametrize(("state", "end"), ENDS)
def test_a_text_that_arrived_after_all_is_delivered_whatever_became_of_its_retry(
    retrying: SQLStore, state: str, end: Callable[[SQLStore], object]
) -> None:
    waiting_for_its_retry(retrying)
    end(retrying)
    retrying.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {"sent": 1, "delivered": 1}
    record = retrying.message("m")
    assert record is not None
    assert (record.provider_id, record.reason, record.kind, record.detail) == ("SM1", None, None, None), state
    answer = begin(retrying, message("m"))
    assert isinstance(answer, Ended)
    assert isinstance(answer.outcome, Accepted)


def test_in_a_loop_a_text_is_kept_for_its_retry_too(retrying: SQLStore) -> None:
    class Sender:
        async def send(self, one: Message, /) -> Receipt:
            return Receipt("twilio", f"SM-{one.id}-{mark_of_send()}", datetime.now(UTC))

    async def attempt_all() -> None:
        dispatcher = AsyncDispatcher(Sender(), journal=retrying)
        messages = [message(f"m{number}", to=f"+1500555{number:04}") for number in range(20)]
        outcomes = await asyncio.gather(*(dispatcher.attempt(one) for one in messages))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)

    asyncio.run(attempt_all())
    for number in range(20):
        told_of = told(S.FAILED, f"m{number}", sid=f"SM-m{number}-1.1.1", code="30003", mark=Mark(1, 1, 1))
        assert retrying.receive(told_of).again is not None
    assert figures(retrying) == {"pending": 20, "delivery_retries": 20}
    pass_time(retrying, 700.0)
    asyncio.run(attempt_all())
    assert figures(retrying) == {"sent": 20, "delivery_retries": 20}
    for number in range(20):
        told_of = told(S.DELIVERED, f"m{number}", sid=f"SM-m{number}-2.1.2", mark=Mark(2, 1, 2))
        assert retrying.receive(told_of).changed
    arrived = {"sent": 20, "delivered": 20, "delivered_after_retry": 20, "delivery_retries": 20}
    assert figures(retrying) == arrived


def test_a_text_of_the_first_round_that_arrived_ends_the_third_too(retrying: SQLStore) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    sent(retrying, sid="SM2")
    retrying.receive(told(S.UNDELIVERED, "m", sid="SM2", code="30003", mark=Mark(2, 1, 2)))
    retrying.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}
    assert retrying.overdue() == ()


def test_a_retry_that_failed_once_and_waits_is_taken_back_too(retrying: SQLStore) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    assert attempt(retrying, message("m"), BUSY) is not None
    retrying.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {"sent": 1, "delivered": 1, "retried": 1}
    assert isinstance(begin(retrying, message("m")), Ended)


def test_a_retry_refused_for_the_account_can_be_sent_once_more_when_that_is_mended(retrying: SQLStore) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    claim = claimed(retrying, message("m"))
    refused = Failure.of(FailureKind.AUTH, code=20003, provider="twilio")
    end = GaveUp(refused, GiveUpReason.PERMANENT, 1)
    retrying.finish(claim, end, failed("m", failure=refused, round=2))
    assert figures(retrying) == {"failed": 1, "delivery_retries": 1, "retries_in_vain": 1}
    assert [one.message for one in retrying.mended("spring", FailureKind.AUTH)] == [message("m")]
    assert figures(retrying) == {"pending": 1, "delivery_retries": 1}
    sent(retrying, sid="SM3")
    retrying.receive(told(S.DELIVERED, "m", sid="SM3", mark=Mark(3, 1, 3)))
    assert figures(retrying) == {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}


def test_a_retry_of_which_nobody_knows_the_end_is_open_until_a_report_tells(retrying: SQLStore) -> None:
    waiting_for_its_retry(retrying)
    pass_time(retrying, 700.0)
    claim, lost = claimed(retrying, message("m")), Failure.of(FailureKind.LOST_ANSWER)
    told_of = failed("m", reason=GiveUpReason.OUTCOME_UNKNOWN, failure=lost, round=2)
    retrying.finish(claim, GaveUp(lost, GiveUpReason.OUTCOME_UNKNOWN, 1), told_of)
    assert figures(retrying) == {"unknown": 1, "delivery_retries": 1}
    retrying.receive(told(S.DELIVERED, "m", mark=Mark(1, 1, 1)))
    assert figures(retrying) == {"unknown": 1, "delivery_retries": 1}  # of the retry still nobody knows
    retrying.receive(told(S.UNDELIVERED, "m", sid="SM2", code="30003", mark=Mark(2, 1, 2)))
    arrived = {"sent": 1, "delivered": 1, "delivered_after_retry": 1, "delivery_retries": 1}
    assert figures(retrying) == arrived  # that of the first round


def test_a_new_round_that_only_analytics_knows_has_no_delivery_yet(store: SQLStore) -> None:
    store.record(accepted("m", sid="SM1"))
    store.receive(told(S.DELIVERED, "m"))
    store.record(failed("m", round=2))
    assert figures(store) == {"failed": 1}
    store.record(accepted("m", 2, sid="SM2", round=2))
    assert figures(store) == {"sent": 1}


@pytest.mark.integration
def test_an_event_and_a_report_about_one_text_never_wait_in_a_circle(postgres_store: SQLStore) -> None:
    store = emptied(postgres_store)
    store.plan(message("m"))
    attempts, event = store._schema.attempts, accepted("m", sid="SM1")
    with ThreadPoolExecutor() as pool, store._database._ready_engine().begin() as connection:
        connection.execute(sa.text("SET LOCAL lock_timeout = '500ms'"))  # a circle is broken after a second
        store._deliveries._arrivals.locked(connection, "m")  # as a report begins
        noted = pool.submit(store.record, event)
        time.sleep(0.3)  # by now it waits for the message
        store._deliveries.receive(connection, told(S.QUEUED, "m", mark=Mark(1, 1, 1)))
        written = sa.select(attempts.c.event_id).where(attempts.c.event_id == event.event_id)
        assert connection.scalar(written) == event.event_id
    assert noted.result(timeout=5) is None
    assert figures(store) == {"sent": 1}


@pytest.mark.integration
def test_a_report_that_a_purge_takes_away_meanwhile_is_written_anew(postgres_store: SQLStore) -> None:
    store = emptied(postgres_store)
    store.receive(told(S.SENT))
    reports, engine = store._schema.reports, store._database._ready_engine()
    purged: list[str] = []

    def purge(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith(f"INSERT INTO {reports.name}") and not purged:
            purged.append(statement)
            with engine.begin() as other:
                other.execute(sa.delete(reports))

    sa.event.listen(engine, "after_cursor_execute", purge)
    try:
        received = store.receive(told(S.DELIVERED))
    finally:
        sa.event.remove(engine, "after_cursor_execute", purge)
    assert purged
    assert (received.known.status, received.changed) == (S.DELIVERED, True)
