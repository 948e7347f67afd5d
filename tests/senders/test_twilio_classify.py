"""An exception of Twilio's client says what happened to the text, whoever's client raised it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from twilio.base.exceptions import (  # type: ignore[import-untyped]
    TwilioException,
    TwilioRestException,
    TwilioServiceException,
)
from twilio.base.version import Version  # type: ignore[import-untyped]
from twilio.http.response import Response  # type: ignore[import-untyped]

from smsretry.core.classify import chain
from smsretry.core.failure import Failure, FailureKind, Scope
from smsretry.errors import ProviderError
from smsretry.senders.twilio import classify_twilio_error, twilio_classifier
from smsretry.senders.twilio_codes import codes

NOW = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)


def refusal(status: int, code: int | None = None, words: str = "Unable to create record: no") -> TwilioRestException:
    return TwilioRestException(status, "/Accounts/AC/Messages.json", words, status if code is None else code, "POST")


def with_headers(error: Exception, **headers: str) -> Exception:
    error.headers = {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize("row", [pytest.param(row, id=str(row.code)) for row in codes().values()])
def test_every_listed_code_is_classified_as_its_row_says(row: object) -> None:
    from smsretry.senders.twilio_codes import TwilioCode

    assert isinstance(row, TwilioCode)
    failure = classify_twilio_error(refusal(400, row.code))
    assert (failure.kind, failure.scope, failure.min_delay_s) == (row.kind, row.scope, row.min_delay_s)
    assert failure.retryable is row.is_retried_on_create
    assert (failure.code, failure.http_status, failure.provider) == (row.code, 400, "twilio")
    assert not failure.unmapped


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
@pytest.mark.parametrize("code", [None, 20500, 20503, 20504, 21211, 21610, 20429, 99999])
def test_every_5xx_may_have_been_taken(status: int, code: int | None) -> None:
    assert classify_twilio_error(refusal(status, code)).maybe_sent


@pytest.mark.parametrize(("status", "code"), [(500, 20500), (503, 20503), (504, 20504), (500, 99999)])
def test_a_5xx_that_twilio_states_itself_is_temporary(status: int, code: int) -> None:
    failure = classify_twilio_error(refusal(status, code))
    assert (failure.kind, failure.retryable, failure.code) == (FailureKind.TEMPORARY, True, code)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_of_a_gateway_is_a_lost_answer(status: int) -> None:
    failure = classify_twilio_error(refusal(status, words="Unable to create record"))
    assert (failure.kind, failure.retryable) == (FailureKind.LOST_ANSWER, True)
    assert not failure.unmapped


@pytest.mark.parametrize("code", [None, 20429, 21211, 20500, 99999, 63038])
def test_a_429_was_never_taken(code: int | None) -> None:
    failure = classify_twilio_error(with_headers(refusal(429, code), Retry_After="3"))
    assert (failure.kind, failure.maybe_sent, failure.retry_after_s) == (FailureKind.RATE_LIMITED, False, 3.0)


def test_a_full_queue_waits_five_minutes_at_least() -> None:
    failure = classify_twilio_error(refusal(400, 21611))
    assert (failure.kind, failure.scope, failure.min_delay_s) == (FailureKind.QUEUE_FULL, Scope.SENDER, 300.0)
    assert classify_twilio_error(refusal(429, 21611)).kind is FailureKind.QUEUE_FULL


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_configuration_fault(status: int) -> None:
    failure = classify_twilio_error(refusal(status))
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (FailureKind.SENDER_CONFIG, False, False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.OTHER),
        (401, FailureKind.AUTH),
        (403, FailureKind.AUTH),
        (404, FailureKind.OTHER),
        (409, FailureKind.OTHER),
        (429, FailureKind.RATE_LIMITED),
    ],
)
def test_an_unlisted_code_falls_back_to_its_status_and_is_counted(status: int, kind: FailureKind) -> None:
    failure = classify_twilio_error(refusal(status, 99999))
    assert (failure.kind, failure.code, failure.unmapped) == (kind, 99999, True)
    assert not failure.maybe_sent


def test_the_clients_stand_in_for_a_code_is_no_code() -> None:
    assert classify_twilio_error(refusal(401)).code is None
    assert classify_twilio_error(refusal(502)).code is None


def test_a_warning_may_sit_on_a_message_that_went_out() -> None:
    failure = classify_twilio_error(refusal(400, 21733))
    assert (failure.retryable, failure.maybe_sent) == (False, True)


@pytest.mark.parametrize(("code", "retryable"), [(20409, False), (20009, False), (20162, True)])
def test_conflicts_are_judged_one_by_one(code: int, retryable: bool) -> None:
    failure = classify_twilio_error(refusal(409, code))
    assert (failure.retryable, failure.maybe_sent) == (retryable, False)


def test_the_newer_exception_of_problem_json_is_known() -> None:
    error = TwilioServiceException("about:blank", "Too Many Requests", 429, 20429, detail="for +15005550006")
    failure = classify_twilio_error(error)
    assert (failure.kind, failure.code, failure.detail) == (FailureKind.RATE_LIMITED, 20429, "for ***06")
    assert classify_twilio_error(TwilioServiceException("x", "Server", 503, 503)).maybe_sent
    assert classify_twilio_error(TwilioServiceException("x", "Server", 500, 77777)).kind is FailureKind.TEMPORARY


def test_the_bare_exception_of_a_list_is_judged_by_its_response() -> None:
    assert classify_twilio_error(TwilioException("no page", Response(429, ""))).kind is FailureKind.RATE_LIMITED
    assert classify_twilio_error(TwilioException("no page", Response(503, ""))).kind is FailureKind.LOST_ANSWER
    odd = classify_twilio_error(TwilioException("Page Records can not be deserialized"))
    assert (odd.kind, odd.maybe_sent, odd.unmapped) == (FailureKind.LOST_ANSWER, True, True)


@pytest.mark.parametrize("code", ["21211", 21211])
def test_a_code_in_a_string_is_the_same_code(code: int | str) -> None:
    error = refusal(400)
    error.code = code
    assert classify_twilio_error(error).code == 21211


@pytest.mark.parametrize(
    ("code", "kept"), [("E42", "E42"), ("", None), (None, None), (True, None), ([], None), ("9" * 99, None)]
)
def test_an_odd_code_is_kept_where_it_is_one(code: object, kept: str | None) -> None:
    error = refusal(400)
    error.code = code
    failure = classify_twilio_error(error)
    assert failure.kind is FailureKind.OTHER
    assert failure.code in (kept, "***99")


def test_the_detail_is_twilios_own_words_with_numbers_masked_and_the_request_id() -> None:
    words = "Unable to create record: The number +15005550001 is bad, see https://x/?To=%2B15005550001"
    error = with_headers(refusal(400, 21211, words), Twilio_Request_Id="RQ" + "a" * 32)
    detail = classify_twilio_error(error).detail
    assert detail.startswith("The number ***01 is bad, see https://x/?To=***01")
    assert detail.endswith(f"[RQ{'a' * 32}]")
    assert "500555" not in detail


def test_without_words_of_twilios_the_table_speaks() -> None:
    assert classify_twilio_error(refusal(400, 21610, "Unable to create record")).detail.startswith(
        "recipient opted out"
    )
    assert classify_twilio_error(refusal(502, words="")).detail == "HTTP 502"


def test_a_retry_after_date_counts_from_the_answers_date_and_else_from_the_clock() -> None:
    at = "Mon, 23 Nov 2026 18:00:20 GMT"
    judge = twilio_classifier(clock=lambda: NOW)
    assert judge(with_headers(refusal(429, 20429), Retry_After=at)).retry_after_s == 20.0
    dated = with_headers(refusal(429, 20429), Retry_After=at, Date="Mon, 23 Nov 2026 18:00:15 GMT")
    assert judge(dated).retry_after_s == 5.0
    assert judge(with_headers(refusal(503, 20503), Retry_After="4")).retry_after_s == 4.0


def test_a_hint_on_a_permanent_refusal_means_nothing() -> None:
    assert classify_twilio_error(with_headers(refusal(400, 21211), Retry_After="4")).retry_after_s is None


def test_users_override_the_table_in_one_line() -> None:
    judge = twilio_classifier({30007: FailureKind.TEMPORARY, 12345: FailureKind.OPTED_OUT})
    changed = judge(refusal(400, 30007))
    assert (changed.kind, changed.retryable, changed.code, changed.http_status) == (
        FailureKind.TEMPORARY,
        True,
        30007,
        400,
    )
    added = judge(refusal(400, 12345))
    assert (added.kind, added.unmapped) == (FailureKind.OPTED_OUT, False)
    assert judge(refusal(400, 21211)).kind is FailureKind.INVALID_NUMBER


def test_an_override_may_be_a_whole_failure_and_a_5xx_stays_maybe_sent() -> None:
    template = Failure.of(FailureKind.RATE_LIMITED, min_delay_s=60.0, scope=Scope.RECIPIENT)
    judge = twilio_classifier({21612: template})
    failure = judge(refusal(400, 21612))
    assert (failure.min_delay_s, failure.scope, failure.provider) == (60.0, Scope.RECIPIENT, "twilio")
    assert not failure.maybe_sent
    assert judge(refusal(500, 21612)).maybe_sent


def test_changing_the_overrides_afterwards_changes_nothing() -> None:
    table: dict[int, FailureKind | Failure] = {30007: FailureKind.TEMPORARY}
    judge = twilio_classifier(table)
    table.clear()
    assert judge(refusal(400, 30007)).kind is FailureKind.TEMPORARY


def test_classifiers_are_chained() -> None:
    judge = chain(
        lambda error: Failure.of(FailureKind.EXPIRED) if isinstance(error, KeyError) else None, classify_twilio_error
    )
    assert judge(KeyError()).kind is FailureKind.EXPIRED
    assert judge(refusal(400, 21610)).kind is FailureKind.OPTED_OUT


def test_everything_else_goes_to_the_general_classifier() -> None:
    stated = Failure.of(FailureKind.EXPIRED)
    assert classify_twilio_error(ProviderError(stated)) == stated
    assert classify_twilio_error(requests.ReadTimeout()).kind is FailureKind.LOST_ANSWER
    assert classify_twilio_error(requests.ConnectTimeout()).kind is FailureKind.TEMPORARY
    assert classify_twilio_error(AttributeError("'NoneType' object")).maybe_sent


def test_an_exception_of_the_same_name_from_elsewhere_is_not_twilios() -> None:
    class TwilioRestException(Exception):
        status = 429

    assert classify_twilio_error(TwilioRestException()).maybe_sent


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ('{"code": 21211, "message": "bad", "status": 400}', FailureKind.INVALID_NUMBER, 21211),
        ('{"type": "t", "title": "bad", "status": 400, "code": 21610}', FailureKind.OPTED_OUT, 21610),
        ("<html>no</html>", FailureKind.OTHER, 400),
        ("", FailureKind.OTHER, 400),
        ("[]", FailureKind.OTHER, 400),
    ],
)
def test_whatever_the_real_client_makes_of_a_refusal_is_understood(body: str, kind: FailureKind, code: int) -> None:
    error = Version.exception("POST", "/x", Response(400, body), "Unable to create record")
    failure = classify_twilio_error(error)
    assert (failure.kind, failure.code) == (kind, code)


ODD = st.none() | st.integers() | st.text() | st.floats() | st.lists(st.integers(), max_size=2) | st.booleans()


@given(
    kind=st.sampled_from([TwilioRestException, TwilioServiceException, TwilioException]),
    attributes=st.dictionaries(
        st.sampled_from(["status", "code", "msg", "detail", "title", "headers", "args"]), ODD | st.tuples(ODD, ODD)
    ),
    status=st.sampled_from([None, 200, 302, 400, 429, 500]),
    overrides=st.dictionaries(st.integers(), st.sampled_from(FailureKind), max_size=2),
)
def test_no_exception_of_twilios_makes_the_classifier_raise(
    kind: type[Exception], attributes: dict[str, object], status: int | None, overrides: dict[int, FailureKind]
) -> None:
    error = kind.__new__(kind)
    for name, value in ({"status": status} | attributes).items():
        try:
            setattr(error, name, value)
        except TypeError:
            logging.getLogger(__name__).debug("args takes tuples only")
    failure = twilio_classifier(dict(overrides))(error)
    assert Failure.from_dict(failure.to_dict()) == failure
    real_status = getattr(error, "status", None)
    if isinstance(real_status, int) and 500 <= real_status < 600:
        assert failure.maybe_sent


def test_headers_of_any_kind_are_survived() -> None:
    for headers in (None, 7, "x", SimpleNamespace(get=7), {"Twilio-Request-Id": "a b"}, {"Retry-After": 3}):
        error = refusal(429, 20429)
        error.headers = headers
        assert classify_twilio_error(error).retry_after_s is None
