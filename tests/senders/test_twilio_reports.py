"""What Twilio says of a text after it took it, fetched and told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.senders.in_a_loop import NewSender, Sender
from tests.senders.twilio_servers import ACCOUNT_SID, AUTH_TOKEN, FROM, TO, clerk, http

from smsretry.core.delivery import DeliveryStatus
from smsretry.core.failure import FailureKind, Scope
from smsretry.core.message import Message
from smsretry.errors import ProviderError
from smsretry.senders.twilio_codes import codes
from smsretry.senders.twilio_reports import failure_on_delivery, report_of
from smsretry.testing import TwilioSimulator

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def simulator() -> Iterator[TwilioSimulator]:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as running:
        yield running


def sender_at(url: str, new_sender: NewSender) -> Sender:
    return new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=url)


def test_a_text_is_fetched_by_its_sid(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    sender = sender_at(simulator.url, new_sender)
    sid = sender.send(Message(TO, "Hello.", id="m")).provider_id
    report = sender.fetch(sid)
    sender.close()
    assert (report.provider_id, report.provider, report.message_id, report.mark) == (sid, "twilio", None, None)
    assert report.status.value == report.raw_status
    assert report.code is None
    assert TO not in repr(report)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(404, '{"code": 20404, "status": 404}'), FailureKind.OTHER),
        (http(429, "{}"), FailureKind.RATE_LIMITED),
        (http(401, "{}"), FailureKind.AUTH),
        (http(200, "[]"), FailureKind.TEMPORARY),
        (http(200, "<html>"), FailureKind.TEMPORARY),
        (http(200, '{"sid": "SM1", "status": null}'), FailureKind.TEMPORARY),
    ],
)
def test_what_is_no_message_is_told_as_a_failure(answer: bytes, kind: FailureKind, new_sender: NewSender) -> None:
    with clerk(answer) as serving:
        sender = sender_at(serving.url, new_sender)
        with pytest.raises(ProviderError) as caught:
            sender.fetch("SM1")
        sender.close()
    assert caught.value.failure.kind is kind


def test_a_refused_text_says_why(new_sender: NewSender) -> None:
    with clerk(http(200, '{"sid": "SM1", "status": "undelivered", "error_code": 30003}')) as serving:
        sender = sender_at(serving.url, new_sender)
        report = sender.fetch("SM1")
        sender.close()
    assert (report.status, report.code) == (DeliveryStatus.UNDELIVERED, "30003")
    assert report.failure is not None
    assert (report.failure.kind, report.failure.scope) == (FailureKind.UNREACHABLE, Scope.RECIPIENT)
    assert not report.failure.retryable


@pytest.mark.parametrize("word", ["delivered", "Delivered", "partially_delivered"])
def test_something_that_arrived_is_delivered(word: str) -> None:
    report = report_of("SM1", word, None, NOW)
    assert (report.status, report.raw_status) == (DeliveryStatus.DELIVERED, word)


@pytest.mark.parametrize("word", ["", "received", "vanished", "unknown"])
def test_a_word_that_nobody_listed_is_unknown_and_kept(word: str) -> None:
    report = report_of("SM1", word, "", NOW)
    assert (report.status, report.raw_status, report.code) == (DeliveryStatus.UNKNOWN, word, None)


@pytest.mark.parametrize("code", [None, "", "0", 0, "  ", "3" * 17, "3\n3"])
def test_what_is_no_code_is_none(code: object) -> None:
    assert report_of("SM1", "failed", code, NOW).code is None


def test_a_code_that_nobody_listed_is_unmapped() -> None:
    failure = failure_on_delivery("39999")
    assert (failure.kind, failure.code, failure.unmapped) == (FailureKind.OTHER, "39999", True)


def test_every_listed_code_means_something_in_a_report() -> None:
    for code, row in codes().items():
        failure = failure_on_delivery(str(code))
        assert (failure.kind, failure.scope, failure.retryable) == (row.kind, row.scope, False)
