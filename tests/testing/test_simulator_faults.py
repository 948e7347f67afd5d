"""Every fault of the simulator does on the wire what its name says, and takes the text or does not."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead, RemoteDisconnected
from typing import Any

import pytest
from tests.testing.plain_client import (
    TO,
    bytes_of_create,
    connected,
    create,
    create_bytes,
    list_messages,
    look_up,
    messages_path,
)

from smsretry.testing.simulator import (
    FAULTS,
    Body,
    Call,
    Closed,
    Cut,
    Delayed,
    Fault,
    Hang,
    HintForm,
    Normal,
    OddSuccess,
    Part,
    RateLimited,
    Redirected,
    Refused,
    Reset,
    ServerError,
    Slow,
    TwilioSimulator,
    fault_from_dict,
    fault_named,
    fault_to_dict,
)


def has_met_a_fault(simulator: TwilioSimulator) -> bool:
    return any(request.fault for request in simulator.requests)


def test_a_rate_limit_answers_429_and_takes_nothing() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(RateLimited())
        got = create(simulator)
        assert (got.status, got.json["code"], got.json["message"]) == (429, 20429, "Too Many Requests")
        assert "retry-after" not in got.headers
        assert (simulator.posts, simulator.texts) == (1, [])


def test_a_rate_limit_may_say_when_to_come_back_in_seconds_or_as_a_date() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(
            RateLimited(retry_after_s=7), RateLimited(retry_after_s=60, hint_form=HintForm.HTTP_DATE), Normal()
        )
        assert create(simulator).headers["retry-after"] == "7"
        said = create(simulator).headers["retry-after"]
        assert said.endswith(" GMT")
        assert 55 < (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds() <= 60
        assert create(simulator).status == 201


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("taken", [False, True])
def test_a_server_error_has_twilios_body_or_a_page_and_may_have_taken_the_text(status: int, taken: bool) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(
            ServerError(status=status, taken=taken),
            ServerError(status=status, body=Body.HTML, taken=taken),
            ServerError(status=status, code=30500, retry_after_s=3, taken=taken),
        )
        own, page, other = (create(simulator) for _ in range(3))
        assert (own.status, own.json["code"], own.json["status"]) == (status, 20000 + status, status)
        assert (page.status, page.headers["content-type"]) == (status, "text/html")
        assert page.text.startswith("<!doctype html>")
        assert (other.json["code"], other.headers["retry-after"]) == (30500, "3")
        assert simulator.text_count == (3 if taken else 0)


@pytest.mark.parametrize("code", [21211, 21610, 21611, 30007, 99999])
def test_any_code_can_refuse_and_the_message_names_the_number(code: int) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Refused(code=code))
        got = create(simulator)
        assert (got.status, got.json["code"], simulator.texts) == (400, code, [])
        assert got.json["more_info"].endswith(f"/{code}")
        assert (TO in got.json["message"]) == (code != 21611)


def test_a_suspended_account_and_own_words_are_refusals_too() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(fault_named("suspended"), Refused(code=1, status=422, message="no"))
        suspended, own = create(simulator), create(simulator)
        assert (suspended.status, suspended.json["code"]) == (403, 20403)
        assert (own.status, own.json["message"]) == (422, "no")


def test_a_redirect_points_at_its_own_address() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Redirected(status=308))
        got = create(simulator)
        assert (got.status, got.headers["location"], got.text) == (308, messages_path(simulator), "")
        assert simulator.texts == []


@pytest.mark.parametrize(
    ("body", "text"), [(Body.EMPTY, ""), (Body.LIST, "[]"), (Body.NULL, "null"), (Body.HTML, "<!doctype html>")]
)
def test_a_success_may_hold_no_message_though_the_text_was_taken(body: Body, text: str) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(OddSuccess(body=body))
        got = create(simulator)
        assert got.status == 201
        assert got.text.startswith(text)
        assert simulator.text_count == 1


def test_a_portal_answers_200_and_takes_nothing() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(OddSuccess(body=Body.HTML, status=200, taken=False))
        assert create(simulator).status == 200
        assert simulator.texts == []


def test_a_delayed_answer_comes_late_and_its_text_at_once() -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        simulator.script(Delayed(delay_s=0.2))
        began = time.monotonic()
        connection.sendall(create_bytes(simulator))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 201 ")
        assert time.monotonic() - began >= 0.2
        assert simulator.texts[0].at_s - simulator.requests[0].at_s < 0.2


@pytest.mark.parametrize("part", list(Part))
def test_a_slow_answer_is_whole_in_the_end(part: Part) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Slow(part=part, interval_s=0))
        head, _, body = bytes_of_create(simulator).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 Created\r\n")
        assert json.loads(body)["sid"] == simulator.texts[0].sid


def first_bytes(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += connection.recv(65_536)
    return received


@pytest.mark.parametrize("part", list(Part))
def test_a_slow_answer_comes_a_byte_at_a_time_from_its_part_on(part: Part) -> None:
    interval_s = 0.02
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        connection.sendall(create_bytes(simulator))
        usual = first_bytes(connection, 1)
        at_once = {Part.STATUS_LINE: 0, Part.HEADERS: usual.index(b"\r\n") + 2, Part.BODY: usual.index(b"{")}[part]
        simulator.script(Slow(part=part, interval_s=interval_s))
        began = time.monotonic()
        connection.sendall(create_bytes(simulator))
        received = first_bytes(connection, at_once + 5)
        assert time.monotonic() - began >= interval_s * (len(received) - at_once)
        assert len(received) < len(usual)


def test_an_answer_cut_in_the_status_line_ends_after_the_code() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Cut(part=Part.STATUS_LINE))
        assert bytes_of_create(simulator) == b"HTTP/1.1 201"
        assert simulator.text_count == 1


def test_an_answer_cut_in_the_headers_ends_within_the_first_one() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Cut(part=Part.HEADERS))
        assert bytes_of_create(simulator) == b"HTTP/1.1 201 Created\r\nContent-"
        assert simulator.text_count == 1


def test_an_answer_cut_in_the_body_is_shorter_than_it_says() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Cut(part=Part.BODY))
        with pytest.raises(IncompleteRead):
            create(simulator)
        assert simulator.text_count == 1


@pytest.mark.parametrize(
    ("fault_type", "error"), [(Reset, ConnectionResetError), (Closed, RemoteDisconnected)], ids=["reset", "closed"]
)
@pytest.mark.parametrize("taken", [False, True])
def test_an_answer_may_be_lost_before_or_after_the_text_is_taken(
    fault_type: Callable[..., Fault], error: type[Exception], taken: bool
) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(fault_type(taken=taken))
        with pytest.raises(error):
            create(simulator)
        assert (simulator.posts, simulator.text_count) == (1, int(taken))


@pytest.mark.parametrize("fault", [Reset(taken=True, taken_after_s=0.4), ServerError(taken=True, taken_after_s=0.4)])
def test_a_text_may_be_taken_after_its_request_has_died(fault: Fault) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(fault)
        with closing(connected(simulator)) as connection:
            connection.sendall(create_bytes(simulator))
            assert simulator.wait_for(lambda: has_met_a_fault(simulator))
            assert simulator.texts == []
        assert list_messages(simulator, To=TO).json["messages"] == []
        assert simulator.wait_for(lambda: simulator.text_count == 1)
        assert len(list_messages(simulator, To=TO).json["messages"]) == 1


def test_a_text_is_taken_although_its_sender_died_while_it_waited_for_the_answer() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Delayed(delay_s=30, taken_after_s=0.2))
        with closing(connected(simulator)) as connection:
            connection.sendall(create_bytes(simulator))
            assert simulator.wait_for(lambda: has_met_a_fault(simulator))
            assert simulator.texts == []
        assert simulator.wait_for(lambda: simulator.text_count == 1)
        assert simulator.texts[0].at_s - simulator.requests[0].at_s >= 0.2


def test_a_delayed_answer_names_the_text_that_was_taken_before_it() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Delayed(delay_s=0.2, taken_after_s=0.1))
        got = create(simulator)
        assert [text.sid for text in simulator.texts] == [got.json["sid"]]
        assert look_up(simulator, got.json["sid"]).status == 200


def test_a_text_due_after_the_end_is_not_taken() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(ServerError(taken=True, taken_after_s=0.05))
        create(simulator)
    time.sleep(0.1)
    assert simulator.texts == []


@pytest.mark.parametrize("taken", [False, True])
def test_a_request_may_never_be_answered(taken: bool) -> None:
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        simulator.script(Hang(taken=taken))
        connection.sendall(create_bytes(simulator))
        assert simulator.wait_for(lambda: has_met_a_fault(simulator))
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert simulator.text_count == int(taken)


def test_scripted_faults_are_played_in_order_and_then_service_is_normal() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(RateLimited(), ServerError(status=503))
        simulator.script(Normal(), Refused(code=21610))
        assert simulator.unplayed == 4
        assert [create(simulator).status for _ in range(5)] == [429, 503, 201, 400, 201]
        assert simulator.unplayed == 0


def test_a_script_for_one_number_waits_for_it_and_goes_first() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(RateLimited(), to=TO)
        simulator.script(ServerError())
        assert create(simulator, To="+15551230002").status == 500
        assert create(simulator, To="+15551230002").status == 201
        assert [create(simulator).status for _ in range(2)] == [429, 201]


def test_a_standing_fault_lasts_until_it_is_lifted() -> None:
    with TwilioSimulator() as simulator:
        simulator.always(ServerError(status=503))
        simulator.always(Refused(code=21610), to=TO)
        simulator.script(Normal())
        assert [create(simulator, To="+15551230002").status for _ in range(3)] == [201, 503, 503]
        assert create(simulator).json["code"] == 21610
        simulator.always(None)
        assert create(simulator, To="+15551230002").status == 201
        assert create(simulator).json["code"] == 21610
        simulator.always(None, to=TO)
        assert create(simulator).status == 201


def test_look_ups_have_faults_of_their_own() -> None:
    with TwilioSimulator() as simulator:
        sid = create(simulator).json["sid"]
        simulator.script(Refused(code=20003, status=403), RateLimited(), ServerError(), on=Call.LOOK_UP)
        assert create(simulator).status == 201
        assert list_messages(simulator, To=TO).status == 403
        assert look_up(simulator, sid).status == 429
        assert list_messages(simulator).status == 500
        assert look_up(simulator, sid).status == 200
        simulator.always(ServerError(status=503), on=Call.LOOK_UP, to=TO)
        assert [list_messages(simulator, To=TO).status, list_messages(simulator).status] == [503, 200]
        assert simulator.text_count == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reset(taken=False), ConnectionResetError),
        (Closed(taken=True), RemoteDisconnected),
        (Cut(part=Part.BODY), IncompleteRead),
    ],
)
def test_the_answer_of_a_look_up_may_be_lost_and_nothing_is_sent_by_it(fault: Fault, error: type[Exception]) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(fault, on=Call.LOOK_UP)
        with pytest.raises(error):
            list_messages(simulator, To=TO)
        assert (simulator.gets, simulator.posts, simulator.texts) == (1, 0, [])


def test_a_create_that_twilio_would_refuse_is_refused_under_a_fault_that_takes_texts() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Reset(taken=True))
        assert create(simulator, To="+15005550001").json["code"] == 21211
        assert simulator.texts == []


def test_wrong_credentials_use_up_no_fault() -> None:
    with TwilioSimulator() as simulator, TwilioSimulator(auth_token="another") as other:
        other.script(RateLimited())
        path = messages_path(other)
        with closing(connected(other)) as connection:
            connection.sendall(create_bytes(simulator))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
        assert (other.unplayed, path) == (1, messages_path(simulator))


def test_a_request_is_recorded_with_the_fault_that_it_met() -> None:
    with TwilioSimulator() as simulator:
        simulator.script(RateLimited(), Normal())
        create(simulator)
        create(simulator)
        assert [request.fault for request in simulator.requests] == [RateLimited(), None]


def test_seeded_rates_choose_the_same_faults_whatever_the_order_of_arrival() -> None:
    rates: dict[str | Fault, float] = {"rate_limited": 0.3, ServerError(status=503): 0.2}
    numbers = [f"+1555123{number:04d}" for number in range(40)]

    def statuses(order: list[str], seed: int) -> dict[str, list[int]]:
        with TwilioSimulator(seed=seed, rates=rates) as simulator:
            seen: dict[str, list[int]] = {number: [] for number in numbers}
            for number in order:
                seen[number].append(create(simulator, To=number).status)
            return seen

    forwards = statuses(numbers * 3, seed=1)
    assert forwards == statuses(sorted(numbers * 3, reverse=True), seed=1)
    assert forwards != statuses(numbers * 3, seed=2)
    met = [status for each in forwards.values() for status in each]
    assert 0.15 < met.count(429) / len(met) < 0.45
    assert 0.08 < met.count(503) / len(met) < 0.35
    assert any(len(set(each)) > 1 for each in forwards.values())


def test_a_script_may_name_its_faults() -> None:
    with TwilioSimulator() as simulator:
        simulator.script("rate_limited")
        assert create(simulator).status == 429
        simulator.always("rate_limited")
        assert create(simulator).status == 429


@pytest.mark.parametrize("fault", ["nonsense", 7, RateLimited])
def test_what_is_no_fault_is_refused_when_it_is_given(fault: Any) -> None:
    simulator = TwilioSimulator()
    with pytest.raises(ValueError, match="fault"):
        simulator.script(fault)
    with pytest.raises(ValueError, match="fault"):
        simulator.always(fault)


@pytest.mark.parametrize("name", ["latency_s", "list_lag_s", "sent_after_s"])
@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf")])
def test_a_time_that_makes_no_sense_is_refused(name: str, time_s: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 seconds or more"):
        TwilioSimulator(**{name: time_s})


def test_a_script_goes_before_the_rates() -> None:
    with TwilioSimulator(rates={"suspended": 1.0}) as simulator:
        simulator.script(Normal())
        assert [create(simulator).status for _ in range(2)] == [201, 403]


def test_look_ups_have_rates_of_their_own() -> None:
    with TwilioSimulator(look_up_rates={"server_error": 1.0}) as simulator:
        assert (create(simulator).status, list_messages(simulator).status) == (201, 500)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"nonsense": 0.1}, "no fault named 'nonsense'"),
        ({"hang": 1.5}, "a share from 0 to 1"),
        ({"hang": -0.1}, "a share from 0 to 1"),
        ({"hang": 0.6, "delayed": 0.6}, "add up to 1 at most"),
    ],
)
def test_rates_that_make_no_sense_are_refused(rates: dict[str | Fault, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TwilioSimulator(rates=rates)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Refused(code=1, status=500), "status must be 4xx"),
        (lambda: ServerError(status=400), "status must be 5xx"),
        (lambda: Redirected(status=200), "status must be 3xx"),
        (lambda: OddSuccess(status=500), "status must be 2xx"),
        (lambda: OddSuccess(body=Body.TWILIO), "Use Normal"),
        (lambda: Delayed(delay_s=-1), "delay_s must be 0 or more"),
        (lambda: Delayed(delay_s=1, taken_after_s=2), "taken_after_s must be delay_s"),
        (lambda: Slow(interval_s=float("inf")), "interval_s must be 0 or more"),
        (lambda: RateLimited(retry_after_s=-1), "retry_after_s must be 0 or more"),
        (lambda: Reset(taken=False, taken_after_s=1), "Set taken=True"),
    ],
)
def test_a_fault_that_cannot_be_is_not_built(build: Callable[[], Fault], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


@pytest.mark.parametrize(
    "fault",
    [Normal(), Delayed(delay_s=2, taken_after_s=1), *FAULTS.values()],
    ids=["normal", "delayed_and_taken_late", *FAULTS],
)
def test_a_fault_survives_json_and_can_be_a_key(fault: Fault) -> None:
    assert fault_from_dict(json.loads(json.dumps(fault_to_dict(fault)))) == fault
    assert {fault: 1}[fault] == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("nonsense", "no fault named"),
        ({"kind": "nonsense"}, "kind must be one of"),
        ({"kind": "delayed"}, "lacks a field"),
        ({"kind": "delayed", "delay": 1}, "has no field 'delay'"),
        ({"kind": "normal", "x": 1}, "It has: none"),
        ({"kind": "slow", "part": "tail"}, "'tail' is not a valid Part"),
    ],
)
def test_a_fault_that_is_written_wrongly_is_refused(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fault_from_dict(data)


QUICK: dict[str, Fault] = {
    "delayed": Delayed(delay_s=0.05),
    "slow_headers": Slow(part=Part.HEADERS, interval_s=0),
    "slow_body": Slow(interval_s=0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_named_fault_makes_one_post_and_takes_the_text_as_it_says(name: str) -> None:
    fault = QUICK.get(name, FAULTS[name])
    with TwilioSimulator() as simulator, closing(connected(simulator)) as connection:
        simulator.script(fault)
        connection.sendall(create_bytes(simulator))
        if isinstance(fault, Hang):
            assert simulator.wait_for(lambda: has_met_a_fault(simulator))
        else:
            try:
                connection.recv(1)
            except ConnectionResetError:
                assert isinstance(fault, Reset)
        is_late = fault.taken_after_s > 0
        assert simulator.posts == 1
        assert simulator.text_count == int(fault.taken and not is_late)
        assert simulator.requests[0].fault == fault
