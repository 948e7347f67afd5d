"""TwilioSender says the right things to Twilio, opens nothing before it must, and tells no secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.senders.in_a_loop import NewSender, Sender
from tests.senders.twilio_servers import ACCOUNT_SID, AUTH_TOKEN, FROM, SERVICE, TO, clerk, http
from urllib3 import Timeout

from smsretry.core.failure import FailureKind
from smsretry.core.message import Message, Receipt
from smsretry.core.outcome import Accepted, Deferred, GaveUp, RetryAfter
from smsretry.core.policy import RetryPolicy
from smsretry.dispatcher import Dispatcher
from smsretry.errors import ConfigurationError, ProviderError
from smsretry.ports import CannotTell
from smsretry.testing import FakeClock, TwilioSimulator
from smsretry.testing.simulator import FAULTS, Refused

NOW = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)
MESSAGE = Message(TO, "Your parcel is on its way.", id="parcel-1")
ENV = {"TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": AUTH_TOKEN, "TWILIO_FROM_NUMBER": FROM}


@pytest.fixture
def simulator() -> Iterator[TwilioSimulator]:
    with TwilioSimulator(account_sid=ACCOUNT_SID, auth_token=AUTH_TOKEN) as running:
        yield running


@pytest.fixture
def sender(simulator: TwilioSimulator, new_sender: NewSender) -> Iterator[Sender]:
    made = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url)
    yield made
    made.close()


def posted(simulator: TwilioSimulator) -> dict[str, list[str]]:
    """Return the form of the only create."""
    (request,) = [each for each in simulator.requests if each.method == "POST"]
    return request.form


def test_an_accepted_text_gives_a_receipt(sender: Sender, simulator: TwilioSimulator) -> None:
    before = datetime.now(UTC)
    receipt = sender.send(MESSAGE)
    (text,) = simulator.texts
    assert (receipt.provider, receipt.provider_id, receipt.raw_status) == ("twilio", text.sid, "queued")
    assert receipt.segments == 1
    assert before <= receipt.accepted_at <= datetime.now(UTC)
    assert Receipt.from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt


def test_a_plain_text_is_posted_with_nothing_but_what_it_needs(sender: Sender, simulator: TwilioSimulator) -> None:
    sender.send(MESSAGE)
    assert posted(simulator) == {"To": [TO], "From": [FROM], "Body": [MESSAGE.body]}


def test_media_go_along_in_their_order(sender: Sender, simulator: TwilioSimulator) -> None:
    urls = ("https://example.invalid/1.png", "https://example.invalid/2.png")
    sender.send(Message(TO, "", media_urls=urls))
    assert posted(simulator)["MediaUrl"] == list(urls)
    assert "Body" not in posted(simulator)


@pytest.mark.parametrize(
    ("sender_id", "field"),
    [(SERVICE, "MessagingServiceSid"), ("+15005550009", "From"), ("12345", "From"), ("MGM Shop", "From")],
)
def test_the_messages_own_sender_goes_before_the_default(
    sender_id: str, field: str, sender: Sender, simulator: TwilioSimulator
) -> None:
    sender.send(Message(TO, "hello", sender_id=sender_id))
    assert posted(simulator)[field] == [sender_id]
    assert len({"From", "MessagingServiceSid"} & set(posted(simulator))) == 1


def test_a_messaging_service_may_be_the_default_and_counts_segments_later(
    simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, messaging_service_sid=SERVICE, base_url=simulator.url)
    receipt = sender.send(MESSAGE)
    sender.close()
    assert posted(simulator)["MessagingServiceSid"] == [SERVICE]
    assert (receipt.segments, receipt.raw_status) == (None, "accepted")


@pytest.mark.parametrize(
    ("left_s", "validity_s"),
    [(1.0, 1), (1.999, 1), (60.5, 60), (35_999.9, 35_999), (36_000.0, 36_000), (90_000.0, 36_000)],
)
def test_the_validity_period_is_the_time_left(
    left_s: float, validity_s: int, simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    clock = FakeClock(NOW)
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=clock)
    sender.send(Message(TO, "hello", send_before=NOW + timedelta(seconds=left_s)))
    sender.close()
    assert posted(simulator)["ValidityPeriod"] == [str(validity_s)]


@pytest.mark.parametrize("left_s", [0.999, 0.0, -5.0])
def test_with_less_than_a_second_left_nothing_is_posted(
    left_s: float, simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=FakeClock(NOW))
    with pytest.raises(ProviderError) as caught:
        sender.send(Message(TO, "hello", send_before=NOW + timedelta(seconds=left_s)))
    failure = sender.classify(caught.value)
    assert (failure.kind, failure.maybe_sent) == (FailureKind.EXPIRED, False)
    assert simulator.posts == 0


def test_the_deadline_of_the_call_is_cut_to_the_time_left(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    simulator.script(FAULTS["hang"])
    sender = new_sender(
        ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, timeout_s=30.0, clock=FakeClock(NOW)
    )
    began = datetime.now(UTC)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        sender.send(Message(TO, "hello", send_before=NOW + timedelta(seconds=1)))
    sender.close()
    assert sender.classify(caught.value).maybe_sent
    assert datetime.now(UTC) - began < timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("url", "query"),
    [
        ("https://example.invalid/sms", {"smsretry_id": ["parcel-1"]}),
        ("https://example.invalid/sms?shop=7&empty=", {"shop": ["7"], "empty": [""], "smsretry_id": ["parcel-1"]}),
    ],
)
def test_a_status_callback_carries_our_id_and_keeps_its_query(
    url: str, query: dict[str, list[str]], simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, status_callback_url=url)
    sender.send(MESSAGE)
    sender.send(Message(TO, "no id"))
    sender.close()
    with_id, without_id = [request.form["StatusCallback"][0] for request in simulator.requests]
    assert parse_qs(urlsplit(with_id).query, keep_blank_values=True) == query
    assert with_id.split("?")[0] == url.split("?", maxsplit=1)[0]
    assert without_id == url


def test_an_id_of_any_characters_survives_the_callback(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    sender = new_sender(
        ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, status_callback_url="https://x.invalid/"
    )
    sender.send(Message(TO, "hello", id="spring & sale:7/é?#+"))
    sender.close()
    assert parse_qs(urlsplit(posted(simulator)["StatusCallback"][0]).query) == {"smsretry_id": ["spring & sale:7/é?#+"]}


def test_an_api_key_logs_in_for_the_account(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    sender = new_sender(
        ACCOUNT_SID,
        api_key=simulator.api_key,
        api_secret=simulator.api_secret,
        from_number=FROM,
        base_url=simulator.url,
    )
    sender.send(MESSAGE)
    sender.close()
    assert simulator.text_count == 1


def test_wrong_credentials_are_an_auth_failure(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    sender = new_sender(ACCOUNT_SID, "wrong", from_number=FROM, base_url=simulator.url)
    outcome = Dispatcher(sender).attempt(MESSAGE)
    sender.close()
    assert isinstance(outcome, GaveUp)
    assert (outcome.failure.kind, outcome.failure.code) == (FailureKind.AUTH, 20003)
    assert outcome.cause is not None, "the client's own exception comes along"


def test_the_environment_is_read_at_the_first_use(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    env: dict[str, str] = {}
    sender = new_sender.from_env(env)
    env.update(ENV, TWILIO_BASE_URL=simulator.url)
    sender.send(MESSAGE)
    sender.close()
    assert simulator.text_count == 1


@pytest.mark.parametrize(
    ("without", "told"),
    [
        (["TWILIO_ACCOUNT_SID"], "TWILIO_ACCOUNT_SID is missing"),
        (["TWILIO_AUTH_TOKEN"], "TWILIO_AUTH_TOKEN is missing. Set it, or TWILIO_API_KEY and TWILIO_API_SECRET"),
        (["TWILIO_FROM_NUMBER"], "set TWILIO_FROM_NUMBER or TWILIO_MESSAGING_SERVICE_SID"),
        (list(ENV), "TWILIO_ACCOUNT_SID is missing"),
    ],
)
def test_what_is_missing_in_the_environment_is_told_by_its_name_at_the_first_use(
    without: list[str], told: str, new_sender: NewSender
) -> None:
    sender = new_sender.from_env({name: value for name, value in ENV.items() if name not in without})
    with pytest.raises(ConfigurationError, match=told) as caught:
        sender.send(MESSAGE)
    assert sender.classify(caught.value).kind is FailureKind.SENDER_CONFIG


@pytest.mark.parametrize("have", ["TWILIO_API_KEY", "TWILIO_API_SECRET"])
def test_half_an_api_key_is_none(have: str, new_sender: NewSender) -> None:
    missing = {"TWILIO_API_KEY": "TWILIO_API_SECRET", "TWILIO_API_SECRET": "TWILIO_API_KEY"}[have]
    with pytest.raises(ConfigurationError, match=f"{missing} is missing"):
        new_sender.from_env({**ENV, have: "SK1"}).send(MESSAGE)


def test_a_blank_variable_is_missing(new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match="TWILIO_AUTH_TOKEN is missing"):
        new_sender.from_env({**ENV, "TWILIO_AUTH_TOKEN": "  "}).send(MESSAGE)


def test_arguments_are_told_by_their_own_names(new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match="account_sid is missing"):
        new_sender(None, "token", from_number=FROM).send(MESSAGE)
    with pytest.raises(ConfigurationError, match="auth_token is missing"):
        new_sender(ACCOUNT_SID, from_number=FROM).send(MESSAGE)


def test_two_default_senders_are_one_too_many(new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match="from_number and messaging_service_sid are both set"):
        new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, messaging_service_sid=SERVICE).send(MESSAGE)


@pytest.mark.parametrize("name", ["from_number", "messaging_service_sid"])
def test_a_default_sender_that_is_no_text_is_refused_at_once(name: str, new_sender: NewSender) -> None:
    options: dict[str, Any] = {name: 15005550006}
    with pytest.raises(ConfigurationError, match=f"{name} must be a str, got int"):
        new_sender(ACCOUNT_SID, AUTH_TOKEN, **options)
    with pytest.raises(ConfigurationError, match=f"{name} must be a str, got int"):
        new_sender.from_env(ENV, **options)


@pytest.mark.parametrize(
    "number", ["5005550006", "123456789", "+1 500 555 0006", "+05005550006", "+", "+1234567890123456", "00493012345678"]
)
def test_a_default_number_that_can_be_none_is_refused_at_once_and_not_shown(number: str, new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match=r"from_number must be a number like \+14155550101") as refused:
        new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=number)
    assert number not in str(refused.value) or number == "+"
    with pytest.raises(ConfigurationError, match="TWILIO_FROM_NUMBER must be a number"):
        new_sender.from_env({**ENV, "TWILIO_FROM_NUMBER": number}).send(MESSAGE)


@pytest.mark.parametrize("sender", ["+15005550006", "12345", "ACME", "7-Eleven", "whatsapp:+15005550006", ""])
def test_a_default_sender_may_be_a_number_a_short_code_or_a_name(sender: str, new_sender: NewSender) -> None:
    new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=sender)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("account_sid", "SK" + "0" * 32, "one with SK"),
        ("api_key", "AC" + "0" * 32, "one with AC"),
        ("messaging_service_sid", "+15005550006", "something else"),
        ("account_sid", "ab" * 16, "something else"),
    ],
)
def test_a_sid_of_another_kind_is_refused_at_once(name: str, value: str, got: str, new_sender: NewSender) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"{name} must begin with [A-Z]{{2}}, got {got}") as refused:
        new_sender(**{"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, **options})
    assert value not in str(refused.value)


def test_an_option_goes_before_the_environment(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    env = {**ENV, "TWILIO_BASE_URL": "http://127.0.0.1:1", "TWILIO_AUTH_TOKEN": "wrong"}
    sender = new_sender.from_env(
        env,
        messaging_service_sid=SERVICE,
        base_url=simulator.url,
        api_key=simulator.api_key,
        api_secret=simulator.api_secret,
    )
    sender.send(MESSAGE)
    sender.close()
    assert posted(simulator)["MessagingServiceSid"] == [SERVICE]


@pytest.mark.parametrize("option", ["base_url", "status_callback_url"])
@pytest.mark.parametrize("url", ["localhost:9", "http://[::1", "http://", "http://h:port", "http://h/ x", 7])
def test_a_url_must_be_one(option: str, url: Any, new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} must be a URL that begins with https:// or http://, got"):
        new_sender(ACCOUNT_SID, AUTH_TOKEN, **{option: url})


def test_a_url_in_the_environment_is_told_by_its_name_at_the_first_use(new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match="TWILIO_BASE_URL must be a URL"):
        new_sender.from_env({**ENV, "TWILIO_BASE_URL": "localhost:9"}).send(MESSAGE)


@pytest.mark.parametrize("url", ["http://u:secret@h", "http://u:secret@h:port", "u:secret@h"])
def test_a_password_in_a_url_is_not_shown(url: str, new_sender: NewSender) -> None:
    try:
        shown = repr(new_sender(ACCOUNT_SID, AUTH_TOKEN, base_url=url))
    except ConfigurationError as error:
        shown = str(error)
    assert "secret" not in shown
    assert "***@h" in shown


@pytest.mark.parametrize("name", ["account_sid", "auth_token", "api_key", "api_secret"])
@pytest.mark.parametrize("value", ["tök€n", "to ken\n", 7])
def test_credentials_that_no_header_can_carry_are_told_at_once_and_not_shown(
    name: str, value: Any, new_sender: NewSender
) -> None:
    given = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, name: value}
    with pytest.raises(ConfigurationError, match=f"{name} must be a str of printable ASCII") as caught:
        new_sender(**given)
    assert str(value) not in str(caught.value)


def test_credentials_in_the_environment_that_no_header_can_carry_are_told_at_the_first_use(
    new_sender: NewSender,
) -> None:
    with pytest.raises(ConfigurationError, match="TWILIO_AUTH_TOKEN must be a str of printable ASCII"):
        new_sender.from_env({**ENV, "TWILIO_AUTH_TOKEN": "tök€n"}).send(MESSAGE)


def test_a_rate_limiter_counts_by_the_default_sender(new_sender: NewSender) -> None:
    service = "MG" + "7" * 32
    assert new_sender.from_env({**ENV, "TWILIO_FROM_NUMBER": "+15005550006"}).rate_key == "+15005550006"
    assert new_sender.from_env(ENV, messaging_service_sid=service).rate_key == service
    assert new_sender("AC" + "7" * 32, "token").rate_key is None


def test_an_account_may_be_named_beside_the_environment(new_sender: NewSender) -> None:
    sender = new_sender.from_env(ENV, account_sid="AC" + "7" * 32)
    assert sender.account_key == "twilio:AC" + "7" * 32


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout_s", 0.0),
        ("timeout_s", -1.0),
        ("timeout_s", float("nan")),
        ("timeout_s", float("inf")),
        ("connect_timeout_s", 0.0),
        ("max_connections", 0),
        ("max_connections", 1.5),
        ("max_connections", True),
        ("timeout_s", 1e10),
        ("timeout_s", "10"),
        ("timeout_s", True),
    ],
)
def test_a_bad_number_is_told_at_once(option: str, value: float, new_sender: NewSender) -> None:
    with pytest.raises(ConfigurationError, match=option):
        new_sender(ACCOUNT_SID, AUTH_TOKEN, **{option: value})  # type: ignore[arg-type]


def test_region_and_edge_do_not_bend_a_base_url(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    env = {**ENV, "TWILIO_BASE_URL": f"{simulator.url}/", "TWILIO_REGION": "ie1", "TWILIO_EDGE": "dublin"}
    sender = new_sender.from_env(env)
    sender.send(MESSAGE)
    sender.close()
    assert simulator.text_count == 1


def test_a_repr_tells_no_secret_and_no_number(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    secrets = {"auth_token": AUTH_TOKEN, "api_secret": "a-secret", "from_number": FROM}
    sender = new_sender(ACCOUNT_SID, api_key="SK123", base_url=simulator.url, **secrets)  # type: ignore[arg-type]
    told = f"{sender!r} {new_sender.from_env(ENV)!r} {sender.__dict__!r}"
    assert all(secret not in told for secret in (*secrets.values(), ACCOUNT_SID))
    assert repr(sender) == f"{new_sender.name}(account_sid='***55', from_number='***06', base_url={simulator.url!r})"
    assert repr(new_sender.from_env({})) == f"{new_sender.name}.from_env()"


def test_nothing_that_is_logged_names_a_number_a_text_or_a_secret(
    sender: Sender, simulator: TwilioSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.script(*(FAULTS[name] for name in ("invalid_number", "cut_headers", "lost_after_taken", "server_error")))
    with caplog.at_level(logging.DEBUG):
        for _ in range(4):
            Dispatcher(sender, policy=RetryPolicy(max_retries=0, settle_after_s=0)).attempt(MESSAGE)
        sender.send(MESSAGE)
        sender.find(MESSAGE, since=datetime.now(UTC) - timedelta(hours=1))
    assert simulator.gets > 0
    assert TO[1:] not in caplog.text
    assert FROM[1:] not in caplog.text
    assert MESSAGE.body not in caplog.text
    assert AUTH_TOKEN not in caplog.text
    if "urllib3" in caplog.text:
        assert "Messages.json?To=***23" in caplog.text, "urllib3 tells of the request all the same"


def test_a_sender_at_module_level_opens_and_loads_nothing() -> None:
    program = (
        "import sys, socket\n"
        "from smsretry.senders.twilio import TwilioSender\n"
        "from smsretry import Dispatcher\n"
        "dispatcher = Dispatcher(TwilioSender.from_env({}))\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'twilio', 'requests', 'urllib3', 'ssl'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_without_the_client_installed_the_extra_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['twilio'] = None\n"  # what an environment without the package looks like to an import
        "from smsretry import ConfigurationError, Message\n"
        "from smsretry.senders.twilio import TwilioSender\n"
        f"sender = TwilioSender('AC1', 'x', from_number={FROM!r})\n"
        "try:\n"
        f"    sender.send(Message({TO!r}, 'hello'))\n"
        "except ConfigurationError as error:\n"
        "    print(error, sender.classify(error).maybe_sent)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'smsretry[twilio]'" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_closed_sender_opens_anew(sender: Sender, simulator: TwilioSimulator) -> None:
    sender.send(MESSAGE)
    sender.close()
    sender.close()
    sender.send(MESSAGE)
    assert simulator.text_count == 2


def test_a_connection_idle_for_long_is_not_used_again() -> None:
    from smsretry.senders.twilio.deadline import LONGEST_IDLE_S, POOLS

    timeout = Timeout(connect=5, total=5)
    with clerk(http(200, "x")) as server:
        pool = POOLS["http"]("127.0.0.1", urlsplit(server.url).port, maxsize=1)
        for idle_s in (0.0, LONGEST_IDLE_S - 5, LONGEST_IDLE_S + 5):
            connection = pool.pool.get()
            if connection is not None:
                connection._last_used_s -= idle_s
            pool.pool.put(connection)
            pool.urlopen("GET", "/", timeout=timeout, retries=False)
        pool.close()
    ports = server.client_ports
    assert ports[0] == ports[1] != ports[2]


def test_a_lost_answer_is_looked_up_and_found(simulator: TwilioSimulator, new_sender: NewSender) -> None:
    simulator.script(FAULTS["server_error_taken"])
    clock = FakeClock(datetime.now(UTC))
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=clock)
    dispatcher = Dispatcher(sender, clock=clock)
    first = dispatcher.attempt(MESSAGE)
    assert isinstance(first, RetryAfter)
    clock.advance(first.delay_s)
    second = dispatcher.attempt(MESSAGE, first.state)
    sender.close()
    assert isinstance(second, Accepted)
    assert second.looked_up
    assert second.receipt.provider_id == simulator.texts[0].sid
    assert (simulator.posts, simulator.text_count) == (1, 1)


def test_an_answer_lost_before_the_text_was_taken_is_repeated_once_it_is_settled(
    simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    simulator.script(FAULTS["lost_before_taken"])
    clock = FakeClock(datetime.now(UTC))
    sender = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=clock)
    dispatcher = Dispatcher(sender, clock=clock)
    outcome = dispatcher.attempt(MESSAGE)
    waited_s = 0.0
    while isinstance(outcome, (RetryAfter, Deferred)):
        clock.advance(outcome.delay_s)
        waited_s += outcome.delay_s
        outcome = dispatcher.attempt(MESSAGE, outcome.state)
    sender.close()
    assert isinstance(outcome, Accepted)
    assert waited_s >= 120.0
    assert (simulator.posts, simulator.text_count) == (2, 1)


def test_a_refusal_that_names_the_number_reaches_analytics_without_it(
    sender: Sender, simulator: TwilioSimulator
) -> None:
    simulator.script(Refused(code=21211))
    outcome = Dispatcher(sender).attempt(MESSAGE)
    assert isinstance(outcome, GaveUp)
    assert outcome.failure.detail.startswith("The 'To' number ***23 is not a valid phone number.")


def test_a_look_up_without_configuration_cannot_tell(new_sender: NewSender) -> None:
    answer = new_sender.from_env({}).find(MESSAGE, since=NOW)
    assert answer == CannotTell("TWILIO_ACCOUNT_SID is missing. Set it to what Twilio's console shows.")


def test_a_call_of_the_sender_is_an_attempt_even_where_it_posts_nothing(
    simulator: TwilioSimulator, new_sender: NewSender
) -> None:
    clock = FakeClock()
    message = Message(TO, "Your table is ready.", id="a-1", send_before=clock.now() + timedelta(seconds=0.5))
    too_late = new_sender(ACCOUNT_SID, AUTH_TOKEN, from_number=FROM, base_url=simulator.url, clock=clock)
    unset = new_sender.from_env({"TWILIO_BASE_URL": simulator.url})
    for sender, sent in ((too_late, message), (unset, Message(TO, "Your table is ready.", id="a-2"))):
        ended = Dispatcher(sender, clock=clock).attempt(sent)
        assert isinstance(ended, GaveUp)
        assert ended.attempts == 1
    assert simulator.posts == 0
