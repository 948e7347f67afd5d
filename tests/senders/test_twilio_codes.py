"""Every code of the table means what Twilio says, at a create and in a delivery report."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smsretry.core.failure import RETRYABLE_KINDS, FailureKind, Scope
from smsretry.senders.twilio_codes import (
    Arrives,
    Decision,
    TwilioCode,
    codes,
    decide_unlisted,
    is_server_error,
    lookup_code,
)


def numbers(text: str) -> frozenset[int]:
    return frozenset(int(word) for word in text.split())


KINDS: dict[FailureKind, frozenset[int]] = {
    FailureKind.RATE_LIMITED: numbers("14107 20429 21724 30022 30023 30027 35125 36002 63017 63018 63038"),
    FailureKind.QUEUE_FULL: numbers("21611 30001"),
    FailureKind.TEMPORARY: numbers(
        "20162 20500 20503 20504 21723 21730 30017 30020 30021 30047 30103 30410 30500 30610 30615 63009 63010 63012 "
        "63037 90009"
    ),
    FailureKind.LOST_ANSWER: numbers("503"),
    FailureKind.INVALID_NUMBER: numbers(
        "21211 21217 21265 21266 21268 21421 21604 21614 21635 30005 30006 30014 63003 63024 63031"
    ),
    FailureKind.UNREACHABLE: numbers("21214 30003 63036"),
    FailureKind.OPTED_OUT: numbers("21610 30630 63014 63033"),
    FailureKind.CARRIER_REJECTED: numbers("30004 30007 30043 30450 30453 30485 30640 63026"),
    FailureKind.CONTENT: numbers(
        "11751 12300 20413 21602 21605 21617 21618 21619 21620 21623 21652 21653 21654 21655 21656 21658 30011 30019 "
        "30044 30110 30111 35127 35133 35134 63005 63006 63013 63019 63021 63034 92001 92002 92005 92006 92007 92008 "
        "216602"
    ),
    FailureKind.SENDER_CONFIG: numbers(
        "20001 20004 20007 20410 20422 20423 21212 21401 21402 21403 21407 21420 21456 21481 21502 21601 21603 21606 "
        "21609 21612 21613 21616 21621 21624 21626 21627 21657 21659 21660 21661 21664 21665 21666 21667 21701 21702 "
        "21703 21704 21705 21708 21709 21710 21711 21712 21713 21714 21715 21717 21719 21720 21721 21722 21725 21726 "
        "21727 21728 21729 21731 21732 21733 21736 21737 21900 21901 21902 21910 22402 22500 30010 30012 30013 30015 "
        "30016 30018 30024 30028 30029 30030 30031 30032 30033 30034 30035 30040 30041 30042 30045 30100 30101 30102 "
        "30106 30107 30108 30124 30127 30129 30130 30132 30133 30134 30400 30404 30409 30620 35111 35114 35115 35117 "
        "35118 35126 63007 63008 63035 90001 90007 90011 90014"
    ),
    FailureKind.GEO_PERMISSION: numbers("21408"),
    FailureKind.AUTH: numbers("403 20003 20006 20008 20011 20012 20101 20104 20107 20151 20426 21470 21471 63001"),
    FailureKind.ACCOUNT: numbers(
        "10001 10002 20005 20010 20403 21219 21267 21472 21607 21608 21622 30002 30037 30454 90010"
    ),
    FailureKind.EXPIRED: numbers("30036"),
    FailureKind.OTHER: numbers("400 404 410 20009 20404 20409 21501 30008 30646 30647 63011 63023 90006"),
}
ON_CREATE: dict[Decision, frozenset[int]] = {
    Decision.RETRY: numbers("20162 20429 63017"),
    Decision.RETRY_LATER: numbers("14107 21611 35125 63038"),
    Decision.LOOK_UP: numbers("503 20500 20503 20504 90009"),
    Decision.WARNING: numbers("21733 30045"),
}
ON_DELIVERY: dict[Decision, frozenset[int]] = {
    Decision.ON_REQUEST: numbers(
        "20504 30001 30003 30017 30022 30023 30024 30027 30035 30036 30047 30450 30453 30454 30485 30500 30610 30615 "
        "63017 63018 63038"
    ),
    Decision.DISPUTED: numbers("30008 30020 30021 30103 30410 63009 63010 63011 63012 63023 63036"),
    Decision.WARNING: numbers("21733 30018 30045 63037"),
}
DELAYS_S = {14107: 30.0, 21611: 300.0, 30001: 300.0, 35125: 300.0, 63038: 86_400.0}
MEANT_FOR_OTHER_CALLS = numbers(
    "20007 20009 21481 21710 21712 21713 21714 21719 21720 21721 21722 21723 21724 21725 21726 21727 21728 21729 21730 "
    "21731 21732 21736 21737 22402 30400 30409 30646 30647 35133 35134 36002"
)
EVERY_ROW = [pytest.param(row, id=str(row.code)) for row in codes().values()]


def test_the_table_holds_262_codes_in_ascending_order() -> None:
    assert len(codes()) == 262
    assert list(codes()) == sorted(codes())


def test_every_code_has_the_kind_expected_of_it() -> None:
    assert sum(map(len, KINDS.values())) == 262
    for kind, expected in KINDS.items():
        assert {row.code for row in codes().values() if row.kind is kind} == expected, kind


def test_what_is_done_on_a_create_is_as_expected() -> None:
    by_decision = {each: {row.code for row in codes().values() if row.on_create is each} for each in Decision}
    for decision, expected in ON_CREATE.items():
        assert by_decision[decision] == expected, decision
    delivery_only = {row.code for row in codes().values() if row.arrives is Arrives.DELIVERY}
    assert by_decision[Decision.NOT_SEEN_THERE] == delivery_only | MEANT_FOR_OTHER_CALLS
    assert by_decision[Decision.ON_REQUEST] | by_decision[Decision.DISPUTED] == set()


def test_what_is_done_after_a_delivery_report_is_as_expected() -> None:
    by_decision = {each: {row.code for row in codes().values() if row.on_delivery is each} for each in Decision}
    for decision, expected in ON_DELIVERY.items():
        assert by_decision[decision] == expected, decision
    assert by_decision[Decision.NOT_SEEN_THERE] == {row.code for row in codes().values() if row.arrives is Arrives.REST}


def test_nothing_is_sent_again_after_a_delivery_report_by_itself() -> None:
    unasked = {Decision.RETRY, Decision.RETRY_LATER, Decision.LOOK_UP}
    assert [row.code for row in codes().values() if row.on_delivery in unasked] == []


def test_twilio_asks_for_a_minimum_delay_where_the_table_has_one() -> None:
    assert {row.code: row.min_delay_s for row in codes().values() if row.min_delay_s} == DELAYS_S


@pytest.mark.parametrize("row", EVERY_ROW)
def test_a_row_agrees_with_itself(row: TwilioCode) -> None:
    assert row.meaning
    assert row.source
    if row.on_create is Decision.RETRY_LATER:
        assert row.min_delay_s > 0
    if row.on_create in (Decision.RETRY, Decision.RETRY_LATER, Decision.LOOK_UP):
        assert row.kind in RETRYABLE_KINDS
        assert row.arrives is not Arrives.DELIVERY
    if row.on_create is Decision.GIVE_UP:
        assert row.kind not in RETRYABLE_KINDS
    if row.kind in (FailureKind.INVALID_NUMBER, FailureKind.OPTED_OUT, FailureKind.UNREACHABLE):
        assert row.scope is Scope.RECIPIENT


@pytest.mark.parametrize("row", EVERY_ROW)
def test_every_5xx_may_have_been_taken_whatever_its_code_and_no_429_was(row: TwilioCode) -> None:
    for status in (500, 502, 503, 504):
        assert row.failure_on_create(status).maybe_sent
    assert not row.failure_on_create(429).maybe_sent


@pytest.mark.parametrize("code", [30003, 30001, 63018])
def test_some_codes_come_in_delivery_reports_only(code: int) -> None:
    row = codes()[code]
    assert row.arrives is Arrives.DELIVERY
    assert row.on_create is Decision.NOT_SEEN_THERE


def test_an_invalid_number_and_a_suspended_account_are_about_different_things() -> None:
    assert codes()[21211].scope is Scope.RECIPIENT
    assert codes()[20403].scope is Scope.ACCOUNT
    assert codes()[21611].scope is Scope.SENDER
    assert codes()[30007].scope is Scope.MESSAGE
    assert codes()[20503].scope is Scope.PROVIDER
    assert codes()[21608].scope is Scope.RECIPIENT, "verified recipients pass on a trial account"


def test_a_code_is_found_by_its_number_or_its_digits() -> None:
    assert lookup_code(30007) is lookup_code("30007") is codes()[30007]


@pytest.mark.parametrize("code", [99999, -1, 0, "99999", "", "30007a", "9" * 5_000], ids=lambda code: str(code)[:9])
def test_a_code_that_nobody_listed_is_not_found(code: int | str) -> None:
    assert lookup_code(code) is None


def test_a_number_of_thousands_of_digits_is_not_found() -> None:
    assert lookup_code(10**5_000) is None


@given(st.integers() | st.text())
def test_any_number_or_text_may_be_asked_for(code: int | str) -> None:
    row = lookup_code(code)
    assert row is None or row.code == int(code)


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        (400, Decision.GIVE_UP),
        (401, Decision.GIVE_UP),
        (404, Decision.GIVE_UP),
        (307, Decision.GIVE_UP),
        (429, Decision.RETRY),
        (500, Decision.LOOK_UP),
        (503, Decision.LOOK_UP),
        (200, Decision.LOOK_UP),
    ],
)
def test_an_unlisted_code_is_decided_by_its_status(status: int, decision: Decision) -> None:
    assert decide_unlisted(status) is decision


def test_a_decision_says_in_words_what_is_done() -> None:
    assert all(decision.description.endswith(".") for decision in Decision)
    assert Decision("retry_later") is Decision.RETRY_LATER
    assert str(Decision.GIVE_UP) == "give_up"


def test_a_server_error_is_a_5xx() -> None:
    assert [status for status in (None, 0, 499, 500, 599, 600) if is_server_error(status)] == [500, 599]


def test_the_table_is_not_read_before_it_is_asked_for() -> None:
    program = (
        "import sys, smsretry.senders.twilio\n"
        "from smsretry.senders.twilio_codes import codes\n"
        "assert codes.cache_info().currsize == 0\n"
        "assert not {'twilio', 'requests', 'urllib3', 'csv'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
