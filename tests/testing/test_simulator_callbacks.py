"""The simulator says what becomes of texts, and tells it as Twilio does: signed, doubled, lost, late, out of order."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from tests.testing.callback_app import NO_CONTENT, Application, Posted, application
from tests.testing.plain_client import FROM, SERVICE, TO, connected, create, create_bytes, list_messages, look_up
from twilio.request_validator import RequestValidator

from smsretry.testing.simulator import (
    FAULTS,
    CallbackPlan,
    Delayed,
    Fate,
    Reset,
    TextStatus,
    TwilioSimulator,
    fault_named,
)
from smsretry.testing.simulator.fates import Fates

RANK = {"accepted": 0, "queued": 1, "sending": 2, "sent": 3, "delivered": 4, "undelivered": 4, "failed": 4}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"
TAKEN_WITHOUT_A_MESSAGE = [
    name for name, fault in FAULTS.items() if fault.taken and not isinstance(fault, Delayed) and "slow" not in name
]


@pytest.fixture
def app() -> Iterator[Application]:
    with application() as running:
        yield running


def number(place: int) -> str:
    return f"+1555123{place:04}"


def create_many(simulator: TwilioSimulator, app: Application, places: Any) -> None:
    """Create a text for each place over one connection, and wait for the answers."""
    places = list(places)
    with closing(connected(simulator)) as connection:
        creates = (create_bytes(simulator, to=number(place), StatusCallback=app.url) for place in places)
        connection.sendall(b"".join(creates))
        answer = b""
        while answer.count(b"HTTP/1.1 201") < len(places):
            answer += connection.recv(65_536)


def truth(simulator: TwilioSimulator) -> dict[str, Fate]:
    """Return what became of each number's text."""
    fates = simulator.fates
    return {text.to: fates[text.sid] for text in simulator.texts}


def is_signed(app: Application, posted: Posted, *, token: str, base: str | None = None) -> bool:
    url = (base or app.base) + posted.path
    return bool(RequestValidator(token).validate(url, posted.form, posted.headers["x-twilio-signature"]))


def test_a_delivered_text_is_told_status_by_status_without_the_first(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        message = create(simulator, StatusCallback=app.url).json
        assert message["status"] == "queued"
        assert simulator.drain()
        assert app.statuses() == ["sending", "sent", "delivered"]
        assert simulator.fates == {message["sid"]: Fate(TextStatus.DELIVERED)}
        posted = app.got[0]
        assert posted.path == "/told?id=7&blank="
        assert posted.form == {
            "AccountSid": simulator.account_sid,
            "ApiVersion": "2010-04-01",
            "From": FROM,
            "MessageSid": message["sid"],
            "MessageStatus": "sending",
            "SmsSid": message["sid"],
            "SmsStatus": "sending",
            "To": TO,
        }
        assert posted.headers["content-type"].startswith("application/x-www-form-urlencoded")
        assert posted.headers["host"] == app.base.removeprefix("http://")


def test_a_text_of_a_messaging_service_is_told_as_queued_too_and_names_service_and_sender(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        message = create(simulator, From=None, MessagingServiceSid=SERVICE, StatusCallback=app.url).json
        assert (message["status"], message["from"]) == ("accepted", None)
        assert simulator.drain()
        assert app.statuses() == ["queued", "sending", "sent", "delivered"]
        assert {posted.form["MessagingServiceSid"] for posted in app.got} == {SERVICE}
        assert {posted.form["From"] for posted in app.got} == {FROM}
        assert look_up(simulator, message["sid"]).json["from"] == FROM


@pytest.mark.parametrize(
    ("plan", "told", "code", "is_dated"),
    [
        (CallbackPlan(undelivered={30003: 1.0}), ["sending", "sent", "undelivered"], 30003, True),
        (CallbackPlan(failed={30410: 1.0}), ["failed"], 30410, False),
        (CallbackPlan(stay_sent=1.0), ["sending", "sent"], None, True),
    ],
)
def test_what_did_not_arrive_is_told_and_shown_with_its_code(
    app: Application, plan: CallbackPlan, told: list[str], code: int | None, *, is_dated: bool
) -> None:
    with TwilioSimulator(callbacks=plan) as simulator:
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert app.statuses() == told
        assert app.got[-1].form.get("ErrorCode") == (None if code is None else str(code))
        assert all("ErrorCode" not in posted.form for posted in app.got[:-1])
        shown = look_up(simulator, sid).json
        assert (shown["status"], shown["error_code"]) == (told[-1], code)
        assert shown["error_message"] == app.got[-1].form.get("ErrorMessage")
        assert (shown["date_sent"] is not None) == is_dated
        assert simulator.fates[sid] == Fate(TextStatus(told[-1]), code)


def test_the_dates_of_a_message_are_those_of_its_steps() -> None:
    with TwilioSimulator(callbacks=CallbackPlan(step_s=(0.6, 0.6))) as simulator:
        sid = create(simulator).json["sid"]
        assert look_up(simulator, sid).json["date_sent"] is None
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert list_messages(simulator, **{"DateSent>": today}).json["messages"] == []
        assert simulator.drain()
        shown = look_up(simulator, sid).json
        created, sent, updated = (
            parsedate_to_datetime(shown[name]) for name in ("date_created", "date_sent", "date_updated")
        )
        assert 1 <= (sent - created).total_seconds() <= 3
        assert sent <= updated
        assert len(list_messages(simulator, **{"DateSent>": today}).json["messages"]) == 1


def test_every_callback_is_signed_as_the_official_validator_expects(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(undelivered={30003: 1.0})) as simulator:
        create(simulator, StatusCallback=app.url, Body="Grüße")
        assert simulator.drain()
        assert len(app.got) == 3
        for posted in app.got:
            assert is_signed(app, posted, token=simulator.auth_token)
            assert not is_signed(app, posted, token="another")
            posted.form["MessageStatus"] = "read"
            assert not is_signed(app, posted, token=simulator.auth_token)


def test_the_fragment_of_a_url_is_neither_signed_nor_sent(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        create(simulator, StatusCallback=f"{app.base}/told#rc=2")
        assert simulator.drain()
        assert {posted.path for posted in app.got} == {"/told"}
        assert all(is_signed(app, posted, token=simulator.auth_token) for posted in app.got)


def test_the_carriers_date_comes_now_and_then(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        create_many(simulator, app, range(40))
        assert simulator.drain()
        last = [posted.form for posted in app.got if posted.status == "delivered"]
        dated = [form["RawDlrDoneDate"] for form in last if "RawDlrDoneDate" in form]
        assert 5 < len(dated) < 35
        assert all(re.fullmatch(r"\d{10}", date) for date in dated)


def test_without_a_plan_no_callback_is_sent_and_a_text_stays_sent(app: Application) -> None:
    with TwilioSimulator() as simulator:
        sid = create(simulator, StatusCallback="https://example.com/told").json["sid"]
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert app.got == []
        assert simulator.fates[sid] == Fate(TextStatus.SENT)
        assert look_up(simulator, sid).json["status"] == "sent"


def test_a_text_without_a_status_callback_comes_to_its_end_untold(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(undelivered={30005: 1.0}, lost=0.5)) as simulator:
        sid = create(simulator).json["sid"]
        assert simulator.drain()
        assert look_up(simulator, sid).json["error_code"] == 30005
        assert (simulator.callback_counts.sent, simulator.callback_counts.lost) == (0, 0)


def test_a_plan_is_set_and_ended_while_the_simulator_runs(app: Application) -> None:
    with TwilioSimulator() as simulator:
        simulator.plan_callbacks(CallbackPlan(failed={30007: 1.0}))
        first = create(simulator, StatusCallback=app.url).json["sid"]
        simulator.plan_callbacks(None)
        second = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert simulator.fates == {first: Fate(TextStatus.FAILED, 30007), second: Fate(TextStatus.SENT)}
        assert app.statuses() == ["failed"]


def test_thousands_of_callbacks_add_up_with_what_became_of_the_texts(app: Application) -> None:
    plan = CallbackPlan(
        undelivered={30003: 0.1, 30005: 0.05},
        failed={30410: 0.05},
        stay_sent=0.1,
        doubled=0.05,
        lost=0.05,
        shuffled=1.0,
        before_answer=0.1,
        step_s=(0.0, 0.02),
    )
    with TwilioSimulator(callbacks=plan, seed=3) as simulator:
        began_s = monotonic()
        create_many(simulator, app, range(1000))
        assert simulator.drain()
        assert monotonic() - began_s < 30
        fates = Counter(simulator.fates.values())
        assert 60 < fates[Fate(TextStatus.UNDELIVERED, 30003)] < 140
        assert 25 < fates[Fate(TextStatus.UNDELIVERED, 30005)] < 75
        assert 25 < fates[Fate(TextStatus.FAILED, 30410)] < 75
        assert 60 < fates[Fate(TextStatus.SENT)] < 140
        counts = simulator.callback_counts
        due = sum({"failed": 1, "sent": 2}.get(fate.status, 3) * count for fate, count in fates.items())
        assert counts.sent - counts.doubled + counts.lost == due
        assert 0.03 < counts.lost / due < 0.07
        assert 0.03 < counts.doubled / due < 0.07
        assert counts.answered == {204: counts.sent}
        assert counts.sent == len(app.got) == len(simulator.callbacks)
        assert app.connections <= plan.connections
        last = {posted.form["To"]: posted.status for posted in app.got if RANK[posted.status] == 4}
        for to, fate in truth(simulator).items():
            assert last.get(to, fate.status) == fate.status
        shown = list_messages(simulator, PageSize=1000).json["messages"]
        assert {each["sid"]: Fate(each["status"], each["error_code"]) for each in shown} == simulator.fates


def test_a_run_repeats_with_its_seed_whatever_the_order_of_the_creates() -> None:
    plan = CallbackPlan(undelivered={30003: 0.3}, stay_sent=0.2, doubled=0.2, lost=0.2, shuffled=0.5)

    def run(seed: int, places: Any) -> tuple[dict[str, Fate], dict[str, list[str]]]:
        with application() as app, TwilioSimulator(callbacks=plan, seed=seed) as simulator:
            create_many(simulator, app, places)
            assert simulator.drain()
            return truth(simulator), {number(place): app.statuses(number(place)) for place in places}

    first = run(1, range(60))
    assert run(1, range(59, -1, -1)) == first
    assert run(2, range(60)) != first


def test_callbacks_that_are_lost_leave_the_truth_in_fetch_and_list(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(undelivered={30006: 1.0}, lost=1.0)) as simulator:
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert (app.got, simulator.callback_counts.lost) == ([], 3)
        for shown in (look_up(simulator, sid).json, list_messages(simulator, To=TO).json["messages"][0]):
            assert (shown["status"], shown["error_code"]) == ("undelivered", 30006)
            assert shown["date_sent"] is not None


def test_a_doubled_callback_comes_twice(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(doubled=1.0)) as simulator:
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert app.statuses() == ["sending", "sending", "sent", "sent", "delivered", "delivered"]
        assert (simulator.callback_counts.sent, simulator.callback_counts.doubled) == (6, 3)
        assert [callback.is_double for callback in simulator.callbacks] == [False, True] * 3


def test_shuffled_callbacks_come_in_any_order_but_never_before_they_are_true(app: Application) -> None:
    told: list[tuple[str, str]] = []
    with TwilioSimulator(callbacks=CallbackPlan(shuffled=1.0, step_s=(0.01, 0.03))) as simulator:

        def look(posted: Posted) -> bytes:
            told.append((posted.status, look_up(simulator, posted.form["MessageSid"]).json["status"]))
            return NO_CONTENT

        app.answers = look
        create_many(simulator, app, range(20))
        assert simulator.drain()
    orders = {tuple(app.statuses(number(place))) for place in range(20)}
    assert len(orders) > 3
    assert all(RANK[status] <= RANK[true] for status, true in told), told


def test_a_late_callback_comes_when_its_status_has_long_been_true(app: Application) -> None:
    shown: list[str] = []
    with TwilioSimulator(callbacks=CallbackPlan(late_s=(0.3, 0.4))) as simulator:

        def look(posted: Posted) -> bytes:
            shown.append(look_up(simulator, posted.form["MessageSid"]).json["status"])
            return NO_CONTENT

        app.answers = look
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert (app.statuses(), shown) == (["sending", "sent", "delivered"], ["delivered"] * 3)
        assert simulator.callbacks[0].at_s - simulator.requests[0].at_s >= 0.3


def test_the_first_callback_can_be_answered_before_the_create_is(app: Application) -> None:
    answered = threading.Event()
    answers_seen: list[bool] = []

    def note(posted: Posted) -> bytes:
        if posted.status == "sending":
            answers_seen.append(answered.wait(0.1))
        return NO_CONTENT

    app.answers = note
    with TwilioSimulator(callbacks=CallbackPlan(before_answer=1.0, step_s=(0.05, 0.1))) as simulator:
        assert create(simulator, StatusCallback=app.url).status == 201
        answered.set()
        assert simulator.drain()
    assert answers_seen == [False]
    assert app.statuses() == ["sending", "sent", "delivered"]


def test_a_callback_before_the_answer_comes_at_once_however_long_the_steps_are(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(before_answer=1.0, step_s=(60, 60))) as simulator:
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert app.statuses() == ["sending"]
        assert look_up(simulator, sid).json["status"] == "sending"


def test_every_callback_is_due_in_its_turn_once_it_is_true_and_its_lateness_is_over() -> None:
    plan = CallbackPlan(undelivered={30003: 0.5}, shuffled=0.5, doubled=0.3, step_s=(1, 2), late_s=(3, 4))
    fates = Fates(seed=1, plan=plan)
    for place in range(50):
        course = fates.next_course(to=TO, identity=b"%d" % place, by_service=True)
        assert course is not None
        true_s = {fate: after_s for after_s, fate in course.steps}
        due_s = [told.after_s for told in course.callbacks]
        assert due_s == sorted(due_s)
        assert [fate.status for _, fate in course.steps][:3] == ["queued", "sending", "sent"]
        assert all(1 <= later - sooner <= 2 for sooner, later in pairwise([0.0, *true_s.values()]))
        assert all(told.after_s >= true_s[told.fate] + 3 for told in course.callbacks)
        assert due_s[-1] <= course.end_s + 4


def test_a_callback_otherwise_waits_until_the_answer_to_the_create_has_left(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        simulator.script(Delayed(delay_s=0.3))
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert simulator.callbacks[0].at_s - simulator.requests[0].at_s >= 0.3


def test_an_answer_waits_no_longer_for_its_callback_than_the_callback_for_the_application(app: Application) -> None:
    app.says_nothing()
    with TwilioSimulator(callbacks=CallbackPlan(before_answer=1.0, timeout_s=0.1)) as simulator:
        assert create(simulator, StatusCallback=app.url).status == 201
        assert simulator.drain()
        assert simulator.callback_counts.unanswered == 3


def test_an_application_that_needs_the_answer_first_gets_it_after_all(app: Application) -> None:
    app.says_nothing()
    with TwilioSimulator(callbacks=CallbackPlan(before_answer=1.0)) as simulator:
        assert create(simulator, StatusCallback=app.url).status == 201
        assert (len(app.got), simulator.callbacks) == (1, [])


@pytest.mark.parametrize("before_answer", [0.0, 1.0])
@pytest.mark.parametrize("name", TAKEN_WITHOUT_A_MESSAGE)
def test_a_text_whose_answer_was_lost_is_told_of_all_the_same(
    app: Application, name: str, before_answer: float
) -> None:
    fault = Reset(taken=True, taken_after_s=0.05) if name == "lost_and_taken_late" else fault_named(name)
    with TwilioSimulator(callbacks=CallbackPlan(before_answer=before_answer)) as simulator:
        simulator.script(fault)
        with closing(connected(simulator)) as connection:
            connection.sendall(create_bytes(simulator, StatusCallback=app.url))
            assert simulator.wait_for(lambda: simulator.text_count == 1)
            assert simulator.drain()
        assert app.statuses() == ["sending", "sent", "delivered"]
        assert list(simulator.fates.values()) == [Fate(TextStatus.DELIVERED)]


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if not fault.taken and "hang" not in name])
def test_a_text_that_was_not_taken_is_told_of_by_nobody(app: Application, name: str) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        simulator.script(name)
        with suppress(OSError, HTTPException):
            create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert (app.got, simulator.fates) == ([], {})


def test_a_sender_that_leaves_before_its_answer_is_told_all_the_same(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        simulator.script(Delayed(delay_s=60))
        with closing(connected(simulator)) as connection:
            connection.sendall(create_bytes(simulator, StatusCallback=app.url))
            assert simulator.wait_for(lambda: simulator.text_count == 1)
            assert app.got == []
        assert simulator.drain()
        assert len(app.got) == 3


def test_callbacks_go_out_while_the_api_itself_is_down(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(step_s=(0.1, 0.1))) as simulator:
        create(simulator, StatusCallback=app.url)
        simulator.down()
        assert simulator.drain()
        assert len(app.got) == 3


def test_an_error_of_the_application_is_not_answered_by_a_repeat(app: Application) -> None:
    app.answers = lambda _: BUSY
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert app.statuses() == ["sending", "sent", "delivered"]
        assert simulator.callback_counts.answered == {503: 3}


def test_an_error_of_the_application_is_repeated_where_the_plan_says_so(app: Application) -> None:
    app.answers = lambda _: (
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        if len(app.got) < 3
        else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    with TwilioSimulator(callbacks=CallbackPlan(repeats=2, repeat_after_s=0.01)) as simulator:
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert app.statuses() == ["sending", "sending", "sending", "sent", "delivered"]
        tokens = [posted.headers["i-twilio-idempotency-token"] for posted in app.got]
        assert len(set(tokens[:3])) == 1
        assert len(set(tokens)) == 3
        counts = simulator.callback_counts
        assert (counts.sent, counts.repeated, counts.doubled, counts.answered) == (5, 2, 0, {503: 2, 200: 3})


def test_an_application_that_is_away_is_counted_as_no_answer() -> None:
    with application() as gone:
        url = gone.url
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        create(simulator, StatusCallback=url)
        assert simulator.drain()
        counts = simulator.callback_counts
        assert (counts.sent, counts.unanswered, counts.answered) == (3, 3, {})
        assert [callback.answer for callback in simulator.callbacks] == [None] * 3


@pytest.mark.parametrize(
    "url",
    [
        "https://sms.example.com/told",
        "http://sms.example.com/told",
        "http://192.168.0.1/told",
        "https://127.0.0.1/told",
        "http://user:word@127.0.0.1/told",
        "ftp://127.0.0.1/told",
        "/told",
        "http://127.0.0.1:99999/told",
        "http://127.0.0.1/t old",
        "http://[::1/told",
    ],
)
def test_a_callback_that_would_leave_the_machine_refuses_the_create(url: str) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        got = create(simulator, StatusCallback=url)
        assert (got.status, got.json["code"]) == (400, 21609)
        assert simulator.texts == []
        with pytest.raises(ValueError, match=r"."):
            simulator.receive(TO, FROM, "hello", url=url)


def test_a_public_url_is_reached_by_its_route_and_signed_as_it_is(app: Application) -> None:
    public = "https://sms.example.com"
    with TwilioSimulator(callbacks=CallbackPlan(), routes={public: app.base}) as simulator:
        create(simulator, StatusCallback=f"{public}/told?id=7")
        assert simulator.drain()
        assert len(app.got) == 3
        for posted in app.got:
            assert posted.headers["host"] == "sms.example.com"
            assert is_signed(app, posted, token=simulator.auth_token, base=public)


@pytest.mark.parametrize(
    ("url", "behind"),
    [
        ("https://sms.example.com", "https://127.0.0.1"),
        ("https://sms.example.com/path", "http://127.0.0.1"),
        ("https://sms.example.com", "http://127.0.0.1/path"),
        ("https://sms.example.com", "127.0.0.1:8000"),
    ],
)
def test_a_route_that_leads_nowhere_is_refused(url: str, behind: str) -> None:
    with pytest.raises(ValueError, match="route"):
        TwilioSimulator(routes={url: behind})


def test_a_script_says_what_becomes_of_the_next_text_and_which_callbacks_go_out(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        simulator.script_fate("undelivered", 30003, callbacks=["undelivered", "sent", "undelivered"])
        simulator.script_fate("failed", 30410, to=number(2))
        assert simulator.unplayed == 2
        for place in (1, 2, 1):
            create(simulator, To=number(place), StatusCallback=app.url)
        assert simulator.drain()
        assert simulator.unplayed == 0
        assert list(simulator.fates.values()) == [
            Fate(TextStatus.UNDELIVERED, 30003),
            Fate(TextStatus.FAILED, 30410),
            Fate(TextStatus.DELIVERED),
        ]
        first, second, third = (simulator.texts[place].sid for place in range(3))
        told = {
            sid: [posted.status for posted in app.got if posted.form["MessageSid"] == sid]
            for sid in (first, second, third)
        }
        assert told == {
            first: ["undelivered", "sent", "undelivered"],
            second: ["failed"],
            third: ["sending", "sent", "delivered"],
        }
        assert simulator.callback_counts.doubled == 1


def test_a_script_can_tell_what_is_not_true(app: Application) -> None:
    with TwilioSimulator() as simulator:
        simulator.script_fate("delivered", callbacks=["delivered", Fate(TextStatus.UNDELIVERED, 30008)])
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert [(posted.status, posted.form.get("ErrorCode")) for posted in app.got] == [
            ("delivered", None),
            ("undelivered", "30008"),
        ]
        assert look_up(simulator, sid).json["status"] == "delivered"


def test_a_script_without_callbacks_is_the_poller_s_case(app: Application) -> None:
    with TwilioSimulator() as simulator:
        simulator.script_fate("sending", callbacks=[])
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert app.got == []
        shown = look_up(simulator, sid).json
        assert (shown["status"], shown["date_sent"]) == ("sending", None)


def test_a_script_can_tell_before_the_answer(app: Application) -> None:
    with TwilioSimulator() as simulator:
        simulator.script(Reset(taken=True))
        simulator.script_fate("delivered", before_answer=True)
        with pytest.raises(ConnectionResetError):
            create(simulator, StatusCallback=app.url)
        assert app.statuses()[:1] == ["sending"]
        assert simulator.drain()
        assert app.statuses() == ["sending", "sent", "delivered"]


@pytest.mark.parametrize(
    ("status", "code", "callbacks"),
    [
        ("undelivered", None, None),
        ("delivered", 30003, None),
        ("accepted", None, None),
        ("lost", None, None),
        ("delivered", None, ["undelivered"]),
        ("delivered", None, ["accepted"]),
    ],
)
def test_a_fate_that_makes_no_sense_is_refused(status: str, code: int | None, callbacks: list[str] | None) -> None:
    with pytest.raises(ValueError, match="A text"):
        TwilioSimulator().script_fate(status, code, callbacks=callbacks)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lost": 1.1}, "lost must be a share from 0 to 1"),
        ({"doubled": -0.1}, "doubled must be a share"),
        ({"undelivered": {30003: 2}}, r"undelivered\[30003\] must be a share"),
        ({"undelivered": {30003: 0.6}, "stay_sent": 0.6}, "must add up to 1 at most"),
        ({"step_s": (2, 1)}, "step_s must be from 0 to 86400 seconds"),
        ({"late_s": (-1, 1)}, "late_s must be"),
        ({"timeout_s": float("inf")}, "timeout_s must be"),
        ({"repeats": -1}, "repeats must be a whole number"),
        ({"connections": 0}, "connections must be a whole number, 1 or more"),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CallbackPlan(**fields)


def test_reset_forgets_callbacks_and_sends_none_that_were_to_go_out(app: Application) -> None:
    with TwilioSimulator(callbacks=CallbackPlan(late_s=(0.5, 0.5))) as simulator:
        create(simulator, StatusCallback=app.url)
        assert simulator.under_way == 1
        simulator.reset()
        assert simulator.drain()
        assert (simulator.fates, simulator.callbacks) == ({}, [])
        sid = create(simulator, StatusCallback=app.url).json["sid"]
        assert simulator.drain()
        assert {posted.form["MessageSid"] for posted in app.got} == {sid}


@pytest.mark.parametrize("plan", [CallbackPlan(late_s=(60, 60)), CallbackPlan(step_s=(60, 60)), CallbackPlan()])
def test_closing_in_the_middle_leaves_nothing_behind_and_a_new_start_works(
    app: Application, plan: CallbackPlan
) -> None:
    before = set(threading.enumerate())
    app.says_nothing()
    simulator = TwilioSimulator(callbacks=plan)
    with simulator:
        create_many(simulator, app, range(20))
        assert simulator.under_way == 20
        assert not simulator.drain(timeout_s=0.01)
    assert {thread for thread in threading.enumerate() if thread.name.startswith("twilio-simulator")} <= before
    assert simulator.under_way == 0
    app.answers = lambda _: NO_CONTENT
    simulator.plan_callbacks(CallbackPlan())
    with simulator:
        create_many(simulator, app, range(20, 40))
        assert simulator.drain()
    for place in range(20, 40):
        assert app.statuses(number(place)) == ["sending", "sent", "delivered"]


@pytest.mark.parametrize(
    ("raw", "status", "text"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n<Response/>", 200, "<Response/>"),
        (
            b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<Res\r\n7;a=b\r\nponse/>\r\n0\r\nA: b\r\n\r\n",
            200,
            "<Response/>",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<Response/>", 200, "<Response/>"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\nno", 403, "no"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", 302, ""),
    ],
)
def test_an_application_may_answer_in_any_way_of_http(app: Application, raw: bytes, status: int, text: str) -> None:
    app.answers = lambda _: raw
    with TwilioSimulator() as simulator:
        for _ in range(2):
            answer = simulator.receive(TO, FROM, "hello", url=app.url)
            assert (answer.status, answer.text) == (status, text)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nless",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000,
    ],
)
def test_what_is_no_answer_is_told_as_such(app: Application, raw: bytes) -> None:
    app.answers = lambda _: raw
    with TwilioSimulator(callbacks=CallbackPlan()) as simulator:
        with pytest.raises(ConnectionError):
            simulator.receive(TO, FROM, "hello", url=app.url)
        create(simulator, StatusCallback=app.url)
        assert simulator.drain()
        assert simulator.callback_counts.unanswered == 3


def test_an_inbound_message_is_posted_with_its_fields_and_the_answer_returned(app: Application) -> None:
    app.answers = lambda _: b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 11\r\n\r\n<Response/>"
    with TwilioSimulator() as simulator:
        answer = simulator.receive(TO, FROM, "STOP", url=app.url, opt_out_type="STOP", messaging_service_sid=SERVICE)
        assert (answer.status, answer.text, answer.headers["content-type"]) == (200, "<Response/>", "text/xml")
        [posted] = app.got
        assert posted.path == "/told?id=7&blank="
        assert re.fullmatch(r"SM[0-9a-f]{32}", posted.form["MessageSid"])
        expected = {
            "AccountSid": simulator.account_sid,
            "MessagingServiceSid": SERVICE,
            "SmsSid": posted.form["MessageSid"],
            "SmsStatus": "received",
            "From": TO,
            "To": FROM,
            "Body": "STOP",
            "NumMedia": "0",
            "NumSegments": "1",
            "OptOutType": "STOP",
            "FromCity": "",
        }
        assert {name: posted.form[name] for name in expected} == expected
        assert is_signed(app, posted, token=simulator.auth_token)
        simulator.receive(TO, FROM, "", url=app.url, media_urls=["https://example.com/1.jpg"])
        last = app.got[-1]
        assert (last.form["NumMedia"], last.form["MediaUrl0"]) == ("1", "https://example.com/1.jpg")
        assert "OptOutType" not in last.form
        assert "MessagingServiceSid" not in last.form
        assert is_signed(app, last, token=simulator.auth_token)


def test_an_inbound_message_without_an_answer_is_an_error(app: Application) -> None:
    app.says_nothing()
    with TwilioSimulator() as simulator:
        with pytest.raises(TimeoutError):
            simulator.receive(TO, FROM, "hello", url=app.url, timeout_s=0.1)
        with pytest.raises(ValueError, match="opt_out_type must be one of STOP, START, HELP"):
            simulator.receive(TO, FROM, "hello", url=app.url, opt_out_type="ARRET")
    with pytest.raises(RuntimeError, match="does not run"):
        simulator.receive(TO, FROM, "hello", url=app.url)


def test_an_application_that_is_away_gets_no_inbound_message() -> None:
    with application() as gone:
        url = gone.url
    with TwilioSimulator() as simulator, pytest.raises(ConnectionRefusedError):
        simulator.receive(TO, FROM, "hello", url=url)
