"""One send is one POST under one deadline, whatever the other side does, over HTTP and over TLS."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import aiohttp
import pytest
import requests
from tests.senders.in_a_loop import NewSender, Sender
from tests.senders.twilio_servers import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    CERTIFICATE,
    FROM,
    TO,
    clerk,
    http,
    refusing_port,
    silent_port,
    tls_front,
)
from twilio.base.exceptions import TwilioRestException  # type: ignore[import-untyped]

from smsretry.core.failure import Failure, FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.errors import ProviderError
from smsretry.ports import CannotTell, NotSeen
from smsretry.senders.twilio import TwilioSender
from smsretry.testing.simulator import FAULTS, Fault, Hang, Part, Refused, Reset, Slow, TwilioSimulator

TIMEOUT_S = 0.5
GRACE_S = 0.5
MESSAGE = Message(TO, "Your parcel is on its way.", id="parcel-1")
CREATED = {"sid": "SM" + "1" * 32, "status": "queued", "num_segments": "1"}

KINDS = {
    "rate_limited": FailureKind.RATE_LIMITED,
    "rate_limited_with_seconds": FailureKind.RATE_LIMITED,
    "rate_limited_with_date": FailureKind.RATE_LIMITED,
    "invalid_number": FailureKind.INVALID_NUMBER,
    "opted_out": FailureKind.OPTED_OUT,
    "queue_full": FailureKind.QUEUE_FULL,
    "carrier_rejected": FailureKind.CARRIER_REJECTED,
    "bad_credentials": FailureKind.AUTH,
    "suspended": FailureKind.ACCOUNT,
    "server_error": FailureKind.TEMPORARY,
    "server_error_taken": FailureKind.TEMPORARY,
    "unavailable": FailureKind.TEMPORARY,
    "gateway_timeout": FailureKind.TEMPORARY,
    "redirected": FailureKind.SENDER_CONFIG,
}
"""Every other fault loses the answer."""
TIMED = {
    "slow_status_line": Slow(part=Part.STATUS_LINE, interval_s=0.1),
    "slow_headers": Slow(part=Part.HEADERS, interval_s=0.1),
    "slow_body": Slow(part=Part.BODY, interval_s=0.1),
    "hang": Hang(),
}


@pytest.fixture(scope="module")
def warm() -> None:
    """Load the clients, so that their import is in nobody's time."""
    __import__("smsretry.senders.twilio.http")
    __import__("smsretry.senders.twilio.async_http")


@pytest.fixture
def simulator(warm: None) -> Iterator[TwilioSimulator]:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as running:
        yield running


SenderTo = Callable[..., Sender]


@pytest.fixture
def sender_to(new_sender: NewSender) -> SenderTo:
    def make(url: str, *, timeout_s: float = TIMEOUT_S, connect_timeout_s: float = 3.0) -> Sender:
        return new_sender(
            ACCOUNT_SID,
            AUTH_TOKEN,
            from_number=FROM,
            base_url=url,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
        )

    return make


def send(sender: Sender) -> tuple[Receipt | Failure, float]:
    """Send once; say what came of it and how many seconds it took."""
    began_s = monotonic()
    answer: Receipt | Failure
    try:
        answer = sender.send(MESSAGE)
    except Exception as error:
        answer = sender.classify(error)
    took_s = monotonic() - began_s
    sender.close()
    return answer, took_s


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "delayed"])
def test_every_fault_costs_one_post_and_says_whether_the_text_may_have_been_taken(
    name: str, simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    fault = FAULTS[name]
    simulator.script(fault)
    failure, took_s = send(sender_to(simulator.url))
    assert isinstance(failure, Failure)
    assert failure.kind is KINDS.get(name, FailureKind.LOST_ANSWER)
    assert simulator.posts == 1
    assert took_s < TIMEOUT_S + GRACE_S
    if fault.taken:
        assert failure.maybe_sent, "a text that was taken may never be called unsent"
    assert failure.maybe_sent is (failure.kind is FailureKind.LOST_ANSWER or 500 <= (failure.http_status or 0) < 600)


@pytest.mark.parametrize("fault", TIMED.values(), ids=TIMED.keys())
def test_a_server_that_trickles_is_cut_off_at_the_deadline(
    fault: Fault, simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    simulator.script(fault)
    failure, took_s = send(sender_to(simulator.url))
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.LOST_ANSWER
    assert TIMEOUT_S * 0.9 < took_s < TIMEOUT_S + GRACE_S
    assert simulator.posts == 1


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trust the test's certificate, as a company's own is trusted: through the environment."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(CERTIFICATE, "ascii")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    return tmp_path


def test_a_text_goes_out_over_tls(simulator: TwilioSimulator, trusted: Path, sender_to: SenderTo) -> None:
    with tls_front(simulator.url, trusted) as url:
        receipt, _ = send(sender_to(url, timeout_s=5.0))
    assert isinstance(receipt, Receipt)
    assert [text.sid for text in simulator.texts] == [receipt.provider_id]


@pytest.mark.parametrize("fault", TIMED.values(), ids=TIMED.keys())
def test_a_server_that_trickles_over_tls_is_cut_off_at_the_deadline(
    fault: Fault, simulator: TwilioSimulator, trusted: Path, sender_to: SenderTo
) -> None:
    simulator.script(fault)
    with tls_front(simulator.url, trusted) as url:
        failure, took_s = send(sender_to(url))
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.LOST_ANSWER
    assert took_s < TIMEOUT_S + GRACE_S
    assert simulator.posts == 1


def test_a_certificate_that_nobody_trusts_lets_nothing_leave(
    simulator: TwilioSimulator, tmp_path: Path, sender_to: SenderTo
) -> None:
    with tls_front(simulator.url, tmp_path) as url:
        failure, _ = send(sender_to(url, timeout_s=5.0))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert re.search("SSLCertVerificationError|ClientConnectorCertificateError", failure.detail)
    assert simulator.posts == 0


def test_a_server_that_breaks_off_the_handshake_gets_nothing(warm: None, sender_to: SenderTo) -> None:
    with clerk(b"HTTP/1.1 400 Bad Request\r\n\r\n", hang_up=True) as server:
        failure, _ = send(sender_to(server.url.replace("http:", "https:"), timeout_s=5.0, connect_timeout_s=0.3))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)


def test_a_server_that_speaks_no_tls_gets_nothing(simulator: TwilioSimulator, sender_to: SenderTo) -> None:
    url = simulator.url.replace("http:", "https:")
    failure, _ = send(sender_to(url, timeout_s=5.0, connect_timeout_s=0.3))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert simulator.posts == 0


@pytest.mark.parametrize(("scheme", "full"), [("http", True), ("https", True), ("https", False)])
def test_connecting_has_a_deadline_of_its_own_and_means_nothing_was_sent(
    scheme: str, full: bool, warm: None, sender_to: SenderTo
) -> None:
    with silent_port(full=full) as address:
        failure, took_s = send(sender_to(f"{scheme}://{address}", timeout_s=5.0, connect_timeout_s=0.3))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert took_s < 0.3 + GRACE_S


def test_a_refused_connection_was_not_sent(warm: None, sender_to: SenderTo) -> None:
    with refusing_port() as address:
        failure, _ = send(sender_to(f"http://{address}"))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)


def test_a_name_that_cannot_be_resolved_was_not_sent(warm: None, sender_to: SenderTo) -> None:
    failure, _ = send(sender_to(f"http://{'a' * 64}.invalid"))  # no name has a part of 64 characters
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert re.search("NameResolutionError|ClientConnectorDNSError", failure.detail)


def test_a_name_is_resolved_under_the_deadline_too(warm: None, sender_to: SenderTo) -> None:
    failure, took_s = send(sender_to("http://localhost:1", connect_timeout_s=1e-9))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert took_s < GRACE_S


def test_a_proxy_that_refuses_lets_nothing_leave(
    simulator: TwilioSimulator, monkeypatch: pytest.MonkeyPatch, sender_to: SenderTo
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with refusing_port() as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        failure, _ = send(sender_to(simulator.url))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert re.search("ProxyError|ClientProxyConnectionError", failure.detail)
    assert simulator.posts == 0


def test_a_proxy_that_never_answers_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch, warm: None, sender_to: SenderTo
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with silent_port(full=False) as address:
        monkeypatch.setenv("https_proxy", f"http://{address}")
        failure, took_s = send(sender_to("https://localhost:1", timeout_s=5.0, connect_timeout_s=0.3))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert took_s < 0.3 + GRACE_S


def test_a_connection_is_used_again(simulator: TwilioSimulator, sender_to: SenderTo) -> None:
    with clerk(http(201, CREATED)) as server:
        sender = sender_to(server.url)
        for _ in range(3):
            sender.send(MESSAGE)
        sender.close()
    assert len(set(server.client_ports)) == 1


def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(warm: None, sender_to: SenderTo) -> None:
    with clerk(http(201, CREATED), hang_up=True) as server:
        sender = sender_to(server.url)
        for _ in range(3):
            sender.send(MESSAGE)
            assert server.closed.acquire(timeout=10)
        sender.close()
    assert len(server.heads) == 3
    assert len(set(server.client_ports)) == 3


@pytest.mark.parametrize(
    "body",
    ["", "<html>ok</html>", "[]", "null", "{}", '{"sid": null}', '{"sid": ""}', '{"sid": 7}', '{"sid": "SM1'],
    ids=["empty", "page", "list", "null", "object", "no SID", "empty SID", "number", "cut"],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_without_a_sid_is_unknown(status: int, body: str, warm: None, sender_to: SenderTo) -> None:
    with clerk(http(status, body, ["Twilio-Request-Id: RQ123"])) as server:
        sender = sender_to(server.url)
        with pytest.raises(ProviderError) as caught:
            sender.send(MESSAGE)
        sender.close()
    failure = sender.classify(caught.value)
    assert (failure.kind, failure.maybe_sent, failure.http_status) == (FailureKind.LOST_ANSWER, True, status)
    assert failure.detail == f"HTTP {status} without a SID [RQ123]"


def test_a_connection_that_ends_under_a_create_gets_it_once(sender_to: SenderTo, warm: None) -> None:
    with clerk(http(201, CREATED), None, http(201, CREATED)) as server:
        sender = sender_to(server.url)
        sender.send(MESSAGE)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            sender.send(MESSAGE)
        sender.close()
    assert sender.classify(caught.value).maybe_sent
    assert len(server.heads) == 2
    assert len(set(server.client_ports)) == 1, "the second create went over the connection of the first"


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nno header at all\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 2000 Created\r\n\r\n",
    ],
    ids=["garbage", "length", "header", "long", "status"],
)
def test_an_answer_that_cannot_be_read_is_unknown_and_tells_no_secret(
    answer: bytes, sender_to: SenderTo, warm: None
) -> None:
    with clerk(answer, hang_up=True) as server:
        sender = sender_to(server.url)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            sender.send(MESSAGE)
        sender.close()
    failure = sender.classify(caught.value)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.LOST_ANSWER, True)
    told = f"{caught.value!r} {caught.value} {failure}"
    assert AUTH_TOKEN not in told
    assert b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode() not in told


def test_a_base_url_may_lead_through_a_path(sender_to: SenderTo, warm: None) -> None:
    with clerk(http(201, CREATED), http(200, {"messages": [], "next_page_uri": None})) as server:
        sender = sender_to(f"{server.url}/through/here/")
        sender.send(MESSAGE)
        assert isinstance(sender.find(MESSAGE, since=datetime.now(UTC)), NotSeen)
        sender.close()
    path = f"/through/here/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json"
    assert [head.split()[1].split("?")[0] for head in server.heads] == [path, path]


def test_a_next_page_cannot_lead_elsewhere(sender_to: SenderTo, warm: None) -> None:
    with clerk(http(200, {})) as elsewhere:
        following = f"//{elsewhere.url.removeprefix('http://')}/x"
        with clerk(http(200, {"messages": [], "next_page_uri": following}), http(404, "")) as server:
            sender = sender_to(server.url)
            assert isinstance(sender.find(MESSAGE, since=datetime.now(UTC)), CannotTell)
            sender.close()
        assert elsewhere.heads == []


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the environment name a proxy for everything."""

    def name(address: str) -> None:
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, f"http://shop:s3cret@{address}")

    return name


def test_a_proxy_is_told_its_own_password_and_where_to_go(
    sender_to: SenderTo, proxied: Callable[[str], None], warm: None
) -> None:
    with clerk(http(201, CREATED)) as proxy:
        proxied(proxy.url.removeprefix("http://"))
        receipt, _ = send(sender_to("http://twilio.invalid"))
    assert isinstance(receipt, Receipt)
    (head,) = proxy.heads
    assert head.startswith(f"POST http://twilio.invalid/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json ")
    assert f"proxy-authorization: basic {b64encode(b'shop:s3cret').decode()}".lower() in head.lower()


@pytest.mark.parametrize(
    "answer", [http(407, "who are you?"), None, b"garbage\r\n\r\n"], ids=["refuses", "hangs up", "garbage"]
)
def test_a_proxy_that_opens_no_tunnel_lets_nothing_leave(
    answer: bytes | None, sender_to: SenderTo, proxied: Callable[[str], None], warm: None
) -> None:
    with clerk(answer, hang_up=True) as proxy:
        proxied(proxy.url.removeprefix("http://"))
        sender = sender_to("https://twilio.invalid", timeout_s=5.0, connect_timeout_s=2.0)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            sender.send(MESSAGE)
        sender.close()
    failure = sender.classify(caught.value)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    (head,) = proxy.heads
    assert head.startswith("CONNECT twilio.invalid:443 ")
    assert f"proxy-authorization: basic {b64encode(b'shop:s3cret').decode()}".lower() in head.lower()
    assert ACCOUNT_SID not in head
    told = f"{caught.value!r} {caught.value} {failure}"
    assert "s3cret" not in told
    assert b64encode(b"shop:s3cret").decode() not in told


def test_a_redirect_is_not_followed(warm: None, sender_to: SenderTo) -> None:
    with clerk(http(201, CREATED)) as elsewhere, clerk(http(307, "", [f"Location: {elsewhere.url}/x"])) as server:
        failure, _ = send(sender_to(server.url))
        assert elsewhere.heads == []
    assert isinstance(failure, Failure)
    assert failure.http_status == 307


def test_a_malformed_redirect_is_a_redirect_all_the_same(warm: None, sender_to: SenderTo) -> None:
    with clerk(http(302, "", ["Location: http://[bad"])) as server:
        failure, _ = send(sender_to(server.url))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.http_status) == (FailureKind.SENDER_CONFIG, 302)


def test_the_real_exception_of_the_client_comes_through_with_what_it_loses(
    simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    simulator.script(FAULTS["rate_limited_with_seconds"])
    sender = sender_to(simulator.url)
    with pytest.raises(TwilioRestException) as caught:
        sender.send(MESSAGE)
    sender.close()
    assert caught.value.headers["Retry-After"] == "1"
    assert caught.value.headers["Twilio-Request-Id"].startswith("RQ")
    failure = sender.classify(caught.value)
    assert failure.retry_after_s == 1.0
    assert caught.value.headers["Twilio-Request-Id"] in failure.detail


@pytest.mark.parametrize(
    ("hint", "least_s", "most_s"), [("rate_limited_with_date", 0.0, 3.0), ("rate_limited", None, None)]
)
def test_a_hint_reaches_the_failure(
    hint: str, least_s: float | None, most_s: float | None, simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    simulator.script(FAULTS[hint])
    failure, _ = send(sender_to(simulator.url))
    assert isinstance(failure, Failure)
    if least_s is None or most_s is None:
        assert failure.retry_after_s is None
    else:
        assert failure.retry_after_s is not None
        assert least_s <= failure.retry_after_s <= most_s


def test_many_threads_share_one_sender(simulator: TwilioSimulator) -> None:
    sender = TwilioSender(
        ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, max_connections=8, timeout_s=10.0
    )
    sids: list[str] = []

    def work(thread: int) -> None:
        for number in range(10):
            sids.append(sender.send(Message(TO, f"Text {thread}-{number}", id=f"{thread}-{number}")).provider_id)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sender.close()
    assert simulator.posts == len(set(sids)) == 80
    assert {text.sid for text in simulator.texts} == set(sids)
    assert simulator.texts_doubled == 0


FIRST_SEND = """
from smsretry import Message
from smsretry.senders.twilio import TwilioSender
sender = TwilioSender({sid!r}, {token!r}, from_number={from_!r}, base_url={url!r}, timeout_s=0.5)
sender.send(Message({to!r}, "hello"))
"""


def test_loading_the_client_is_not_in_the_time_of_the_first_send(simulator: TwilioSimulator) -> None:
    program = FIRST_SEND.format(sid=ACCOUNT_SID, token=AUTH_TOKEN, from_=FROM, to=TO, url=simulator.url)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert simulator.text_count == 1


def test_a_call_without_time_left_sends_nothing(simulator: TwilioSimulator, sender_to: SenderTo) -> None:
    failure, _ = send(sender_to(simulator.url, timeout_s=1e-9))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.TEMPORARY, False)
    assert simulator.posts == 0


FORKING = """
import os, sys
from smsretry import Message
from smsretry.senders.twilio import TwilioSender
sender = TwilioSender({sid!r}, {token!r}, from_number={from_!r}, base_url={url!r})
send = lambda: sender.send(Message({to!r}, "hello", id=str(os.getpid())))
send()
child = os.fork()
send()
send()
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
send()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_connections_of_its_own(warm: None) -> None:
    with clerk(http(201, CREATED)) as server:
        program = FORKING.format(sid=ACCOUNT_SID, token=AUTH_TOKEN, from_=FROM, to=TO, url=server.url)
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert len(server.heads) == 6
    uses = sorted(server.client_ports.count(port) for port in set(server.client_ports))
    assert uses == [2, 4], "the parent keeps its connection, the child opens one"


def test_an_exception_of_a_send_names_no_number(simulator: TwilioSimulator, sender_to: SenderTo) -> None:
    words = f"The number {TO} is no good. See https://example.invalid/?To=%2B{TO[1:]}&From={FROM[1:]}"
    simulator.script(Refused(code=21211, message=words))
    sender = sender_to(simulator.url)
    with pytest.raises(TwilioRestException) as caught:
        sender.send(MESSAGE)
    sender.close()
    told = f"{caught.value} {caught.value!r} {caught.value.__dict__} {sender.classify(caught.value)}"
    assert TO[1:] not in told
    assert FROM[1:] not in told
    assert "***23" in told


def test_the_page_of_a_gateway_names_no_number(warm: None, sender_to: SenderTo) -> None:
    with clerk(http(400, f"<html>{TO} is unknown</html>")) as server:
        sender = sender_to(server.url)
        with pytest.raises(TwilioRestException) as caught:
            sender.send(MESSAGE)
        sender.close()
    assert TO[1:] not in f"{caught.value} {caught.value.__dict__}"


@pytest.mark.parametrize("fault", [Reset(taken=True), Hang()], ids=["reset", "hang"])
def test_network_exceptions_come_through_as_they_are(
    fault: Fault, simulator: TwilioSimulator, sender_to: SenderTo
) -> None:
    simulator.script(fault)
    sender = sender_to(simulator.url)
    with pytest.raises((requests.RequestException, aiohttp.ClientError, TimeoutError)) as caught:
        sender.send(MESSAGE)
    sender.close()
    assert TO[1:] not in str(caught.value)
    assert MESSAGE.body not in str(caught.value)
