"""The simulator speaks the Messages API as Twilio does, and counts at its own socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import warnings
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from tests.testing.callback_app import application
from tests.testing.plain_client import (
    FROM,
    SERVICE,
    TO,
    ask,
    basic,
    connected,
    create,
    create_bytes,
    eventually,
    list_messages,
    look_up,
    messages_path,
    refuses,
)

from smsretry.testing.simulator import CallbackPlan, TwilioSimulator
from smsretry.testing.simulator.wire import segments


def test_a_create_is_answered_with_the_whole_message() -> None:
    with TwilioSimulator() as simulator:
        got = create(simulator, Body="Grüße")
        message = got.json
        assert got.status == 201
        assert re.fullmatch(r"SM[0-9a-f]{32}", message["sid"])
        assert re.fullmatch(r"RQ[0-9a-f]{32}", got.headers["twilio-request-id"])
        assert abs(parsedate_to_datetime(message["date_created"]) - datetime.now(UTC)) < timedelta(seconds=5)
        uri = f"/2010-04-01/Accounts/{simulator.account_sid}/Messages/{message['sid']}"
        expected = {
            "account_sid": simulator.account_sid,
            "api_version": "2010-04-01",
            "body": "Grüße",
            "date_sent": None,
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": FROM,
            "messaging_service_sid": None,
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "status": "queued",
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": TO,
            "uri": f"{uri}.json",
        }
        assert {name: message[name] for name in expected} == expected


def test_a_messaging_service_has_chosen_no_sender_while_the_message_is_accepted() -> None:
    with TwilioSimulator(sent_after_s=60) as simulator:
        message = create(simulator, From=None, MessagingServiceSid=SERVICE).json
        assert message["status"] == "accepted"
        assert message["messaging_service_sid"] == SERVICE
        assert message["from"] is None
        assert message["num_segments"] == "0"
        assert look_up(simulator, message["sid"]).json == message


def test_a_message_that_was_sent_shows_sender_segments_date_and_price() -> None:
    with TwilioSimulator() as simulator:
        sid = create(simulator, From=None, MessagingServiceSid=SERVICE, Body="x" * 161).json["sid"]
        message = look_up(simulator, sid).json
        assert (message["status"], message["from"], message["num_segments"]) == ("sent", FROM, "2")
        assert message["date_sent"] == message["date_created"]
        assert message["price"] == "-0.01580"


def test_what_arrived_is_kept_with_all_its_fields() -> None:
    with TwilioSimulator() as simulator:
        media = ["https://example.com/1.png", "https://example.com/2.png"]
        sid = create(simulator, Body="look", MediaUrl=media, StatusCallback="https://example.com/?id=7").json["sid"]
        create(simulator, To="+15551230002", Body="look")
        create(simulator, To="+15551230002", Body="look")
        [text] = simulator.texts_to(TO)
        assert (text.sid, text.to, text.body, text.sender, text.media_urls) == (sid, TO, "look", FROM, tuple(media))
        assert text.params["StatusCallback"] == ["https://example.com/?id=7"]
        assert simulator.count_by_message() == {(TO, "look"): 1, ("+15551230002", "look"): 2}
        assert (simulator.text_count, simulator.texts_doubled, simulator.posts) == (3, 1, 3)


def test_an_api_key_opens_the_account_too() -> None:
    with TwilioSimulator() as simulator:
        key = basic(simulator.api_key, simulator.api_secret)
        assert ask(simulator, "GET", messages_path(simulator), authorization=key).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_wrong_credentials_are_refused(method: str) -> None:
    with TwilioSimulator() as simulator:
        wrong = basic(simulator.account_sid, "wrong")
        got = ask(simulator, method, messages_path(simulator), authorization=wrong)
        assert (got.status, got.json["code"]) == (401, 20003)
        assert got.json["more_info"] == "https://www.twilio.com/docs/errors/20003"
        assert simulator.texts == []


@pytest.mark.parametrize(
    "path",
    ["/", "/2010-04-01/Accounts/AC0/Messages.json", "/2010-04-01/Accounts/{sid}/Calls.json", "/v1/Messages.json"],
)
def test_other_paths_are_not_found(path: str) -> None:
    with TwilioSimulator() as simulator:
        got = ask(simulator, "GET", path.format(sid=simulator.account_sid))
        assert (got.status, got.json["code"], got.json["status"]) == (404, 20404, 404)


def test_other_methods_are_not_allowed() -> None:
    with TwilioSimulator() as simulator:
        got = ask(simulator, "DELETE", messages_path(simulator).replace(".json", "/SM1.json"))
        assert (got.status, got.json["code"]) == (405, 20004)


@pytest.mark.parametrize(
    ("fields", "code", "status"),
    [
        ({"To": None}, 21604, 400),
        ({"Body": None}, 21602, 400),
        ({"Body": ""}, 21602, 400),
        ({"From": None}, 21603, 400),
        ({"To": "5551230001"}, 21211, 400),
        ({"To": "+0123"}, 21211, 400),
        ({"From": "???"}, 21212, 400),
        ({"From": None, "MessagingServiceSid": "MG123"}, 21701, 404),
        ({"Body": "x" * 1601}, 21617, 400),
        ({"MediaUrl": ["https://example.com/"] * 11}, 21623, 400),
        ({"ValidityPeriod": "0"}, 21624, 400),
        ({"ValidityPeriod": "36001"}, 21624, 400),
        ({"ValidityPeriod": "soon"}, 21624, 400),
        ({"To": "+15005550001"}, 21211, 400),
        ({"To": "+15005550002"}, 21612, 400),
        ({"To": "+15005550003"}, 21408, 400),
        ({"To": "+15005550004"}, 21610, 400),
        ({"To": "+15005550009"}, 21614, 400),
        ({"From": "+15005550001"}, 21212, 400),
        ({"From": "+15005550007"}, 21606, 400),
        ({"From": "+15005550008"}, 21611, 400),
    ],
)
def test_what_twilio_refuses_is_refused_with_its_code(fields: dict[str, object], code: int, status: int) -> None:
    with TwilioSimulator() as simulator:
        got = create(simulator, **fields)
        assert (got.status, got.json["code"], got.json["status"]) == (status, code, status)
        assert (simulator.posts, simulator.texts) == (1, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"Body": "x" * 1600},
        {"Body": None, "MediaUrl": "https://example.com/1.png"},
        {"ValidityPeriod": "1"},
        {"ValidityPeriod": "36000"},
        {"From": "ACME"},
        {"From": "12345"},
        {"From": "+15005550006"},
    ],
)
def test_what_twilio_takes_is_taken(fields: dict[str, object]) -> None:
    with TwilioSimulator() as simulator:
        assert create(simulator, **fields).status == 201
        assert simulator.text_count == 1


def test_an_error_names_the_number_as_twilio_does() -> None:
    with TwilioSimulator() as simulator:
        message = create(simulator, To="+15005550001").json["message"]
        assert message == "The 'To' number +15005550001 is not a valid phone number."


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("", 1),
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("x" * 306, 2),
        ("x" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("x" * 152 + "€" + "x" * 151, 2),
        ("x" * 152 + "€" + "x" * 152, 3),
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 134, 2),
        ("я" * 135, 3),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_segments_are_counted_by_alphabet(body: str, count: int) -> None:
    assert segments(body) == count


def test_a_list_is_filtered_by_number_and_shows_the_newest_first() -> None:
    with TwilioSimulator() as simulator:
        first = create(simulator, Body="one").json["sid"]
        create(simulator, To="+15551230002")
        second = create(simulator, Body="two", From="ACME").json["sid"]
        assert [each["sid"] for each in list_messages(simulator, To=TO).json["messages"]] == [second, first]
        assert [each["sid"] for each in list_messages(simulator, To=TO, From=FROM).json["messages"]] == [first]
        assert len(list_messages(simulator).json["messages"]) == 3
        assert list_messages(simulator, To="+15551230003").json["messages"] == []
        assert simulator.gets == 4


def test_a_list_comes_in_pages_that_do_not_shift_when_a_text_arrives_between_them() -> None:
    with TwilioSimulator() as simulator:
        sids = [create(simulator, Body=str(number)).json["sid"] for number in range(5)]
        page = list_messages(simulator, To=TO, PageSize=2).json
        seen = [each["sid"] for each in page["messages"]]
        create(simulator, Body="between")
        while page["next_page_uri"]:
            page = ask(simulator, "GET", page["next_page_uri"]).json
            seen += [each["sid"] for each in page["messages"]]
        assert seen == sids[::-1]
        assert (page["page"], page["page_size"], page["start"]) == (2, 2, 5)
        assert page["previous_page_uri"].endswith("PageSize=2&Page=1")


def test_a_page_holds_a_thousand_messages_at_most() -> None:
    with TwilioSimulator() as simulator:
        assert list_messages(simulator, PageSize=5000).json["page_size"] == 1000
        assert list_messages(simulator).json["page_size"] == 50


def test_a_list_is_filtered_by_the_date_of_sending_with_both_ends_included() -> None:
    with TwilioSimulator() as simulator:
        sid = create(simulator).json["sid"]
        at = simulator.texts[0].at
        second = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        later = (at + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for filters in (
            {"DateSent": f"{at:%Y-%m-%d}"},
            {"DateSent": second},
            {"DateSent>": second},
            {"DateSent<": second},
            {"DateSent>": f"{at:%Y-%m-%d}", "DateSent<": f"{at:%Y-%m-%d}"},
        ):
            assert [each["sid"] for each in list_messages(simulator, **filters).json["messages"]] == [sid], filters
        for filters in ({"DateSent>": later}, {"DateSent<": "2020-01-01"}, {"DateSent": "2020-01-01"}):
            assert list_messages(simulator, **filters).json["messages"] == [], filters


def test_a_message_not_yet_sent_is_found_by_number_but_not_by_date() -> None:
    with TwilioSimulator(sent_after_s=60) as simulator:
        create(simulator)
        assert len(list_messages(simulator, To=TO).json["messages"]) == 1
        assert list_messages(simulator, To=TO, **{"DateSent>": "2020-01-01"}).json["messages"] == []


@pytest.mark.parametrize("query", [{"PageSize": "many"}, {"DateSent": "yesterday"}])
def test_a_query_that_cannot_be_read_is_refused(query: dict[str, str]) -> None:
    with TwilioSimulator() as simulator:
        got = list_messages(simulator, **query)
        assert (got.status, got.json["code"]) == (400, 20001)


def test_an_unknown_message_is_not_found() -> None:
    with TwilioSimulator() as simulator:
        got = look_up(simulator, "SM" + "0" * 32)
        assert (got.status, got.json["code"]) == (404, 20404)


def test_look_ups_see_a_text_only_after_the_lag() -> None:
    with TwilioSimulator(list_lag_s=60) as simulator:
        sid = create(simulator).json["sid"]
        assert list_messages(simulator, To=TO).json["messages"] == []
        assert look_up(simulator, sid).status == 404
        assert simulator.text_count == 1
    with TwilioSimulator(list_lag_s=0.1) as simulator:
        sid = create(simulator).json["sid"]
        assert eventually(lambda: look_up(simulator, sid).status == 200)
        assert len(list_messages(simulator, To=TO).json["messages"]) == 1


def test_a_trial_account_puts_its_words_before_the_text() -> None:
    with TwilioSimulator(body_prefix="Sent from a trial account - ") as simulator:
        message = create(simulator, Body="hello").json
        assert message["body"] == "Sent from a trial account - hello"
        assert simulator.texts[0].body == "hello"


def test_test_credentials_create_but_do_not_look_up() -> None:
    with TwilioSimulator(test_credentials=True) as simulator:
        created = create(simulator)
        assert created.status == 201
        for got in (look_up(simulator, created.json["sid"]), list_messages(simulator)):
            assert (got.status, got.json["code"]) == (403, 20008)


def test_latency_comes_before_every_answer() -> None:
    with TwilioSimulator(latency_s=0.1) as simulator:
        began = time.monotonic()
        create(simulator)
        list_messages(simulator)
        assert time.monotonic() - began >= 0.2


def test_one_connection_carries_many_requests_even_when_they_come_at_once() -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        connection.sendall(b"".join(create_bytes(simulator, body=str(number)) for number in range(300)))
        answer = b""
        while answer.count(b"HTTP/1.1 201") < 300:
            answer += connection.recv(65_536)
        assert [text.body for text in simulator.texts] == [str(number) for number in range(300)]


def test_a_post_counts_from_its_first_line_on_even_if_its_body_never_comes() -> None:
    with TwilioSimulator() as simulator:
        whole = create_bytes(simulator)
        with closing(connected(simulator)) as connection:
            connection.sendall(whole[: whole.index(b"\r\n") + 2])
            assert simulator.wait_for(lambda: simulator.posts == 1)
            connection.sendall(whole[whole.index(b"\r\n") + 2 : -3])
        assert (simulator.posts, simulator.texts, simulator.requests[0].complete) == (1, [], False)


def test_a_request_that_comes_byte_by_byte_is_read() -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in create_bytes(simulator):
            connection.sendall(bytes([byte]))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 201 Created\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"x" * 70_000,
        b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000,
    ],
)
def test_what_is_no_request_is_answered_400_and_the_connection_is_closed(sent: bytes) -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        connection.sendall(sent)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_a_client_that_wants_the_connection_closed_gets_it_closed(line: bytes) -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        connection.sendall(line)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_requests_are_recorded_with_form_query_and_headers_but_without_credentials() -> None:
    with TwilioSimulator() as simulator:
        create(simulator, MediaUrl=["https://example.com/1", "https://example.com/2"])
        list_messages(simulator, To=TO)
        post, get = simulator.requests
        assert (post.method, post.path, get.method, get.query) == (
            "POST",
            messages_path(simulator),
            "GET",
            {"To": [TO]},
        )
        assert post.form["MediaUrl"] == ["https://example.com/1", "https://example.com/2"]
        assert post.headers["content-type"] == "application/x-www-form-urlencoded"
        assert "authorization" not in post.headers
        assert 0 <= post.at_s <= get.at_s


def test_many_threads_create_at_once_and_every_text_is_counted() -> None:
    with TwilioSimulator() as simulator:

        def send(thread: int) -> None:
            for number in range(20):
                create(simulator, Body=f"{thread}-{number}")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (simulator.posts, simulator.text_count, simulator.texts_doubled) == (160, 160, 0)


def test_down_refuses_connections_and_up_takes_them_on_the_same_port() -> None:
    with TwilioSimulator() as simulator:
        url = simulator.url
        with closing(connected(simulator)) as waiting:
            simulator.down()
            with pytest.raises(ConnectionResetError):
                waiting.recv(1)
        with pytest.raises(ConnectionRefusedError):
            create(simulator)
        simulator.down()
        simulator.up()
        simulator.up()
        assert create(simulator).status == 201
        assert simulator.url == url


def test_down_refuses_connections_even_while_a_forked_process_lives() -> None:
    with TwilioSimulator() as simulator:
        with warnings.catch_warnings(action="ignore"):  # of forking with threads, which is the point here
            forked = os.fork()
        if forked == 0:
            signal.pause()
            os._exit(0)
        try:
            simulator.down()
            assert refuses(simulator)
        finally:
            os.kill(forked, signal.SIGKILL)
            os.waitpid(forked, 0)


def test_an_outage_ends_by_itself() -> None:
    with TwilioSimulator() as simulator:
        simulator.outage(0.2)
        assert eventually(lambda: refuses(simulator))
        assert eventually(lambda: not refuses(simulator))
        assert create(simulator).status == 201


def test_closing_in_the_middle_of_an_outage_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with TwilioSimulator() as simulator:
        simulator.outage(60)
        assert eventually(lambda: refuses(simulator))
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("duration_s", [-1, float("inf")])
def test_an_outage_without_an_end_is_refused(duration_s: float) -> None:
    with TwilioSimulator() as simulator, pytest.raises(ValueError, match=r"Use down\(\) and up\(\)"):
        simulator.outage(duration_s)


def test_reset_forgets_what_was_counted_and_scripted() -> None:
    with TwilioSimulator() as simulator:
        create(simulator)
        simulator.reset()
        assert (simulator.posts, simulator.gets, simulator.texts, simulator.requests) == (0, 0, [], [])
        create(simulator)
        assert simulator.posts == 1


def test_closing_leaves_no_thread_and_no_socket_and_the_counts_stay() -> None:
    before = set(threading.enumerate())
    simulator = TwilioSimulator()
    with simulator, closing(connected(simulator)):
        create(simulator)
    assert set(threading.enumerate()) == before
    assert (simulator.posts, simulator.text_count) == (1, 1)
    simulator.close()
    with pytest.raises(ConnectionRefusedError):
        connected(simulator)


def test_constructing_one_takes_neither_port_nor_thread() -> None:
    before = set(threading.enumerate())
    simulator = TwilioSimulator()
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="Use it as a context manager"):
        _ = simulator.url
    with pytest.raises(RuntimeError, match="Use it as a context manager"):
        simulator.down()


def test_a_simulator_that_runs_is_not_started_twice() -> None:
    with TwilioSimulator() as simulator, pytest.raises(RuntimeError, match="runs already"):
        simulator.start()


def test_a_port_that_is_taken_is_refused_and_leaves_nothing_behind() -> None:
    with TwilioSimulator() as simulator:
        port = urlsplit(simulator.url).port
        assert port is not None
        before = set(threading.enumerate())
        with pytest.raises(OSError, match="in use"):
            TwilioSimulator(port=port).start()
        assert set(threading.enumerate()) == before


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.com", ""])
def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host must be a loopback address"):
        TwilioSimulator(host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_every_loopback_address_is_served(host: str) -> None:
    try:
        with TwilioSimulator(host=host) as simulator:
            assert create(simulator).status == 201
    except OSError as error:
        pytest.skip(f"{host} cannot be bound here: {error}")


def test_no_repr_shows_a_number_a_text_or_a_secret() -> None:
    with application() as app, TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        create(simulator, Body="a secret sentence", StatusCallback=app.url)
        list_messages(simulator, To=TO)
        assert simulator.drain()
        answer = simulator.receive(TO, FROM, "another secret sentence", url=app.url)
        shown = repr((simulator, simulator.texts, simulator.requests, simulator.callbacks, answer, simulator.__dict__))
    for hidden in (TO, TO[1:], FROM[1:], "secret sentence", simulator.auth_token, simulator.api_secret):
        assert hidden not in shown
    assert "to='***01'" in shown
    assert "body=<17 characters>" in shown
