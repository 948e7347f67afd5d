"""Twilio's callbacks: what is signed is read and written, and nothing else changes anything."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.callbacks.signed import FROM, PATH, PUBLIC, TO, TOKEN, form, inbound, json_body, report
from twilio.request_validator import RequestValidator

from smsretry import FailureKind, Message
from smsretry.callbacks.twilio import MOST_BYTES, Inbound, TwilioCallbacks
from smsretry.core.delivery import (
    Delivery,
    DeliveryReport,
    DeliveryRetries,
    DeliveryStatus,
    Mark,
    Received,
    callback_url,
)
from smsretry.core.suppression import Suppression, SuppressionReason
from smsretry.errors import ConfigurationError
from smsretry.store import SQLStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE = f"MG{'a' * 32}"
AGAIN = Message(TO, "Hello.", id="m")


class Log:
    """Keep what it is told, and the list of who must not be texted."""

    def __init__(self, *, again: Message | None = None, away: bool = False) -> None:
        self.reports: list[DeliveryReport] = []
        self.list: dict[tuple[str, str], Suppression] = {}
        self.again, self.away = again, away

    def receive(self, told: DeliveryReport, /) -> Received:
        if self.away:
            raise OSError
        self.reports.append(told)
        return Received(told.message_id, told.delivery, changed=True, again=self.again)

    def suppressed(self, to: str, sender: str, /) -> Suppression | None:
        return self.list.get((to, sender))

    def suppress(self, entry: Suppression, /) -> None:
        self.list[entry.to, entry.sender] = entry

    def lift(self, to: str, sender: str, /) -> bool:
        return self.list.pop((to, sender), None) is not None


class Queue:
    def __init__(self, *, broken: bool = False) -> None:
        self.sent: list[Message] = []
        self.broken = broken

    def send(self, message: Message, /) -> None:
        if self.broken:
            raise OSError
        self.sent.append(message)


def callbacks(log: Any, **options: Any) -> TwilioCallbacks:
    return TwilioCallbacks(TOKEN, PUBLIC, log, clock=lambda: NOW, **options)


def test_a_report_is_read_and_handed_on():
    log = Log()
    path = callback_url(PATH, "order 7/é", Mark(1, 2, 3))
    response = callbacks(log).handle(*form(report("undelivered", code="30003", RawDlrDoneDate="2601010000"), path))
    assert (response.status, response.body) == (204, b"")
    (told,) = log.reports
    assert (told.provider, told.provider_id, told.message_id, told.mark) == (
        "twilio",
        "SM1",
        "order 7/é",
        Mark(1, 2, 3),
    )
    assert (told.status, told.raw_status, told.code) == (DeliveryStatus.UNDELIVERED, "undelivered", "30003")
    assert told.failure is not None
    assert told.failure.kind is FailureKind.UNREACHABLE
    assert (told.received_at, told.raw["RawDlrDoneDate"]) == (NOW, "2601010000")


def test_blank_fields_and_new_ones_are_a_part_of_what_is_signed():
    log = Log()
    assert callbacks(log).handle(*form([*report("sent"), ("Tomorrow", "x y"), ("Empty", "")])).status == 204
    assert log.reports[0].raw["Tomorrow"] == "x y"


def test_a_field_that_comes_twice_is_no_trouble():
    log = Log()
    pairs = [*report("sent"), ("MessageStatus", "failed"), ("MediaUrl", "a"), ("MediaUrl", "b")]
    assert callbacks(log).handle(*form(pairs)).status == 204
    assert log.reports[0].status is DeliveryStatus.SENT


def test_a_json_body_is_checked_by_its_hash():
    log = Log()
    request = json_body({"MessageSid": "SM1", "MessageStatus": "delivered", "Price": None})
    assert callbacks(log).handle(*request).status == 204
    assert log.reports[0].status is DeliveryStatus.DELIVERED
    method, path, headers, body = request
    assert callbacks(log).handle(method, path, headers, body.replace(b"SM1", b"SM2")).status == 403
    assert len(log.reports) == 1


def test_a_number_in_a_json_body_is_read_as_its_digits():
    log = Log()
    told = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": 30003, "Flash": True}
    assert callbacks(log).handle(*json_body(told)).status == 204
    assert log.reports[0].code == "30003"
    assert "Flash" not in log.reports[0].raw


@pytest.mark.parametrize(
    "change",
    [
        lambda method, path, headers, body: (method, path, {}, body),
        lambda method, path, headers, body: (method, path, {"X-Twilio-Signature": ""}, body),
        lambda method, path, headers, body: (method, path, {"X-Twilio-Signature": "é"}, body),
        lambda method, path, headers, body: (method, f"{path}?a=b", headers, body),
        lambda method, path, headers, body: (method, path, headers, body + b"&A=b"),
        lambda method, path, headers, body: (method, path, headers, body.replace(b"sent", b"failed")),
        lambda method, path, headers, body: (method, path, headers, b"\xff" + body),
        lambda method, path, headers, body: (method, path, headers, b""),
        lambda method, path, headers, body: (method, "sms", headers, body),
        lambda method, path, headers, body: (method, f"{path}?bodySHA256=", headers, body),
        lambda method, path, headers, body: (method, f"{path}?bodySHA256=00", headers, body),
        lambda method, path, headers, body: (method, path, headers, b"&".join([body, *600 * [b"a=b"]])),
    ],
)
def test_what_is_not_signed_changes_nothing(change):
    log = Log()
    assert callbacks(log).handle(*change(*form(report("sent")))).status == 403
    assert log.reports == []
    assert log.list == {}


def test_a_request_signed_for_another_host_or_with_another_token_is_refused():
    log = Log()
    assert callbacks(log).handle(*form(report("sent"), token="another")).status == 403
    elsewhere = TwilioCallbacks(TOKEN, "https://elsewhere.example", log)
    assert elsewhere.handle(*form(report("sent"))).status == 403
    both = TwilioCallbacks(["another", TOKEN], f"{PUBLIC}/", log)
    assert both.handle(*form(report("sent"))).status == 204


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_only_a_post_is_read(method):
    _, path, headers, body = form(report("sent"))
    assert callbacks(Log()).handle(method, path, headers, body).status == 405


def test_a_body_that_is_too_long_is_not_read():
    _, path, headers, _ = form(report("sent"))
    assert callbacks(Log()).handle("POST", path, headers, b"a" * (MOST_BYTES + 1)).status == 413


def test_a_store_that_is_away_is_told_and_nothing_is_lost_on_our_side():
    assert callbacks(Log(away=True)).handle(*form(report("sent"))).status == 503


@pytest.mark.parametrize("sid", ["", "a\nb", "S" * 300])
def test_a_signed_request_that_says_nothing_is_no_callback(sid):
    log = Log()
    assert callbacks(log).handle(*form(report("sent", sid=sid))).status == 400
    assert callbacks(log).handle(*form([("Hello", "world")])).status == 204
    assert log.reports == []


def test_what_is_sent_anew_is_queued_and_left_to_recover_where_that_fails():
    queue = Queue()
    assert callbacks(Log(again=AGAIN), queue=queue).handle(*form(report("undelivered"))).status == 204
    assert queue.sent == [AGAIN]
    assert callbacks(Log(again=AGAIN), queue=Queue(broken=True)).handle(*form(report("failed"))).status == 204
    assert callbacks(Log(again=AGAIN)).handle(*form(report("failed"))).status == 204


@pytest.mark.parametrize(
    "word", ["STOP", " stop ", "Unsubscribe", "END", "quit", "STOPALL", "Revoke", "OPTOUT", "cancel"]
)
def test_stop_puts_a_number_on_the_list_and_start_takes_it_off(word):
    log = Log()
    response = callbacks(log).handle(*form(inbound(word)))
    assert (response.status, response.content_type) == (200, "text/xml; charset=utf-8")
    assert b"<Response/>" in response.body
    assert log.list == {(TO, FROM): Suppression(to=TO, sender=FROM)}
    callbacks(log).handle(*form(inbound(word)))
    assert set(log.list) == {(TO, FROM)}
    callbacks(log).handle(*form(inbound("Start")))
    assert log.list == {}


@pytest.mark.parametrize("word", ["please stop", "stop it", "", "hello", "no"])
def test_other_words_change_nothing(word):
    log = Log()
    assert callbacks(log).handle(*form(inbound(word))).status == 200
    assert log.list == {}


def test_twilios_own_word_weighs_more_than_ours():
    log = Log()
    callbacks(log).handle(*form(inbound("arrêt", OptOutType="STOP", MessagingServiceSid="MG1")))
    assert set(log.list) == {(TO, "MG1"), (TO, FROM)}
    callbacks(log).handle(*form(inbound("stop", OptOutType="HELP", MessagingServiceSid="MG1")))
    callbacks(log).handle(*form(inbound("oui", OptOutType="START", MessagingServiceSid="MG1")))
    assert log.list == {}


def test_start_also_ends_what_a_refused_send_from_the_number_had_noted():
    log = Log()
    log.suppress(Suppression(to=TO, sender=FROM, code="21610"))
    callbacks(log).handle(*form(inbound("START", MessagingServiceSid="MG1")))
    assert log.list == {}
    log.suppress(Suppression(to=TO, reason=SuppressionReason.IMPORTED))
    assert callbacks(log).handle(*form(inbound("START", MessagingServiceSid="MG1"))).status == 200
    assert set(log.list) == {(TO, "")}  # what the application put there for every sender, it takes off itself


def test_a_report_of_an_opt_out_puts_the_number_on_the_list():
    log = Log()
    callbacks(log).handle(*form(report("failed", code="21610")))
    assert log.list[TO, FROM].reason is SuppressionReason.OPTED_OUT
    assert log.list[TO, FROM].code == "21610"


def test_an_application_gets_what_comes_in_and_nobody_else_sees_it():
    got: list[Inbound] = []
    callbacks(Log(), on_inbound=got.append).handle(*form(inbound("What time?")))
    (one,) = got
    assert (one.from_number, one.to_number, one.body, one.word) == (TO, FROM, "What time?", "")
    assert TO not in repr(one)
    assert "time" not in repr(one)


def test_an_application_that_fails_is_told_and_what_was_written_stays(caplog):
    def fail(_: Inbound) -> None:
        raise RuntimeError(TO)

    log = Log()
    assert callbacks(log, on_inbound=fail).handle(*form(inbound("STOP"))).status == 200
    assert (TO, FROM) in log.list
    assert "on_inbound raised for SM9 (RuntimeError)." in caplog.text
    assert TO not in caplog.text


def test_what_cannot_be_called_with_what_comes_in_is_refused():
    with pytest.raises(ConfigurationError, match="on_inbound must be a function of an Inbound, got str"):
        callbacks(Log(), on_inbound="print")


class Whole(Log):
    """Be a list that takes several entries at once."""

    def suppress_all(self, entries: Iterable[Suppression], /) -> None:
        entries = list(entries)
        assert len(entries) == 2
        self.list.update({(entry.to, entry.sender): entry for entry in entries})

    def suppress(self, entry: Suppression, /) -> None:
        raise AssertionError(entry)


def test_stop_puts_a_number_on_the_list_for_number_and_service_at_once():
    log = Whole()
    assert callbacks(log).handle(*form([*inbound("STOP"), ("MessagingServiceSid", SERVICE)])).status == 200
    assert log.list.keys() == {(TO, FROM), (TO, SERVICE)}


@pytest.mark.parametrize("number", ["whatsapp:+14155550123", "12345", "messenger:1"])
def test_a_stop_from_what_no_message_goes_to_is_handed_on_and_not_listed(number):
    log, got = Log(), list[Inbound]()
    pairs = [*dict([*inbound("STOP"), ("From", number)]).items()]
    assert callbacks(log, on_inbound=got.append).handle(*form(pairs)).status == 200
    assert [(one.from_number, one.word) for one in got] == [(number, "stop")]
    assert log.list == {}


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "",
        None,
        "ftp://example.com",
        "https://example.com?x=1",
        "https:///sms",
        "https://[::1",
        "https://example.com:99999",
        "https://example.com:sms",
        "https://example.com ",
        "https://exam\nple.com",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="public_url"):
        TwilioCallbacks(TOKEN, url, Log())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com:8443",
        "http://[::1]:8080",
        "https://[2001:db8::1]",
        "https://user:secret@example.com",
        "https://user:secret@example.com:8443",
        "https://exämple.com/é",
        "https://example.com/behind/a/proxy",
    ],
)
def test_a_signature_is_checked_over_every_url_that_twilio_reaches(url):
    log = Log()
    served = TwilioCallbacks(TOKEN, url, log)
    pairs = report("sent")
    signed = RequestValidator(TOKEN).compute_signature(f"{url}{PATH}", dict(pairs))
    _, _, _, body = form(pairs)
    assert served.handle("POST", PATH, {"X-Twilio-Signature": signed}, body).status == 204
    assert served.handle("POST", f"{PATH}/", {"X-Twilio-Signature": signed}, body).status == 403
    assert "secret" not in repr(served)


def test_a_password_in_a_url_is_not_shown_where_it_is_refused():
    with pytest.raises(ConfigurationError, match="public_url") as refused:
        TwilioCallbacks(TOKEN, "ftp://user:secret@example.com", Log())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["", None, [], ["a", ""], [1]])
def test_a_token_that_is_none_is_refused(token):
    with pytest.raises(ConfigurationError, match="auth_token"):
        TwilioCallbacks(token, PUBLIC, Log())


def test_a_store_that_takes_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="store"):
        TwilioCallbacks(TOKEN, PUBLIC, object())  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["30005", "30007", "12345678"])
def test_retries_that_cannot_help_are_refused_when_it_is_set_up(code):
    retries = DeliveryRetries(codes={code})
    with SQLStore("sqlite://", delivery_retries=retries) as store, pytest.raises(ConfigurationError, match=code):
        TwilioCallbacks(TOKEN, PUBLIC, store)


@pytest.mark.parametrize("code", ["30003", "30008", "30001"])
def test_retries_that_may_help_are_taken(code):
    with SQLStore("sqlite://", delivery_retries=DeliveryRetries(codes={code})) as store:
        TwilioCallbacks(TOKEN, PUBLIC, store)


def test_what_it_holds_is_not_shown():
    assert TOKEN not in repr(callbacks(Log()))


def writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


KNOWN = ["MessageSid", "SmsSid", "MessageStatus", "SmsStatus", "ErrorCode", "From", "To", "Body", "OptOutType"]
NAMES = st.one_of(st.text(max_size=20), st.sampled_from(KNOWN)).map(writable)
VALUES = st.one_of(st.text(max_size=40), st.sampled_from(["SM1", "sent", "received", "STOP", TO, FROM, "30003"]))
PAIRS = st.lists(st.tuples(NAMES, VALUES.map(writable)), max_size=12)
IDS = st.text(max_size=40).map(lambda text: f"/sms?smsretry_id={text}")
PATHS = st.one_of(st.text(max_size=60), IDS, st.just(PATH)).map(writable)
HEADERS = st.dictionaries(st.text(max_size=30), st.text(max_size=60), max_size=4)
LOG = Log()
FUZZED = callbacks(LOG, queue=Queue(broken=True))


@given(st.text(max_size=10), PATHS, HEADERS, st.binary(max_size=400))
def test_nothing_that_anybody_sends_raises_or_changes_anything(method, path, headers, body):
    LOG.reports.clear()
    LOG.list.clear()
    assert FUZZED.handle(method, path, headers, body).status in {403, 405}
    assert FUZZED.handle("POST", path, {**headers, "x-twilio-signature": "x"}, body).status == 403
    assert (LOG.reports, LOG.list) == ([], {})


@given(PAIRS, PATHS)
def test_nothing_that_is_signed_raises(pairs, path):
    try:
        request = form(pairs, path)
    except ValueError:  # Twilio's own library cannot read this URL
        return
    assert FUZZED.handle(*request).status in {200, 204, 400, 403}


@given(PAIRS, st.integers(0, 400), st.integers(0, 255))
def test_a_signed_request_of_which_a_byte_was_changed_changes_nothing(pairs, place, byte):
    method, path, headers, body = form([*report("delivered"), *pairs])
    place %= len(body)
    LOG.reports.clear()
    status = FUZZED.handle(method, path, headers, body[:place] + bytes([byte]) + body[place + 1 :]).status
    assert status == 403 or LOG.reports[0].delivery == Delivery(DeliveryStatus.DELIVERED)  # the same in other letters


def refusals(log: Any, caplog: pytest.LogCaptureFixture, *requests: Any, public: str = PUBLIC) -> str:
    """Let requests be refused, and return what was logged of it."""
    refusing = TwilioCallbacks(TOKEN, public, log, clock=lambda: NOW)
    assert {refusing.handle(*request).status for request in requests} == {403}
    return caplog.text


def test_a_refusal_says_for_which_url_the_signature_was_checked(caplog):
    path = callback_url(f"{PATH}/+14155550123", "order 7", None)
    told = refusals(Log(), caplog, form(report("sent"), path), public="https://name:secret@127.0.0.1:5000/shop")
    assert "https://***@127.0.0.1:5000/shop/sms/***23" in told
    assert "public_url" in told
    assert not any(word in told for word in ("4155550123", "order", "secret", TOKEN))


def test_a_refusal_tells_a_missing_signature_and_a_body_that_was_read_before(caplog):
    method, path, headers, body = form(report("sent"))
    told = refusals(Log(), caplog, (method, path, {}, body), (method, path, headers, b""))
    assert "has no X-Twilio-Signature" in told
    assert "its body is empty" in told


def test_refusals_are_logged_once_a_minute(caplog):
    now = [NOW]
    refusing = TwilioCallbacks(TOKEN, PUBLIC, Log(), clock=lambda: now[0])
    counted = []
    for seconds in (0, 1, 59, 60, 61, 121):
        now[0] = NOW + timedelta(seconds=seconds)
        refusing.handle(*form(report("sent"), token="another"))
        counted.append(len(caplog.records))
    assert counted == [1, 1, 1, 2, 2, 3]


@given(PATHS)
@example("/" + "\U00010000" * 200)
@example("/" + "1" * 5000)
def test_no_path_makes_a_refusal_raise_or_break_the_line(path):
    lines = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("smsretry").addHandler(handler)
    try:
        assert callbacks(Log()).handle("POST", path, {"x-twilio-signature": "x"}, b"a=b").status == 403
    finally:
        logging.getLogger("smsretry").removeHandler(handler)
    assert [len(line.splitlines()) for line in lines] == [1]
    assert len(lines[0].partition(": it is not signed")[0]) < 300


def test_what_a_store_lacks_is_told_in_its_own_words(tmp_path, caplog):
    with SQLStore(f"sqlite:///{tmp_path}/none/sms.db") as store:
        assert callbacks(store).handle(*form(report("sent"))).status == 503
    assert "The folder of the database does not exist" in caplog.text


class Awaited:
    async def send(self, message: Message, /) -> None:
        raise AssertionError


@pytest.mark.parametrize("queue", ["high", object(), Awaited()])
def test_a_queue_that_queues_nothing_is_refused_when_it_is_set_up(queue):
    with pytest.raises(ConfigurationError, match="queue must be a ready task"):
        callbacks(Log(), queue=queue)
