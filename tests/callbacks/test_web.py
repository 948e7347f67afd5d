"""Callbacks over real HTTP: what was signed is checked as it was asked for, whatever serves it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote
from wsgiref.validate import validator

import pytest
from tests.callbacks.serving import asked, served_by_asgi, served_by_wsgi
from tests.callbacks.signed import FROM, PUBLIC, TO, TOKEN, form, inbound, json_body, report

from smsretry import Accepted, Dispatcher, Message
from smsretry.callbacks.twilio import Response, TwilioCallbacks
from smsretry.callbacks.web import asgi_app, wsgi_app
from smsretry.core.delivery import Mark, callback_url
from smsretry.ports import DeliveryLog
from smsretry.senders.twilio import TwilioSender
from smsretry.store import SQLStore
from smsretry.testing import TwilioSimulator

SERVERS = {
    "wsgi": lambda log: served_by_wsgi(validator(wsgi_app(log))),
    "asgi": lambda log: served_by_asgi(asgi_app(log)),
}
TARGETS = [
    "/sms",
    "/",
    "/sms/",
    "/sms?smsretry_id=spring%3A17&smsretry_mark=1.2.3",
    callback_url("/sms?kept=a+b", "order 7/é+%", Mark(1, 2, 3)),
    "/sms?empty=&bare&twice=1&twice=2&twice=1",
    "/sms?plus=a+b&space=a%20b&sign=a%2Bb&accent=%C3%A9&low=%c3%a9&at=a@b,c;d:e",
    "/sms?url=https%3A%2F%2Fexample.org%2F%3Fa%3Db%26c&again=a?b=c",
    "/de%20la/%C3%A9t%C3%A9",
    "/100%25/a+b/c%2520d",
    "/~shop/a.b-c_d/e@f:g/h,i;j=k!l$m&n'o(p)q*r",
]


@pytest.fixture(scope="module")
def store() -> Iterator[SQLStore]:
    with SQLStore("sqlite://") as opened:
        yield opened


@pytest.fixture(scope="module", params=SERVERS)
def port(request: pytest.FixtureRequest, store: SQLStore) -> Iterator[int]:
    """Serve callbacks to a store, over WSGI and over ASGI."""
    with SERVERS[request.param](TwilioCallbacks(TOKEN, PUBLIC, store)) as taken:
        yield taken


@pytest.mark.parametrize("target", TARGETS)
def test_what_twilio_asked_for_is_what_is_checked(port: int, target: str) -> None:
    assert asked(port, *form(report("sent"), target)).status == 204


@pytest.mark.parametrize("target", TARGETS)
def test_another_url_than_the_signed_one_is_refused(port: int, target: str) -> None:
    method, _, headers, body = form(report("sent"), "/another")
    assert asked(port, method, target, headers, body).status == 403


def test_a_report_reaches_the_store_of_the_application(port: int, store: SQLStore) -> None:
    store.plan(Message(TO, "Hello.", id=f"over {port}"))
    target = callback_url("/sms", f"over {port}", Mark(1, 1, 1))
    answer = asked(port, *form([*report("delivered", sid=f"SM{port}"), ("Empty", ""), ("Name", "Zoë & Co")], target))
    assert (answer.status, answer.headers["Content-Type"]) == (204, None)
    record = store.message(f"over {port}")
    assert record is not None
    assert (record.state, record.delivery, record.provider_id) == ("accepted", "delivered", f"SM{port}")


def test_a_message_that_comes_in_is_answered_with_empty_twiml(port: int, store: SQLStore) -> None:
    answer = asked(port, *form(inbound("STOP", To=f"+1500{port}")))
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/xml; charset=utf-8")
    assert store.suppressed(TO, f"+1500{port}") is not None


def test_a_json_body_comes_through_as_it_is(port: int) -> None:
    assert asked(port, *json_body({"MessageSid": "SM1", "MessageStatus": "sent", "Name": "Zoë\n"})).status == 204


def test_headers_are_known_in_any_case(port: int) -> None:
    method, target, headers, body = form(report("sent"))
    assert asked(port, method, target, {name.upper(): value for name, value in headers.items()}, body).status == 204


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda method, target, headers, body: ("GET", target, {}, b""), 405),
        (lambda method, target, headers, body: (method, target, {}, b""), 403),
        (lambda method, target, headers, body: (method, target, {}, body), 403),
        (lambda method, target, headers, body: (method, target, headers, body[:-1]), 403),
        (lambda method, target, headers, body: (method, target, headers, b"\xff\x00"), 403),
        (lambda method, target, headers, body: (method, target, headers, 70_000 * b"a"), 413),
        (lambda method, target, headers, body: (method, target, {**headers, "X-Twilio-Signature": "\xe9"}, body), 403),
    ],
)
def test_what_is_no_callback_is_answered_as_such(port: int, change: Callable[..., Any], status: int) -> None:
    assert asked(port, *change(*form(report("sent")))).status == status


@pytest.mark.parametrize("server", SERVERS)
def test_a_text_is_sent_and_reported_through_a_proxy(server: str, store: SQLStore) -> None:
    with (
        SERVERS[server](TwilioCallbacks(TOKEN, PUBLIC, store)) as port,
        TwilioSimulator(auth_token=TOKEN, routes={PUBLIC: f"http://127.0.0.1:{port}"}) as twilio,
    ):
        url = f"{PUBLIC}/sms?kept=a+b&empty="
        account = (twilio.account_sid, TOKEN)
        sender = TwilioSender(*account, from_number=FROM, base_url=twilio.url, status_callback_url=url)
        twilio.script_fate("undelivered", 30003)
        outcome = Dispatcher(sender, journal=store).attempt(Message(TO, "Hello.", id=f"sent {server} é"))
        sender.close()
        assert isinstance(outcome, Accepted)
        assert twilio.drain()
        assert {callback.answer for callback in twilio.callbacks} == {204}
    record = store.message(f"sent {server} é")
    assert record is not None
    assert (record.delivery, record.delivery_code) == ("undelivered", "30003")


def test_a_path_of_which_a_proxy_cuts_off_a_part_is_checked_whole(store: SQLStore) -> None:
    method, _, headers, body = form(report("sent"), "/shop/sms?a=b")
    for public_url, status in {f"{PUBLIC}/shop": 204, f"{PUBLIC}/shop/": 204, PUBLIC: 403}.items():
        assert TwilioCallbacks(TOKEN, public_url, store).handle(method, "/sms?a=b", headers, body).status == status


class Away:
    """Be a store whose database is away."""

    def receive(self, told, /):
        raise OSError


@pytest.mark.parametrize("server", SERVERS)
def test_a_store_that_is_away_is_told_to_twilio(server: str) -> None:
    away: DeliveryLog = Away()
    with SERVERS[server](TwilioCallbacks(TOKEN, PUBLIC, away)) as port:
        assert asked(port, *form(report("sent"))).status == 503


class Told:
    """Answer 204 to everything, and keep what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def handle(self, method, path_and_query, headers, body):
        self.asked.append((method, path_and_query, dict(headers), body))
        return Response(204)


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize("raw", ["/a%2Fb?c=%2F", "https://inside/a%2Fb?c=%2F", "*", "", None])
def test_a_server_that_tells_the_target_as_it_came_is_believed(name: str, raw: str | None) -> None:
    log = Told()
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/a", "PATH_INFO": "/b", "QUERY_STRING": "c=%2F", name: raw}
    wsgi_app(log)({**environ, "wsgi.input": io.BytesIO()}, lambda *_: None)
    assert log.asked[0][1] == ("/a%2Fb?c=%2F" if raw and raw.startswith("/") else "/a/b?c=%2F")


@pytest.mark.parametrize(
    ("length", "terminated", "read"),
    [
        ("3", False, b"a=b"),
        ("", False, b""),
        (None, False, b""),
        ("-1", False, b""),
        ("3x", False, b""),
        ("٣", False, b""),
        (None, True, b"a=b&c=d"),
    ],
)
def test_as_much_of_a_body_is_read_as_the_server_says_there_is(
    length: str | None, terminated: bool, read: bytes
) -> None:
    log = Told()
    environ = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"a=b&c=d")}
    wsgi_app(log)({**environ, "wsgi.input_terminated": terminated}, lambda *_: None)
    assert log.asked[0][3] == read


class Conversation:
    """Talk with an ASGI application as a server does, without one."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.coming = list(events)
        self.sent: list[Any] = []

    async def receive(self) -> dict[str, Any]:
        return self.coming.pop(0)

    async def send(self, event: Any) -> None:
        self.sent.append(event)

    def with_app(self, log: Any, **scope: Any) -> list[Any]:
        usual = {"type": "http", "method": "POST", "path": "/sms", "headers": []}
        asyncio.run(asgi_app(log)(usual | scope, self.receive, self.send))
        return self.sent


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("target", TARGETS)
def test_a_server_that_tells_no_raw_path_has_it_quoted_again(target: str) -> None:
    log = Told()
    path, _, query = target.partition("?")
    Conversation(part(b"")).with_app(log, path=unquote(path), query_string=query.encode())
    assert log.asked[0][1] == target


@pytest.mark.parametrize("raw", [b"/a%2Fb", b"/a%2Fb?c=%2F"])
def test_a_raw_path_is_taken_as_it_came_with_or_without_its_query(raw: bytes) -> None:
    log = Told()
    Conversation(part(b"")).with_app(log, path="/a/b", raw_path=raw, query_string=b"c=%2F", root_path="/a")
    assert log.asked[0][1] == "/a%2Fb?c=%2F"


def test_a_body_that_comes_in_parts_is_put_together() -> None:
    log = Told()
    events = Conversation(part(b"a=", more=True), {"type": "http.request", "more_body": True}, part(b"b")).with_app(log)
    assert log.asked[0][3] == b"a=b"
    assert [event["type"] for event in events] == ["http.response.start", "http.response.body"]


def test_a_client_that_goes_away_half_way_is_believed_nothing() -> None:
    _, target, headers, body = form(report("sent"))
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    events = Conversation(part(body[:9], more=True), {"type": "http.disconnect"}).with_app(
        TwilioCallbacks(TOKEN, PUBLIC, Away()), path=target, headers=pairs
    )
    assert events[0]["status"] == 403


def test_a_body_without_an_end_is_cut_off() -> None:
    log = Told()
    megabyte = [part(65_536 * b"a", more=True) for _ in range(64)]
    Conversation(*megabyte, part(b"")).with_app(log)
    assert len(log.asked[0][3]) < 1_200_000


def test_an_asgi_server_may_tell_of_its_beginning_and_end() -> None:
    events = Conversation({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}).with_app(Told(), type="lifespan")
    assert [event["type"] for event in events] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_what_is_not_http_is_refused() -> None:
    with pytest.raises(ValueError, match="not over websocket"):
        Conversation().with_app(Told(), type="websocket")
