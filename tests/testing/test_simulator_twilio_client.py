"""The official Twilio client takes the simulator for Twilio."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import requests
from tests.testing.plain_client import FROM, SERVICE, TO
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from smsretry.testing.simulator import (
    Body,
    Call,
    Closed,
    Cut,
    Delayed,
    Hang,
    OddSuccess,
    Part,
    RateLimited,
    Redirected,
    Refused,
    Reset,
    ServerError,
    Slow,
    TwilioSimulator,
)

SHORT_TIMEOUT_S = 0.3


@pytest.fixture
def simulator() -> Iterator[TwilioSimulator]:
    with TwilioSimulator() as running:
        yield running


@contextmanager
def client_of(simulator: TwilioSimulator, *, timeout_s: float = 10.0) -> Iterator[Client]:
    http_client = TwilioHttpClient(timeout=timeout_s)
    client = Client(simulator.account_sid, simulator.auth_token, http_client=http_client)
    client.api.base_url = simulator.url
    yield client
    assert http_client.session is not None
    http_client.session.close()


@pytest.fixture
def client(simulator: TwilioSimulator) -> Iterator[Client]:
    with client_of(simulator) as made:
        yield made


@pytest.fixture
def hasty_client(simulator: TwilioSimulator) -> Iterator[Client]:
    with client_of(simulator, timeout_s=SHORT_TIMEOUT_S) as made:
        yield made


def test_a_message_is_created_and_fetched(simulator: TwilioSimulator, client: Client) -> None:
    made = client.messages.create(to=TO, from_=FROM, body="hello", media_url=["https://example.com/1.png"])
    assert made.sid == simulator.texts[0].sid
    assert (made.status, made.num_segments, made.num_media, made.error_code) == ("queued", "1", "1", None)
    assert made.date_created is not None
    assert abs(made.date_created - datetime.now(UTC)) < timedelta(seconds=5)
    fetched = client.messages(str(made.sid)).fetch()
    assert (fetched.sid, fetched.status, fetched.body, fetched.from_) == (made.sid, "sent", "hello", FROM)


def test_an_api_key_sends_for_its_account(simulator: TwilioSimulator) -> None:
    http_client = TwilioHttpClient(timeout=10)
    client = Client(simulator.api_key, simulator.api_secret, simulator.account_sid, http_client=http_client)
    client.api.base_url = simulator.url
    assert client.messages.create(to=TO, messaging_service_sid=SERVICE, body="hello").status == "accepted"
    assert http_client.session is not None
    http_client.session.close()


def test_a_list_is_paged_through_to_its_end(simulator: TwilioSimulator, client: Client) -> None:
    for number in range(7):
        client.messages.create(to=TO, from_=FROM, body=str(number))
    client.messages.create(to="+15551230002", from_=FROM, body="another")
    after = datetime.now(UTC) - timedelta(minutes=5)
    listed = client.messages.list(to=TO, page_size=3, date_sent_after=after)
    assert [each.body for each in listed] == ["6", "5", "4", "3", "2", "1", "0"]
    assert simulator.gets == 3


def test_the_previous_page_is_reached_from_the_next(simulator: TwilioSimulator, client: Client) -> None:
    for number in range(4):
        client.messages.create(to=TO, from_=FROM, body=str(number))
    second = client.messages.page(to=TO, page_size=2).next_page()
    assert second is not None
    assert [each.body for each in second] == ["1", "0"]
    first = second.previous_page()
    assert first is not None
    assert [each.body for each in first] == ["3", "2"]


def test_a_refusal_is_raised_with_its_code_and_the_number(client: Client) -> None:
    with pytest.raises(TwilioRestException, match=r"\+15005550004") as caught:
        client.messages.create(to="+15005550004", from_=FROM, body="hello")
    assert (caught.value.status, caught.value.code) == (400, 21610)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (RateLimited(retry_after_s=3), 429, 20429),
        (ServerError(status=503), 503, 20503),
        (ServerError(status=502, body=Body.HTML), 502, 502),
        (Refused(code=30007), 400, 30007),
        (Redirected(), 307, 307),
    ],
)
def test_an_error_is_raised_after_one_post(
    simulator: TwilioSimulator, client: Client, fault: RateLimited, status: int, code: int
) -> None:
    simulator.script(fault)
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=TO, from_=FROM, body="hello")
    assert (caught.value.status, caught.value.code, simulator.posts) == (status, code, 1)


@pytest.mark.parametrize("fault", [Cut(part=Part.STATUS_LINE), Cut(part=Part.HEADERS), OddSuccess(body=Body.EMPTY)])
def test_an_empty_or_early_cut_answer_looks_like_a_message_without_a_sid(
    simulator: TwilioSimulator, client: Client, fault: Cut | OddSuccess
) -> None:
    simulator.script(fault)
    assert client.messages.create(to=TO, from_=FROM, body="hello").sid is None
    assert (simulator.posts, simulator.text_count) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (OddSuccess(body=Body.HTML), json.JSONDecodeError),
        (OddSuccess(body=Body.LIST), AttributeError),
        (OddSuccess(body=Body.NULL), AttributeError),
        (Reset(taken=True), requests.ConnectionError),
        (Closed(taken=True), requests.ConnectionError),
        (Cut(part=Part.BODY), requests.exceptions.ChunkedEncodingError),
    ],
)
def test_a_lost_answer_raises_what_no_twilio_exception_wraps(
    simulator: TwilioSimulator, client: Client, fault: Reset, error: type[Exception]
) -> None:
    simulator.script(fault)
    with pytest.raises(error) as caught:
        client.messages.create(to=TO, from_=FROM, body="hello")
    assert not isinstance(caught.value, TwilioException)
    assert (simulator.posts, simulator.text_count) == (1, 1)


@pytest.mark.parametrize("fault", [Hang(), Delayed(delay_s=60)])
def test_an_answer_that_does_not_come_in_time_raises_a_timeout(
    simulator: TwilioSimulator, hasty_client: Client, fault: Hang | Delayed
) -> None:
    simulator.script(fault)
    with pytest.raises(requests.ReadTimeout):
        hasty_client.messages.create(to=TO, from_=FROM, body="hello")
    assert (simulator.posts, simulator.text_count) == (1, 1)


def test_a_trickling_answer_outlasts_a_timeout_that_counts_per_read(
    simulator: TwilioSimulator, hasty_client: Client
) -> None:
    simulator.script(Slow(part=Part.BODY, interval_s=0.0005))
    began = time.monotonic()
    assert hasty_client.messages.create(to=TO, from_=FROM, body="hello").sid == simulator.texts[0].sid
    assert time.monotonic() - began > SHORT_TIMEOUT_S


@pytest.mark.parametrize("fault", [RateLimited(), Refused(code=20003, status=403), ServerError()])
def test_a_failed_list_is_raised_with_its_answer(
    simulator: TwilioSimulator, client: Client, fault: RateLimited
) -> None:
    simulator.script(fault, on=Call.LOOK_UP)
    with pytest.raises(TwilioException) as caught:
        client.messages.list(to=TO)
    assert caught.value.args[1].status_code in {429, 403, 500}
