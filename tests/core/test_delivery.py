"""What is known of a text is the same in whatever order, and however often, its reports come."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry.core.delivery import (
    Delivery,
    DeliveryReport,
    DeliveryRetries,
    DeliveryStatus,
    Mark,
    callback_query,
    callback_url,
)
from smsretry.core.policy import RetryPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
S = DeliveryStatus
statuses = st.sampled_from(DeliveryStatus)
codes = st.sampled_from([None, "30003", "30005", "30008"])


def report(status: DeliveryStatus, code: str | None = None, **fields: object) -> DeliveryReport:
    return DeliveryReport(provider_id="SM1", status=status, code=code, received_at=NOW, **fields)  # type: ignore[arg-type]


reports = st.builds(report, statuses, codes)


@given(st.lists(reports, max_size=5), st.data())
def test_every_order_and_repetition_of_reports_ends_in_the_same_state(told, data):
    known = Delivery.of(told)
    again = data.draw(
        st.permutations([*told, *data.draw(st.lists(st.sampled_from(told), max_size=3) if told else st.just([]))])
    )
    assert Delivery.of(again) == known


def test_all_orders_of_a_whole_life_end_as_delivered():
    life = [report(S.QUEUED), report(S.SENDING), report(S.SENT), report(S.DELIVERED), report(S.SENT)]
    assert {Delivery.of(order) for order in itertools.permutations(life)} == {Delivery(S.DELIVERED)}


@given(st.lists(reports, max_size=6), reports)
def test_what_is_final_stays_final(told, late):
    known = Delivery.of(told)
    if known.status.is_final:
        assert known.after(late.delivery).status.is_final


@given(statuses)
def test_a_late_word_changes_nothing(status):
    if not status.is_final:
        assert Delivery(S.UNDELIVERED, "30003").after(Delivery(status)) == Delivery(S.UNDELIVERED, "30003")


def test_of_contradictory_ends_what_arrived_weighs_more():
    ends = [S.CANCELED, S.FAILED, S.UNDELIVERED, S.DELIVERED, S.READ]
    assert [status for status in DeliveryStatus if status.is_final] == ends
    assert [status for status in DeliveryStatus if status.has_arrived] == [S.DELIVERED, S.READ]
    for lesser, greater in itertools.combinations(ends, 2):
        assert (
            Delivery(lesser).after(Delivery(greater)) == Delivery(greater).after(Delivery(lesser)) == Delivery(greater)
        )


@given(st.integers(1, 999_999), st.integers(1, 999_999), st.integers(0, 10**18 - 1))
def test_a_mark_comes_back_from_a_url(round_, attempt, epoch):
    mark = Mark(round_, attempt, epoch)
    assert Mark.parse(str(mark)) == mark


@given(st.text())
def test_a_mark_that_anybody_made_up_is_none_or_one(text):
    mark = Mark.parse(text)
    assert mark is None or (mark.round >= 1 and mark.attempt >= 1 and mark.epoch >= 0)


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "0.1.1", "1.0.1", "1.1.-1", "1.1.1.1", "a.1.1", "1.1.99999999999999999999", "1.²"]
)
def test_what_is_no_mark_is_none(text):
    assert Mark.parse(text) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"provider_id": ""}, "provider_id"),
        ({"provider_id": "x" * 256}, "provider_id"),
        ({"provider_id": None}, "provider_id"),
        ({"message_id": "a\nb"}, "message_id"),
        ({"message_id": 7}, "message_id"),
        ({"code": "3" * 65}, "code"),
        ({"code": "a\x00b"}, "code"),
        ({"code": 30003}, "code"),
        ({"provider": "p" * 65}, "provider"),
        ({"received_at": datetime(2026, 1, 1)}, "received_at"),  # noqa: DTZ001
        ({"received_at": "now"}, "received_at"),
        ({"status": "gone"}, "gone"),
    ],
)
def test_a_report_that_cannot_be_is_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        DeliveryReport(**{"provider_id": "SM1", "status": S.SENT, "received_at": NOW, **fields})


def test_a_report_shows_nothing_personal():
    told = report(S.SENT, raw={"To": "+14155550123"}, message_id="m")
    assert "4155550123" not in repr(told)
    assert told == report(S.SENT, message_id="m")


def test_by_default_nothing_is_sent_again_after_a_delivery_failure():
    retries = DeliveryRetries()
    assert retries.delay_s(Delivery(S.UNDELIVERED, "30003"), 0) is None


def test_codes_that_are_named_are_sent_again_on_the_schedule_of_the_policy():
    retries = DeliveryRetries(codes={"30003"})
    refused = Delivery(S.UNDELIVERED, "30003")
    assert [retries.delay_s(refused, n) for n in range(3)] == [600.0, 1_200.0, None]
    assert retries.delay_s(Delivery(S.FAILED, "30003"), 0) == 600.0
    assert retries.delay_s(Delivery(S.UNDELIVERED, "30005"), 0) is None
    assert retries.delay_s(Delivery(S.DELIVERED, "30003"), 0) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"codes": "30003"}, "codes"), ({"codes": {""}}, "codes"), ({"policy": 3}, "policy")],
)
def test_retries_that_cannot_be_are_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        DeliveryRetries(**fields)


def test_codes_may_be_numbers():
    assert DeliveryRetries(codes=[30003], policy=RetryPolicy(max_retries=1)).codes == {"30003"}


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"]), min_size=1, max_size=255),
    st.builds(Mark, st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)),
)
def test_what_names_a_send_comes_back_from_its_url(message_id, mark):
    url = callback_url("https://example.com/sms?tenant=7&x=", message_id, mark)
    assert url.startswith("https://example.com/sms?tenant=7&x=&smsretry_id=")
    assert url.isascii()
    assert callback_query(urlsplit(url).query) == (message_id, mark)


def test_what_is_not_known_is_not_in_the_url():
    assert callback_url("https://example.com/sms#part", None, None) == "https://example.com/sms"
    assert callback_url("https://example.com/sms", "m", None) == "https://example.com/sms?smsretry_id=m"
    assert callback_query("") == (None, None)
    assert callback_query("smsretry_id=&smsretry_mark=1.2") == (None, None)
    assert callback_query("smsretry_id=a%0Ab&smsretry_mark=1.2.3") == (None, Mark(1, 2, 3))
