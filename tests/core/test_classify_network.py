"""Exceptions of the usual clients say whether a request had left, by their names and without importing any client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import aiohttp
import billiard.exceptions
import httpx
import pytest
import requests
import urllib3
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from smsretry.core.classify import LONGEST_DETAIL, chain, classify_error, hint_s
from smsretry.core.failure import Failure, FailureKind
from smsretry.core.http import failure_of_status
from smsretry.errors import ConfigurationError, InvalidMessage, ProviderError

POOL = urllib3.HTTPConnectionPool("example.invalid")
CONNECTION = urllib3.connection.HTTPConnection("example.invalid")
KEY = ConnectionKey("example.invalid", 443, True, True, None, None, None)
REQUEST = httpx.Request("POST", "https://example.invalid")

NEW_CONNECTION = NewConnectionError(CONNECTION, "refused")
NO_NAME = NameResolutionError("example.invalid", CONNECTION, socket.gaierror(-2, "Name or service not known"))
BAD_CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed")
CERTIFICATE_OF_URLLIB3 = urllib3.exceptions.SSLError(BAD_CERTIFICATE)

NOT_SENT: dict[str, Exception] = {
    "requests: connect timeout": requests.ConnectTimeout(),
    "requests: proxy refused": requests.exceptions.ProxyError(),
    "requests: refused": requests.ConnectionError(MaxRetryError(POOL, "/", NEW_CONNECTION)),
    "requests: no such name": requests.ConnectionError(MaxRetryError(POOL, "/", NO_NAME)),
    "requests: connect timeout inside": requests.ConnectionError(MaxRetryError(POOL, "/", ConnectTimeoutError())),
    "requests: certificate": requests.exceptions.SSLError(MaxRetryError(POOL, "/", CERTIFICATE_OF_URLLIB3)),
    "urllib3: refused": NEW_CONNECTION,
    "urllib3: no such name": NO_NAME,
    "urllib3: refused after its own repeats": MaxRetryError(POOL, "/", NEW_CONNECTION),
    "urllib3: connect timeout": ConnectTimeoutError(),
    "urllib3: proxy": urllib3.exceptions.ProxyError("no", OSError()),
    "urllib3: no free connection": urllib3.exceptions.EmptyPoolError(POOL, "empty"),
    "aiohttp: connect": aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
    "aiohttp: no such name": aiohttp.ClientConnectorDNSError(KEY, OSError()),
    "aiohttp: certificate": aiohttp.ClientConnectorCertificateError(KEY, BAD_CERTIFICATE),
    "aiohttp: TLS": aiohttp.ClientConnectorSSLError(KEY, OSError()),
    "aiohttp: proxy": aiohttp.ClientProxyConnectionError(KEY, OSError()),
    "aiohttp: connect timeout": aiohttp.ConnectionTimeoutError(),
    "httpx: connect": httpx.ConnectError("no"),
    "httpx: connect timeout": httpx.ConnectTimeout("no"),
    "httpx: no free connection": httpx.PoolTimeout("no"),
    "httpx: proxy": httpx.ProxyError("no"),
    "library: refused": ConnectionRefusedError(111, "refused"),
    "library: no such name": socket.gaierror(-2, "no"),
    "library: certificate": BAD_CERTIFICATE,
    "library: urllib refused": urllib.error.URLError(ConnectionRefusedError()),
    "library: urllib no such name": urllib.error.URLError(socket.gaierror(-2, "no")),
    "library: connection in the wrong state": http.client.CannotSendRequest(),
}
UNSENDABLE: dict[str, Exception] = {
    "requests: no scheme": requests.exceptions.MissingSchema("no"),
    "requests: odd scheme": requests.exceptions.InvalidSchema("no"),
    "requests: bad URL": requests.exceptions.InvalidURL("no"),
    "requests: bad header": requests.exceptions.InvalidHeader("no"),
    "requests: body is no JSON": requests.exceptions.InvalidJSONError("no"),
    "urllib3: bad URL": LocationParseError("no"),
    "aiohttp: bad URL": aiohttp.InvalidURL("no"),
    "httpx: odd scheme": httpx.UnsupportedProtocol("no"),
    "httpx: bad URL": httpx.InvalidURL("no"),
    "httpx: local protocol": httpx.LocalProtocolError("no"),
    "library: bad URL": http.client.InvalidURL("no"),
}
MAYBE_SENT: dict[str, Exception] = {
    "requests: read timeout": requests.ReadTimeout(),
    "requests: closed": requests.ConnectionError(ProtocolError("aborted", http.client.RemoteDisconnected("closed"))),
    "requests: reset": requests.ConnectionError(ProtocolError("aborted", ConnectionResetError())),
    "requests: timeout in the body": requests.ConnectionError(ReadTimeoutError(POOL, "/", "no")),
    "requests: read timeout inside": requests.ConnectionError(
        MaxRetryError(POOL, "/", ReadTimeoutError(POOL, "/", ""))
    ),
    "requests: nothing inside": requests.ConnectionError("no"),
    "requests: cut body": requests.exceptions.ChunkedEncodingError(),
    "requests: body is no JSON": requests.exceptions.JSONDecodeError("no", "", 0),
    "requests: TLS broke": requests.exceptions.SSLError(MaxRetryError(POOL, "/", ssl.SSLError("broke"))),
    "requests: too many redirects": requests.TooManyRedirects(),
    "urllib3: protocol": ProtocolError("no"),
    "urllib3: read timeout": ReadTimeoutError(POOL, "/", "no"),
    "urllib3: nothing inside": MaxRetryError(POOL, "/"),
    "aiohttp: disconnected": aiohttp.ServerDisconnectedError(),
    "aiohttp: system error": aiohttp.ClientOSError(104, "reset"),
    "aiohttp: cut body": aiohttp.ClientPayloadError("no"),
    "aiohttp: server timeout": aiohttp.ServerTimeoutError(),
    "aiohttp: read timeout": aiohttp.SocketTimeoutError(),
    "httpx: read timeout": httpx.ReadTimeout("no"),
    "httpx: write timeout": httpx.WriteTimeout("no"),
    "httpx: read": httpx.ReadError("no"),
    "httpx: remote protocol": httpx.RemoteProtocolError("no"),
    "library: timeout": TimeoutError(),
    "library: reset": ConnectionResetError(104, "reset"),
    "library: broken pipe": BrokenPipeError(),
    "library: TLS": ssl.SSLError("broke"),
    "library: closed": http.client.RemoteDisconnected("closed"),
    "library: bad status line": http.client.BadStatusLine("HTP"),
    "library: cut body": http.client.IncompleteRead(b""),
    "library: urllib timeout": urllib.error.URLError(TimeoutError()),
    "library: urllib words": urllib.error.URLError("no"),
    "celery: soft time limit": billiard.exceptions.SoftTimeLimitExceeded(),
}


@pytest.mark.parametrize("error", NOT_SENT.values(), ids=NOT_SENT.keys())
def test_a_request_that_never_left_may_be_repeated(error: Exception) -> None:
    failure = classify_error(error)
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (FailureKind.TEMPORARY, True, False)
    assert not failure.unmapped


@pytest.mark.parametrize("error", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_a_request_that_can_never_leave_is_a_configuration_fault(error: Exception) -> None:
    failure = classify_error(error)
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (FailureKind.SENDER_CONFIG, False, False)


@pytest.mark.parametrize("error", MAYBE_SENT.values(), ids=MAYBE_SENT.keys())
def test_a_request_whose_answer_is_lost_may_have_arrived(error: Exception) -> None:
    failure = classify_error(error)
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (FailureKind.LOST_ANSWER, True, True)
    assert not failure.unmapped


def test_an_exception_nobody_listed_may_have_been_sent_and_is_marked() -> None:
    class Odd(Exception):
        pass

    failure = classify_error(Odd("+15005550006 said hello"))
    assert (failure.kind, failure.maybe_sent, failure.unmapped) == (FailureKind.LOST_ANSWER, True, True)
    assert "hello" not in failure.detail
    assert "0006" not in failure.detail


def test_what_an_exception_was_raised_from_does_not_excuse_it() -> None:
    def store() -> None:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError as error:
            raise LookupError("the cache is down, after the text had left") from error

    with pytest.raises(LookupError) as caught:
        store()
    assert classify_error(caught.value).maybe_sent


def test_an_earlier_request_that_may_have_arrived_outweighs_a_later_one_that_never_left() -> None:
    def send_twice() -> None:
        try:
            raise requests.ReadTimeout
        except requests.ReadTimeout:
            raise requests.ConnectTimeout  # noqa: B904  # an application's own repeat

    with pytest.raises(requests.ConnectTimeout) as caught:
        send_twice()
    assert classify_error(caught.value).kind is FailureKind.LOST_ANSWER


def test_the_steps_inside_a_request_that_never_left_do_not_count_as_an_earlier_one() -> None:
    error = requests.ConnectTimeout(MaxRetryError(POOL, "/", ConnectTimeoutError()))
    error.__context__ = MaxRetryError(POOL, "/", ConnectTimeoutError())
    error.__context__.__cause__ = TimeoutError("timed out")
    assert not classify_error(error).maybe_sent


def test_causes_in_a_circle_are_followed_once() -> None:
    first, second = requests.ConnectTimeout(), requests.ConnectTimeout()
    first.__cause__, second.__cause__ = second, first
    first.__context__ = first.__cause__
    assert not classify_error(first).maybe_sent


def test_wrappers_in_a_circle_may_have_been_sent() -> None:
    error = MaxRetryError(POOL, "/")
    error.reason = error
    assert classify_error(error).maybe_sent


@pytest.mark.parametrize("lost_at", [0, 1, 2])
def test_one_member_of_a_group_that_may_have_arrived_decides_for_all(lost_at: int) -> None:
    members: list[Exception] = [requests.ConnectTimeout(), ConnectionRefusedError(), httpx.ConnectError("no")]
    assert not classify_error(ExceptionGroup("sends", members)).maybe_sent
    members[lost_at] = ExceptionGroup("nested", [requests.ReadTimeout()])
    assert classify_error(ExceptionGroup("sends", members)).kind is FailureKind.LOST_ANSWER


def test_a_group_nested_ever_deeper_is_judged_all_the_same() -> None:
    error: Exception = requests.ConnectTimeout()
    for _ in range(5_000):
        error = ExceptionGroup("deeper", [error])
    assert classify_error(error).maybe_sent, "too deep to look at is unknown"


def test_an_exception_whose_attributes_raise_is_judged_by_its_name() -> None:
    class Hostile(requests.ConnectionError):
        def __getattribute__(self, name: str) -> object:
            raise RuntimeError(name)

        def __str__(self) -> str:
            raise RuntimeError

    assert classify_error(Hostile()).kind is FailureKind.LOST_ANSWER


class Answer:
    def __init__(self, status_code: object, headers: object) -> None:
        self.status_code = status_code
        self.headers = headers


def answered(status: object, headers: object = None) -> requests.HTTPError:
    error = requests.HTTPError("an URL with a number")
    error.response = Answer(status, headers)
    return error


@pytest.mark.parametrize(
    "error",
    [
        answered(429, {"Retry-After": "7"}),
        httpx.HTTPStatusError(
            "no", request=REQUEST, response=httpx.Response(429, headers={"Retry-After": "7"}, request=REQUEST)
        ),
        aiohttp.ClientResponseError(None, (), status=429, headers={"Retry-After": "7"}),  # type: ignore[arg-type]
        urllib.error.HTTPError("http://x", 429, "no", {"Retry-After": "7"}, None),  # type: ignore[arg-type]
    ],
    ids=["requests", "httpx", "aiohttp", "urllib"],
)
def test_a_status_error_is_judged_by_its_status_and_keeps_its_hint(error: Exception) -> None:
    failure = classify_error(error)
    assert (failure.kind, failure.http_status, failure.retry_after_s) == (FailureKind.RATE_LIMITED, 429, 7.0)
    assert not failure.maybe_sent
    with contextlib.suppress(AttributeError):
        error.close()  # type: ignore[attr-defined]


def test_a_retry_after_date_counts_from_the_answers_own_date() -> None:
    headers = {"Retry-After": "Mon, 23 Nov 2026 18:00:09 GMT", "Date": "Mon, 23 Nov 2026 18:00:00 GMT"}
    assert classify_error(answered(503, headers)).retry_after_s == 9.0
    assert classify_error(answered(503, {"Retry-After": headers["Retry-After"]})).retry_after_s is None


def test_a_status_error_without_a_status_may_have_been_sent() -> None:
    assert classify_error(answered(None, {})).kind is FailureKind.LOST_ANSWER
    assert classify_error(requests.HTTPError()).kind is FailureKind.LOST_ANSWER


def test_a_proxy_that_refuses_never_let_the_request_through() -> None:
    error = aiohttp.ClientHttpProxyError(None, (), status=407)  # type: ignore[arg-type]
    assert classify_error(error).kind is FailureKind.TEMPORARY
    assert not classify_error(error).maybe_sent


class Unreadable:
    def get(self, name: str) -> str:
        raise RuntimeError(name)


@pytest.mark.parametrize("headers", [None, 7, Unreadable(), {"Retry-After": 7}, {"Retry-After": "soon"}])
def test_headers_that_cannot_be_read_give_no_hint(headers: object) -> None:
    assert hint_s(headers) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, FailureKind.LOST_ANSWER),
        (204, FailureKind.LOST_ANSWER),
        (301, FailureKind.SENDER_CONFIG),
        (307, FailureKind.SENDER_CONFIG),
        (400, FailureKind.OTHER),
        (401, FailureKind.AUTH),
        (402, FailureKind.ACCOUNT),
        (403, FailureKind.AUTH),
        (404, FailureKind.OTHER),
        (408, FailureKind.LOST_ANSWER),
        (409, FailureKind.OTHER),
        (413, FailureKind.CONTENT),
        (422, FailureKind.OTHER),
        (425, FailureKind.TEMPORARY),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.LOST_ANSWER),
        (502, FailureKind.LOST_ANSWER),
        (599, FailureKind.LOST_ANSWER),
        (0, FailureKind.LOST_ANSWER),
        (999, FailureKind.LOST_ANSWER),
    ],
)
def test_a_status_alone_has_a_meaning(status: int, kind: FailureKind) -> None:
    failure = failure_of_status(status)
    assert failure.kind is kind
    assert failure.maybe_sent is (kind is FailureKind.LOST_ANSWER)
    assert failure.unmapped is (kind is FailureKind.OTHER)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 511])
def test_a_server_error_that_the_provider_states_itself_is_temporary_and_maybe_sent(status: int) -> None:
    failure = failure_of_status(status, own_error=True)
    assert (failure.kind, failure.retryable, failure.maybe_sent) == (FailureKind.TEMPORARY, True, True)


def test_what_the_library_raises_itself_keeps_its_meaning() -> None:
    stated = Failure.of(FailureKind.OPTED_OUT, code=7)
    assert classify_error(ProviderError(stated)) == stated
    assert classify_error(InvalidMessage("body is empty.")).kind is FailureKind.CONTENT
    assert classify_error(ConfigurationError("auth_token is missing.")).detail == "auth_token is missing."
    assert classify_error(ConfigurationError()).detail == "ConfigurationError"
    assert classify_error(ConfigurationError(7)).detail == "ConfigurationError"


@pytest.mark.parametrize("args", [(), (7,), ({},), ({"kind": "odd"},)])
def test_a_stated_failure_that_was_garbled_may_have_been_sent(args: tuple[object, ...]) -> None:
    error = ProviderError(Failure.of(FailureKind.AUTH))
    error.args = args
    assert classify_error(error).maybe_sent


def test_classifiers_in_a_chain_are_asked_in_turn_and_the_default_last() -> None:
    mine = Failure.of(FailureKind.EXPIRED)
    judge = chain(lambda _: None, lambda error: mine if isinstance(error, KeyError) else None)
    assert judge(KeyError()) is mine
    assert judge(ConnectionRefusedError()).kind is FailureKind.TEMPORARY


def a_server(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

    return serve


@pytest.fixture
def garbage() -> Iterator[str]:
    """A server that takes a request and answers nonsense."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=a_server(b"nonsense\r\n\r\n"), args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(10)


@pytest.fixture
def refused() -> Iterator[str]:
    """An address that is taken and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def with_requests(url: str) -> None:
    requests.post(url, data="x", timeout=5)


def with_urllib3(url: str) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("POST", url, body=b"x", retries=0, timeout=5)


def with_httpx(url: str) -> None:
    httpx.post(url, content=b"x", timeout=5)


def with_urllib(url: str) -> None:
    urllib.request.urlopen(url, data=b"x", timeout=5)


def with_aiohttp(url: str) -> None:
    import asyncio

    async def post() -> None:
        async with aiohttp.ClientSession() as session, session.post(url, data=b"x"):
            pass

    asyncio.run(post())


CLIENTS = [with_requests, with_urllib3, with_httpx, with_urllib, with_aiohttp]


@pytest.mark.parametrize("post", CLIENTS)
def test_a_refused_connection_of_a_real_client_was_not_sent(post: Callable[[str], None], refused: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        post(refused)
    assert classify_error(caught.value).kind is FailureKind.TEMPORARY
    assert not classify_error(caught.value).maybe_sent


@pytest.mark.parametrize("post", CLIENTS)
def test_a_garbled_answer_to_a_real_client_may_have_been_sent(post: Callable[[str], None], garbage: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        post(garbage)
    failure = classify_error(caught.value)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.LOST_ANSWER, True)


def test_no_client_is_imported_to_know_its_exceptions() -> None:
    program = (
        "import sys, json\n"
        "from smsretry.core.classify import classify_error\n"
        "classify_error(TimeoutError())\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert loaded.isdisjoint({"requests", "urllib3", "aiohttp", "httpx", "billiard", "twilio", "email"})


TYPES = [
    *{type(error) for error in [*NOT_SENT.values(), *MAYBE_SENT.values(), *UNSENDABLE.values()]},
    *(ValueError, KeyError, OSError, RecursionError, UnicodeError, MemoryError, ProviderError, InvalidMessage),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@st.composite
def odd_exceptions(draw: st.DrawFn) -> Exception:
    """Draw exceptions of known and of new types, with any args, attributes and causes, circles included."""
    known = draw(st.sampled_from(TYPES))
    kind: type[Exception] = draw(
        st.sampled_from([known, type(draw(st.text(max_size=20)).replace("\0", "") or "X", (known,), {})])
    )
    error = kind.__new__(kind)
    error.args = tuple(draw(st.lists(SCALARS, max_size=3)))
    for name in ("reason", "response", "status", "code", "headers", "status_code"):
        if draw(st.booleans()):
            with contextlib.suppress(Exception):
                setattr(error, name, draw(SCALARS))
    if draw(st.booleans()):
        error.__cause__ = draw(st.sampled_from([error, ValueError(), requests.ReadTimeout()]))
    return ExceptionGroup("group", [error, ValueError()]) if draw(st.booleans()) else error


@given(odd_exceptions())
def test_every_exception_has_a_class_and_none_makes_the_classifier_raise(error: Exception) -> None:
    failure = classify_error(error)
    assert Failure.from_dict(failure.to_dict()) == failure
    assert len(failure.detail) <= LONGEST_DETAIL
    if failure.kind is FailureKind.LOST_ANSWER:
        assert failure.maybe_sent
